"""promote: a model serves from now on, whatever was decided. rollback: the newest model yields to the one before it."""

from __future__ import annotations

from dataclasses import dataclass

from metarec_spark import registry
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.model import artifact


@dataclass(frozen=True)
class ServingDetails(Details):
    """Which model serves which platform after the command."""

    serving: dict[str, str]


def promote(job: Job, model_id: str) -> Result:
    """Approve a model, and have newer models yield its platforms to it.

    Raises
    ------
    DataError
        If there is no such model, its files are not those that were saved, or it belongs to another table ``items``.
    """
    model = registry.chosen(job, model_id)
    manifest = artifact.checked(model.path)
    registry.check_items(job, manifest)
    changed = registry.promote(job, model, manifest.serves)
    return _result(job, model_id, changed)


def rollback(job: Job) -> Result:
    """Withdraw the newest approved base model, so that the models before it serve its platforms again.

    Raises
    ------
    ModelRejected
        If there is none before it.
    """
    model, changed = registry.rollback(job)
    return _result(job, model.model_id, changed)


def _result(job: Job, model_id: str, changed: int) -> Result:
    serving = {domain: row.model_id for domain, row in sorted(registry.serving_rows(job).items())}
    log.info("serving from now on: %s", ", ".join(f"{domain} by {name}" for domain, name in serving.items()))
    return Result(rows_out=changed, model_id=model_id, details=ServingDetails(serving))
