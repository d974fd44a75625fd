"""The model registry: it alone reads and writes rows of the table ``models``.

Training enters a model as a candidate, evaluation decides on it, and adaptation enters one as approved or rejected; ``promote``
and ``rollback`` change by hand which one serves. Scoring, training and maintenance find here which model serves, which one to
inherit from, and which table versions must stay.
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
from metarec_spark.warehouse.storage import Location, exists, uri

_FOLDER = "_models"
WITHDRAWN = "withdrawn"
"""Start of the reason of a model that no longer serves, or serves fewer domains, by command."""


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
    """Folder of the model; in the table, relative to the warehouse."""
    code_version: str


def enter(job: Job, manifest: Manifest, folder: Location, status: str = "candidate", reason: str | None = None) -> None:
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
        path=str(folder),
        code_version=manifest.code_version,
    )
    _write(job, row, manifest.table_versions)


def _write(job: Job, row: ModelRow, inputs: dict[str, int] | None = None) -> None:
    """Merge a row, with the path relative to the warehouse: a copy of the warehouse has its own models."""
    path = uri(row.path).removeprefix(f"{uri(job.warehouse.root)}/")
    job.warehouse.merge_records(c.MODELS, [asdict(replace(row, path=path))], job.commit(inputs, row.model_id))


def _from_row(job: Job, row: Row) -> ModelRow:
    """A row of the table, with the whole path. Absolute paths, which older versions wrote, may lead to another warehouse: such a
    folder is taken only if this warehouse has none of its name."""
    path = row["path"]
    own = job.warehouse.path(f"{_FOLDER}/{path.rstrip('/').rpartition('/')[2]}")
    absolute = path.startswith("/") or ":" in path.partition("/")[0]
    return ModelRow(**row.asDict() | {"path": path if absolute and not exists(own) else own})


def chosen(job: Job, model_id: str | None) -> ModelRow:
    """The model of that id, or the newest; among those of one day, one that is not decided on yet."""
    rows = job.warehouse.read(c.MODELS).where(F.col("ds") <= F.lit(job.ds))
    rows = rows.where((F.col("kind") == "base") if model_id is None else (F.col("model_id") == F.lit(model_id)))
    row = rows.orderBy(F.desc("ds"), F.desc(F.col("status") == "candidate"), F.desc("model_id")).first()
    if row is None:
        named = f"model {model_id}" if model_id else "model"
        raise DataError(f"no {named} on or before {job.ds} in {job.warehouse.root}; run `metarec train` first")
    return _from_row(job, row)


def champions(job: Job, model: ModelRow) -> dict[str, ModelRow]:
    """Domain → the model of the same day or before that serves it if ``model`` does not."""
    rows = [row for row in _approved(job, required=False) if row.model_id != model.model_id and row.ds <= model.ds]
    return {domain: row for row in reversed(rows) for domain in row.domains}


def set_status(job: Job, model: ModelRow, status: str, reason: str) -> None:
    """Write a model's status (approved or rejected), its domains and the reason into its row."""
    _write(job, replace(model, status=status, reason=reason))


def promote(job: Job, model: ModelRow, domains: list[str]) -> int:
    """Make a model serve these domains: approve it, and have newer approved models yield them; the number of rows changed."""
    newer = [row for row in _approved(job, required=False) if _age(row) > _age(model) and {*row.domains} & {*domains}]
    for row in newer:
        left = [domain for domain in row.domains if domain not in domains]
        status, reason = "approved" if left else "rejected", f"{WITHDRAWN}: {model.model_id} was promoted"
        _write(job, replace(row, status=status, domains=left or row.domains, reason=reason))
    _write(job, replace(model, status="approved", domains=domains, reason="promoted by hand"))
    return len(newer) + 1


def rollback(job: Job) -> tuple[ModelRow, int]:
    """Reject the newest approved base model, and return it and the number of rows changed.

    Raises
    ------
    ModelRejected
        If no other base model is approved, since nothing would serve then.
    """
    newest, *others = [row for row in _approved(job) if row.kind == "base"]
    if not others:
        raise ModelRejected(f"{newest.model_id} is the only approved model on or before {job.ds}: nothing to go back to")
    _write(job, replace(newest, status="rejected", reason=f"{WITHDRAWN}: rolled back to {others[0].model_id}"))
    return newest, 1


def _age(row: ModelRow) -> tuple[date, bool, str]:
    """Order in which models serve: the newest; among those of one day, an adapted one."""
    return row.ds, row.kind != "base", row.model_id


def trained_since(job: Job, first: date) -> bool:
    """Whether a base model of the days ``first`` to the job's was approved."""
    if not job.warehouse.exists(c.MODELS):
        return False
    days = F.col("ds").between(F.lit(first), F.lit(job.ds))
    approved = days & (F.col("status") == "approved") & (F.col("kind") == "base")
    return not job.warehouse.read(c.MODELS).where(approved).isEmpty()


def approved_before(job: Job) -> Iterator[tuple[str, Location]]:
    """Id and folder of each approved base model of an earlier day, newest first."""
    if not job.warehouse.exists(c.MODELS):
        return
    earlier = (F.col("kind") == "base") & (F.col("status") == "approved") & (F.col("ds") < F.lit(job.ds))
    rows = job.warehouse.read(c.MODELS).where(earlier).orderBy(F.desc("ds"), F.desc("model_id"))
    for row in rows.toLocalIterator():
        yield row["model_id"], _from_row(job, row).path


def newest_approved(job: Job) -> ModelRow:
    """The approved base model with the newest day not after the job's.

    Raises
    ------
    ModelRejected
        If there is none.
    """
    return next(row for row in _approved(job) if row.kind == "base")


def check_items(job: Job, manifest: Manifest) -> None:
    """Refuse a model whose item indexes are not those of the table ``items``.

    Raises
    ------
    DataError
        If the table was deleted and created anew since the model was trained.
    """
    if manifest.items_table not in (None, job.warehouse.identity(c.ITEMS)):
        raise DataError(
            f"model {manifest.model_id} was trained on another table {c.ITEMS} than the one in {job.warehouse.root}, "
            "which was created anew since: its indexes mean other items. Restore that table, or train again"
        )


def versions_in_use(job: Job) -> dict[str, int]:
    """For each table, the oldest version that a serving model was trained on; empty if no model is approved."""
    try:
        rows = serving_rows(job).values() if job.warehouse.exists(c.MODELS) else ()
    except ModelRejected:
        rows = ()
    oldest: dict[str, int] = {}
    for name, version in (pair for row in rows for pair in row.table_versions.items()):
        oldest[name] = min(version, oldest.get(name, version))
    return oldest


def serving_rows(job: Job) -> dict[str, ModelRow]:
    """Domain → the approved model that serves it on the job's day: the newest; among those of one day, an adapted one.

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


def serving_ids(job: Job) -> list[str]:
    """Ids of the models that serve on the job's day; empty if none is approved."""
    try:
        return sorted({row.model_id for row in serving_rows(job).values()}) if job.warehouse.exists(c.MODELS) else []
    except ModelRejected:
        return []


def _approved(job: Job, *, required: bool = True) -> list[ModelRow]:
    """Approved models not after the job's day, newest first: a few a week. If it is ``required``, one must be a base model."""
    approved = job.warehouse.read(c.MODELS).where((F.col("status") == "approved") & (F.col("ds") <= F.lit(job.ds)))
    rows = approved.orderBy(F.desc("ds"), F.col("kind") == "base", F.desc("model_id")).toLocalIterator()
    models = [_from_row(job, row) for row in rows]
    if required and not any(row.kind == "base" for row in models):
        raise ModelRejected(
            f"no approved model on or before {job.ds} in {job.warehouse.root}; run `metarec train` and `metarec evaluate`"
        )
    return models
