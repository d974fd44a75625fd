"""What still holds of the lists that the last run wrote, so that a night scores those alone for whom something changed.

A user's lists follow from the user's row of ``user_sequences``, the models, the newcomers, the rules on items and a few settings.
Where all but the rows are as they were, lists of users whose row did not change are those that a full run would write, to the
last bit on processors of one kind. Items that are newly withheld change the lists that held them.
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

_SCORING = 2
"""Raised where the same model's lists are made otherwise than before."""


@dataclass(frozen=True)
class Kept:
    """The lists that are not made again."""

    lists: DataFrame
    """Rows of ``recommendations``, under the job's day."""
    changed: DataFrame
    """(user_id) of those who are scored."""


def settings(job: Job, versions: dict[str, int], models: Sequence[ServingModel], rules: Rules | None) -> str:
    """Fingerprint of all that shapes a user's lists but the user's own row, and which items are withheld."""
    shaping = [job.config.recommend.model_dump(mode="json", exclude={"mode"}), job.config.features.min_user_events]
    of_models = [
        (of.model_id, of.manifest.sha256, of.manifest.to_json()["tuned"], of.domains, of.came and of.came.digest) for of in models
    ]
    code = [__version__, _SCORING, torch.__version__, numba.__version__]
    tables = [job.warehouse.identity(name) for name in (c.USER_SEQUENCES, c.WITHHELD) if name in versions]
    return fingerprint(code, shaping, of_models, tables, rules and rules.digest)


@contextmanager
def kept(job: Job, versions: dict[str, int], models: Sequence[ServingModel], shaped: str | None) -> Iterator[Kept | None]:
    """What the last run's lists are still good for; None, and the reason in the log, where everyone is to be scored.

    Parameters
    ----------
    versions
        Pinned table versions.
    shaped
        This run's :func:`settings`; None where users have events after the job's day: the table's rows are not those that the
        lists are made of.
    """
    found, why = _kept(job, versions, models, shaped)
    if found is None:
        log.info("everyone is scored: %s", why)
    try:
        yield found
    finally:
        if found:
            found.changed.unpersist()


def _kept(job: Job, versions: dict[str, int], models: Sequence[ServingModel], shaped: str | None) -> tuple[Kept | None, str]:
    if job.config.recommend.mode == "full":
        return None, "recommend.mode is full"
    shapes = [of.manifest.model for of in models]
    if any(width % WIDTHS for of in shapes for width in (of.dim, of.dim // of.heads, of.adapter)):
        said = f"model.dim, model.dim / model.heads or model.adapter is no multiple of {WIDTHS}"
        return None, f"{said}: last bits depend on who is scored together"
    # Whatever job made lists last; the commits after it keep files in order, or erase people.
    commits = (logged.metadata for logged in job.warehouse.commits(c.RECOMMENDATIONS))
    last = next((commit for commit in commits if commit and c.USER_SEQUENCES in commit.inputs), None)
    if last is None:
        return None, "there are no lists yet"
    if shaped is None:
        return None, f"there are events after {job.ds}"
    if last.settings != shaped:
        return None, f"the lists of {last.ds} are of another model, of other items or settings, or of a day run late"
    since, until = last.inputs[c.USER_SEQUENCES], versions[c.USER_SEQUENCES]
    changes = job.warehouse.changes(c.USER_SEQUENCES, since, until)
    if changes is None:
        return None, f"what changed in {c.USER_SEQUENCES} since its version {since} is not on record any more"
    lists = job.warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(last.ds))
    changed = changes.select(c.USER_ID)
    if c.WITHHELD in versions:
        since, until = last.inputs[c.WITHHELD], versions[c.WITHHELD]
        rules = job.warehouse.changes(c.WITHHELD, since, until)
        if rules is None:
            return None, f"what changed in {c.WITHHELD} since its version {since} is not on record any more"
        left = rules.where("_change_type = 'delete'")
        if not left.join(job.warehouse.read(c.WITHHELD, until), c.ITEM_IDX, "left_anti").isEmpty():
            return None, "items that were withheld are on offer again"
        listed = lists.select(c.USER_ID, c.DOMAIN, F.explode("items.item_id").alias(c.ITEM_ID))
        entered = rules.where("_change_type = 'insert'").select(c.DOMAIN, c.ITEM_ID)
        changed = changed.union(listed.join(entered, [c.DOMAIN, c.ITEM_ID], "left_semi").select(c.USER_ID))
    # What is kept of a query stays in the parts that it was shuffled to, 200 by default, however few its rows are.
    changed = changed.distinct().coalesce(job.spark.sparkContext.defaultParallelism).persist(StorageLevel.DISK_ONLY)
    changed.count()  # so that joins are planned by their number: where they are few, no list and no user is shuffled
    lists = lists.join(changed, c.USER_ID, "left_anti").withColumn("ds", F.lit(job.ds))
    return Kept(lists, changed), ""
