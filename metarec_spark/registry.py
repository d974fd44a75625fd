"""The model registry: it alone reads and writes rows of the table ``models``.

A model is entered as a candidate by training, decided on by evaluation, entered as approved or rejected by adaptation, and
found here by whoever serves it, inherits from it, or must keep the table versions that it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date

from pyspark.sql import Row
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import DataError, ModelRejected
from metarec_spark.job import Job
from metarec_spark.model.manifest import Manifest
from metarec_spark.warehouse.storage import Location, uri


@dataclass(frozen=True)
class ModelRow:
    """A row of table ``models``; schemas/models.json says what each column means."""

    model_id: str
    parent: str | None
    kind: str
    domains: list[str]
    ds: date
    table_versions: dict[str, int]
    config: str
    metrics: str
    status: str
    reason: str | None
    path: str
    code_version: str

    @classmethod
    def from_row(cls, row: Row) -> ModelRow:
        """From a row as Spark gives it."""
        return cls(**row.asDict())


def enter(job: Job, manifest: Manifest, place: Location, status: str = "candidate", reason: str | None = None) -> None:
    """Add the model to ``models``, unless it is there: a run that is repeated takes back no decision."""
    known = F.col("model_id") == F.lit(manifest.model_id)
    if job.warehouse.exists(c.MODELS) and not job.warehouse.read(c.MODELS).where(known).isEmpty():
        return
    sections = ("model", "transitions", "split", "train")
    row = ModelRow(
        model_id=manifest.model_id,
        parent=manifest.parent,
        kind=manifest.kind,
        domains=manifest.serves,
        ds=manifest.ds,
        table_versions=manifest.table_versions,
        config=json.dumps({name: getattr(manifest, name).model_dump(mode="json") for name in sections}, sort_keys=True),
        metrics=json.dumps(manifest.metrics.summary(), sort_keys=True),
        status=status,
        reason=reason,
        path=uri(place),
        code_version=manifest.code_version,
    )
    commit = job.commit(inputs=manifest.table_versions, model_id=manifest.model_id)
    job.warehouse.merge_records(c.MODELS, [asdict(row)], commit)


def chosen(job: Job, model_id: str | None) -> ModelRow:
    """The model of that id, or the newest; of those of one day, one that is not yet judged."""
    rows = job.warehouse.read(c.MODELS).where(F.col("ds") <= F.lit(job.ds))
    rows = rows.where((F.col("kind") == "base") if model_id is None else (F.col("model_id") == F.lit(model_id)))
    row = rows.orderBy(F.desc("ds"), F.desc(F.col("status") == "candidate"), F.desc("model_id")).first()
    if row is None:
        named = f"model {model_id}" if model_id else "model"
        raise DataError(f"no {named} on or before {job.ds} in {job.warehouse.root}; run `metarec train` first")
    return ModelRow.from_row(row)


def decide(job: Job, model: ModelRow, status: str, reason: str) -> None:
    """Write a model's status (approved or rejected) and the reason into its row."""
    row = replace(model, status=status, reason=reason)
    job.warehouse.merge_records(c.MODELS, [asdict(row)], job.commit(model_id=model.model_id))


def trained_since(job: Job, first: date) -> bool:
    """Whether a base model of the days ``first`` to the job's was approved."""
    if not job.warehouse.exists(c.MODELS):
        return False
    days = F.col("ds").between(F.lit(first), F.lit(job.ds))
    found = days & (F.col("status") == "approved") & (F.col("kind") == "base")
    return not job.warehouse.read(c.MODELS).where(found).isEmpty()


def approved_before(job: Job) -> Iterator[tuple[str, Location]]:
    """Id and folder of each approved base model of an earlier day, newest first."""
    if not job.warehouse.exists(c.MODELS):
        return
    earlier = (F.col("kind") == "base") & (F.col("status") == "approved") & (F.col("ds") < F.lit(job.ds))
    rows = job.warehouse.read(c.MODELS).where(earlier).orderBy(F.desc("ds"), F.desc("model_id"))
    for row in rows.select("model_id", "path").toLocalIterator():
        yield row["model_id"], row["path"]


def newest_approved(job: Job) -> ModelRow:
    """The approved base model with the newest day not after the job's.

    Raises
    ------
    ModelRejected
        Where there is none.
    """
    return next(row for row in _approved(job) if row.kind == "base")


def check_items(job: Job, manifest: Manifest) -> None:
    """Refuse a model whose item indexes are not those of the table ``items``.

    Raises
    ------
    DataError
        Where the table was deleted and made anew since the model was trained.
    """
    if manifest.items_table not in (None, job.warehouse.identity(c.ITEMS)):
        raise DataError(
            f"model {manifest.model_id} was trained on another table {c.ITEMS} than the one in {job.warehouse.root}, "
            "which was made anew since: its indexes mean other items. Restore that table, or train again"
        )


def versions_in_use(job: Job) -> dict[str, int]:
    """Of each table, the oldest version that a model which serves today was trained on; nothing before any is approved."""
    try:
        rows = serving_rows(job).values() if job.warehouse.exists(c.MODELS) else ()
    except ModelRejected:
        rows = ()
    oldest: dict[str, int] = {}
    for name, version in (pair for row in rows for pair in row.table_versions.items()):
        oldest[name] = min(version, oldest.get(name, version))
    return oldest


def serving_rows(job: Job) -> dict[str, ModelRow]:
    """Domain → the row of the approved model that serves it on the job's day: the newest; of one day, an adapted one.

    Raises
    ------
    ModelRejected
        If no base model is approved.
    """
    of_domain: dict[str, ModelRow] = {}
    for row in _approved(job):
        for domain in row.domains:
            of_domain.setdefault(domain, row)
    return of_domain


def _approved(job: Job) -> list[ModelRow]:
    """Approved models not after the job's day, newest first: a few a week."""
    approved = job.warehouse.read(c.MODELS).where((F.col("status") == "approved") & (F.col("ds") <= F.lit(job.ds)))
    rows = approved.orderBy(F.desc("ds"), F.col("kind") == "base", F.desc("model_id")).toLocalIterator()
    found = [ModelRow.from_row(row) for row in rows]
    if not any(row.kind == "base" for row in found):
        raise ModelRejected(
            f"no approved model on or before {job.ds} in {job.warehouse.root}; run `metarec train` and `metarec evaluate`"
        )
    return found
