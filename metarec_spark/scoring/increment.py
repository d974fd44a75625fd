"""What still holds of the lists that the last run wrote, so that a night scores those alone for whom something changed.

A user's lists follow from the user's row of ``user_sequences``, the models, the newcomers and a few settings. Where all but the
rows are as they were, lists of users whose row did not change are those that a full run would write, to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import __version__
from metarec_spark import columns as c
from metarec_spark.features.sequences import newer_than
from metarec_spark.job import Job, log
from metarec_spark.scoring.newcomers import Newcomers


@dataclass(frozen=True)
class Kept:
    """The lists that are not made again."""

    lists: DataFrame
    """Rows of ``recommendations``, under the job's day."""
    changed: DataFrame
    """(user_id) of those who are scored."""


def settings(job: Job, serving: Sequence[tuple[dict, list[str]]], came: Sequence[Newcomers | None]) -> str:
    """Fingerprint of all that shapes a user's lists but the user's own row.

    Parameters
    ----------
    serving
        Models, each with the domains that it serves.
    came
        Newcomers of each.
    """
    shaping = job.config.recommend.model_dump(mode="json", exclude={"mode"})
    models = [
        (model["model_id"], domains, new.digest if new else None) for (model, domains), new in zip(serving, came, strict=True)
    ]
    said = json.dumps([__version__, shaping, job.config.features.min_user_events, models], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def kept(job: Job, versions: dict[str, int], made: str) -> Kept | None:
    """What the last run's lists are still good for; None, and the reason in the log, where everyone is to be scored.

    Parameters
    ----------
    versions
        Pinned table versions.
    made
        What :func:`settings` says today.
    """
    found, why = _kept(job, versions, made)
    if found is None:
        log.info("everyone is scored: %s", why)
    return found


def of_newest(job: Job, versions: dict[str, int]) -> bool:
    """Whether the table's rows are those of the job's day: no user has later events."""
    return newer_than(job.warehouse.read(c.USER_SEQUENCES, versions[c.USER_SEQUENCES]), job.ds).isEmpty()


def _kept(job: Job, versions: dict[str, int], made: str) -> tuple[Kept | None, str]:
    if job.config.recommend.mode == "full":
        return None, "recommend.mode is full"
    last = job.warehouse.last_commit(c.RECOMMENDATIONS, job.name)
    if last is None:
        return None, "there are no lists yet"
    if not of_newest(job, versions):
        return None, f"there are events after {job.ds}"
    if last.get("settings") != made:
        return None, f"the lists of {last['ds']} are of another model, of other items or settings, or of a day run late"
    since, until = last["inputs"][c.USER_SEQUENCES], versions[c.USER_SEQUENCES]
    changes = job.warehouse.changes(c.USER_SEQUENCES, since, until)
    if changes is None:
        return None, f"what changed in {c.USER_SEQUENCES} since its version {since} is not on record any more"
    changed = changes.select(c.USER_ID).distinct()
    lists = job.warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(last["ds"]).cast("date"))
    lists = lists.join(changed, c.USER_ID, "left_anti").withColumn("ds", F.lit(job.ds))
    return Kept(lists, changed), ""
