"""Incremental update: which lists of the last run can be reused, so that only users whose inputs changed are scored again.

A user's lists follow from the user's row of ``user_sequences``, the models, the new items, the rules on items and a few settings.
If everything but the rows is unchanged, the lists of users with unchanged rows are those that a full run would write, bit for bit
on processors of one kind. Lists that contain a newly excluded item are recomputed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import __version__
from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.job import Job, log
from metarec_spark.model.fixed_shapes import WIDTHS
from metarec_spark.scoring.rules import Rules
from metarec_spark.scoring.serving import ServingModel

_LIST_FORMAT = 2
"""Raised when a new version of this code makes other lists from the same model."""


@dataclass(frozen=True)
class ReusableLists:
    """Lists that need not be recomputed."""

    lists: DataFrame
    """Rows of ``recommendations``, under the job's day."""
    changed: DataFrame
    """(user_id) of the users who are scored again."""


def list_fingerprint(job: Job, versions: dict[str, int], models: Sequence[ServingModel], rules: Rules | None) -> str:
    """Return a hash of everything that shapes a user's lists, except the user's own row and which items are excluded."""
    settings = [job.config.recommend.model_dump(mode="json", exclude={"mode"}), job.config.features.min_user_events]
    served = [
        (
            model.model_id,
            model.manifest.sha256,
            model.manifest.to_json()["tuned"],
            model.domains,
            model.new_items and model.new_items.digest,
        )
        for model in models
    ]
    code = [__version__, _LIST_FORMAT, torch.__version__, numba.__version__]
    tables = [job.warehouse.identity(name) for name in (c.USER_SEQUENCES, c.WITHHELD) if name in versions]
    return fingerprint(code, settings, served, tables, rules and rules.digest)


@contextmanager
def reusable_lists(
    job: Job, versions: dict[str, int], models: Sequence[ServingModel], current: str | None
) -> Iterator[ReusableLists | None]:
    """Yield the lists of the last run that still hold; None, with the reason in the log, if every user must be scored.

    Parameters
    ----------
    versions
        Pinned table versions.
    current
        This run's :func:`list_fingerprint`; None if users have events after the job's day: then the table's rows are not the
        ones that the lists are made from.
    """
    reused, reason = _reusable(job, versions, models, current)
    if reused is None:
        log.info("everyone is scored: %s", reason)
    try:
        yield reused
    finally:
        if reused:
            reused.changed.unpersist()


def _reusable(
    job: Job, versions: dict[str, int], models: Sequence[ServingModel], current: str | None
) -> tuple[ReusableLists | None, str]:
    """Return the reusable lists, or None and why there are none."""
    if job.config.recommend.mode == "full":
        return None, "recommend.mode is full"
    shapes = [model.manifest.model for model in models]
    if any(width % WIDTHS for shape in shapes for width in (shape.dim, shape.dim // shape.heads, shape.adapter)):
        widths = f"model.dim, model.dim / model.heads or model.adapter is no multiple of {WIDTHS}"
        return None, f"{widths}: last bits depend on who is scored together"
    # Any job may have made the last lists; commits after it only compact files or erase people.
    commits = (logged.metadata for logged in job.warehouse.commits(c.RECOMMENDATIONS))
    last = next((commit for commit in commits if commit and c.USER_SEQUENCES in commit.inputs), None)
    if last is None:
        return None, "there are no lists yet"
    if current is None:
        return None, f"there are events after {job.ds}"
    if last.settings != current:
        return None, f"the lists of {last.ds} are of another model, of other items or settings, or of a day run late"
    since, until = last.inputs[c.USER_SEQUENCES], versions[c.USER_SEQUENCES]
    changes = job.warehouse.changes(c.USER_SEQUENCES, since, until)
    if changes is None:
        return None, f"what changed in {c.USER_SEQUENCES} since its version {since} is not on record any more"
    lists = job.warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(last.ds))
    changed = changes.select(c.USER_ID)
    if c.WITHHELD in versions:
        affected, reason = _users_with_newly_excluded(job, lists, last.inputs[c.WITHHELD], versions[c.WITHHELD])
        if affected is None:
            return None, reason
        changed = changed.union(affected)
    # A cached query keeps its shuffle partitions, 200 by default, however few its rows are.
    changed = changed.distinct().coalesce(job.spark.sparkContext.defaultParallelism).persist(StorageLevel.DISK_ONLY)
    changed.count()  # so that joins are planned by their number: if they are few, no list and no user is shuffled
    return ReusableLists(lists.join(changed, c.USER_ID, "left_anti").withColumn("ds", F.lit(job.ds)), changed), ""


def _users_with_newly_excluded(job: Job, lists: DataFrame, since: int, until: int) -> tuple[DataFrame | None, str]:
    """Return (user_id) of the lists that contain a newly excluded item; None and why if the rules allow no reuse."""
    changes = job.warehouse.changes(c.WITHHELD, since, until)
    if changes is None:
        return None, f"what changed in {c.WITHHELD} since its version {since} is not on record any more"
    removed = changes.where("_change_type = 'delete'")
    if not removed.join(job.warehouse.read(c.WITHHELD, until), c.ITEM_IDX, "left_anti").isEmpty():
        return None, "items that were excluded are eligible again"
    listed = lists.select(c.USER_ID, c.DOMAIN, F.explode("items.item_id").alias(c.ITEM_ID))
    added = changes.where("_change_type = 'insert'").select(c.DOMAIN, c.ITEM_ID)
    return listed.join(added, [c.DOMAIN, c.ITEM_ID], "left_semi").select(c.USER_ID), ""
