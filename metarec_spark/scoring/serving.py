"""Which approved model serves which domain on a day."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import DataError, ModelRejected
from metarec_spark.job import Job
from metarec_spark.model import bundle
from metarec_spark.scoring.newcomers import Newcomers
from metarec_spark.storage import Place


@dataclass(frozen=True)
class Serving:
    """A model, and what it serves."""

    model_id: str
    folder: Place
    manifest: dict
    domains: list[str]
    """Whose lists it makes, of those that it knows."""
    came: Newcomers | None = None
    """Items that came after it."""

    def known(self, items: DataFrame) -> DataFrame:
        """Of rows of ``items``, those that it can recommend."""
        mine = items.where(F.col(c.DOMAIN).isin(self.domains))
        known = mine.where(F.col(c.ITEM_IDX) < self.manifest["items"])
        return known.unionByName(mine.join(self.came.items.select(c.ITEM_IDX), c.ITEM_IDX, "left_semi")) if self.came else known

    @classmethod
    def of(cls, row: dict, domains: list[str]) -> Serving:
        """By its row of ``models``."""
        return cls(row["model_id"], row["path"], bundle.checked(row["path"]), domains)


def newest_approved(job: Job) -> dict:
    """The approved base model with the newest day not after the job's: its row of ``models``.

    Raises
    ------
    ModelRejected
        Where there is none.
    """
    return next(row for row in _approved(job) if row["kind"] == "base")


def models_of_domains(job: Job) -> list[Serving]:
    """The models that serve today: of each domain the newest approved one; of a day's, an adapted one.

    Raises
    ------
    ModelRejected
        Where there is none.
    DataError
        Where one is not whole, or of another table ``items``.
    """
    of_domain = _of_domains(_approved(job))
    models = {row["model_id"]: row for row in of_domain.values()}
    serving = [
        Serving.of(row, sorted(domain for domain, by in of_domain.items() if by["model_id"] == model_id))
        for model_id, row in models.items()
    ]
    for model in serving:
        check_items(job, model.manifest)
    return serving


def check_items(job: Job, manifest: dict) -> None:
    """Refuse a model whose item indexes are not those of the table ``items``.

    Raises
    ------
    DataError
        Where the table was deleted and made anew since the model was trained.
    """
    made_of = manifest.get("items_table")  # models of older versions do not say
    if made_of is not None and made_of != job.warehouse.identity(c.ITEMS):
        raise DataError(
            f"model {manifest['model_id']} was trained on another table {c.ITEMS} than the one in {job.warehouse.root}, "
            "which was made anew since: its indexes mean other items. Restore that table, or train again"
        )


def versions_in_use(job: Job) -> dict[str, int]:
    """Of each table, the oldest version that a model which serves today was trained on; nothing before any is approved."""
    try:
        rows = _of_domains(_approved(job)).values() if job.warehouse.exists(c.MODELS) else ()
    except ModelRejected:
        rows = ()
    oldest: dict[str, int] = {}
    for name, version in (pair for row in rows for pair in row["table_versions"].items()):
        oldest[name] = min(version, oldest.get(name, version))
    return oldest


def _of_domains(rows: list[dict]) -> dict[str, dict]:
    """The first row that names a domain, for each domain."""
    of_domain: dict[str, dict] = {}
    for row in rows:
        for domain in row["domains"]:
            of_domain.setdefault(domain, row)
    return of_domain


def _approved(job: Job) -> list[dict]:
    """Approved models not after the job's day, newest first: a few a week."""
    approved = job.warehouse.read(c.MODELS).where((F.col("status") == "approved") & (F.col("ds") <= F.lit(job.ds)))
    rows = approved.orderBy(F.desc("ds"), F.col("kind") == "base", F.desc("model_id")).toLocalIterator()
    found = [row.asDict() for row in rows]
    if not any(row["kind"] == "base" for row in found):
        raise ModelRejected(
            f"no approved model on or before {job.ds} in {job.warehouse.root}; run `metarec train` and `metarec evaluate`"
        )
    return found
