"""Items whose id is an erased person's, such as profiles and channels: how many rows name them, and removing these.

An item's index never changes its meaning, so its row in ``items`` stays, under a tombstone instead of its id.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features.erased import TOMBSTONE
from metarec_spark.job import Job, log
from metarec_spark.registry import serving_ids
from metarec_spark.warehouse.contracts import contract

_LISTS = "items"


def count(job: Job, hashes: Sequence[str]) -> dict[str, int]:
    """Table → rows that name one of these ids as an item; tables without such a row are left out."""
    counts = {name: job.warehouse.read(name).where(named).count() for name, named in _conditions(job, hashes).items()}
    return {name: rows for name, rows in counts.items() if rows}


def erase(job: Job, hashes: Sequence[str]) -> dict[str, int]:
    """Remove these items from all tables; returns what :func:`count` did before."""
    counts, conditions = count(job, hashes), _conditions(job, hashes)
    for name in counts:
        if name == c.RECOMMENDATIONS:
            others = F.filter(_LISTS, lambda item: ~_hash(item[c.ITEM_ID]).isin(list(hashes)))
            job.warehouse.update(name, conditions[name], {_LISTS: others}, job.commit())
        elif name == c.ITEMS:
            _bury(job, conditions[name])
        else:
            job.warehouse.delete(name, conditions[name], job.commit())
    if counts and (models := serving_ids(job)):
        log.warning("models %s know these items until others serve: train and evaluate again", ", ".join(models))
    return counts


def _bury(job: Job, named: Column) -> None:
    """Put a tombstone in place of an item's id, and remove its content."""
    rows = job.warehouse.read(c.ITEMS).where(named).select(c.ITEM_IDX).toLocalIterator()
    indexes = [row[0] for row in rows]
    if job.warehouse.exists(c.ITEM_CONTENT):
        job.warehouse.delete(c.ITEM_CONTENT, F.col(c.ITEM_IDX).isin(indexes), job.commit())
    job.warehouse.ensure(c.WITHHELD)  # recommend then excludes tombstones, with or without allow and block lists
    none = F.lit(None).cast("date")
    values = {c.ITEM_ID: F.concat(F.lit(TOMBSTONE), _hash(F.col(c.ITEM_ID))), "events": F.lit(0).cast("long")}
    job.warehouse.update(c.ITEMS, named, values | {"first_day": none, "last_day": none}, job.commit())


def _conditions(job: Job, hashes: Sequence[str]) -> dict[str, Column]:
    """Table → condition on its rows that name one of these ids as an item."""
    named = _hash(F.col(c.ITEM_ID)).isin(list(hashes))
    tables = [name for name in job.warehouse.names() if c.ITEM_ID in contract(name).schema.names]
    conditions = dict.fromkeys(tables, named)
    if job.warehouse.exists(c.RECOMMENDATIONS):
        conditions[c.RECOMMENDATIONS] = F.exists(_LISTS, lambda item: _hash(item[c.ITEM_ID]).isin(list(hashes)))
    return conditions


def _hash(item: Column) -> Column:
    return F.sha2(item, 256)
