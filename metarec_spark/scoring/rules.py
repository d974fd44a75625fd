"""The configuration's rules on items: which are withheld from the night's lists, and of which groups a list holds a few.

``withheld`` is merged, so that its change feed says whose lists a rule changes. Executors read the rules from a folder of
Parquet files, which lasts as long as the lists are made. Lists bear no date: an older day that is run again sees today's.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.features.sources import open_groups, open_list
from metarec_spark.job import Job, log
from metarec_spark.scoring.offer import AT_MOST, CAP
from metarec_spark.sections import ItemList
from metarec_spark.storage import file_uri, local_path
from metarec_spark.tables import digest

_KEY = [c.DOMAIN, c.ITEM_ID]


@dataclass(frozen=True)
class Rules:
    """What was written of them."""

    folder: Path
    caps: str
    """The same for the same groups and caps."""


def withhold(job: Job, items_version: int) -> int | None:
    """Bring ``withheld`` up to date, and return its version; None where there is no list and never was.

    Raises
    ------
    DataError
        Where a list cannot be read, or all items of a domain would be withheld.
    """
    warehouse, config = job.warehouse, job.config
    if not (config.allow or config.block or warehouse.exists(c.WITHHELD)):
        return None
    warehouse.ensure(c.WITHHELD)
    items, stored = warehouse.read(c.ITEMS, items_version).select(c.ITEM_IDX, *_KEY), warehouse.read(c.WITHHELD)
    judged = _judged(job, items)
    of_domain = judged.groupBy(c.DOMAIN).agg(F.count("*").alias("items"), F.count(c.REASON).alias("withheld"))
    counts = {row[0]: (row[1], row[2]) for row in of_domain.toLocalIterator()}
    if none := sorted(domain for domain, (known, withheld) in counts.items() if known == withheld):
        raise DataError(f"the lists of [[allow]] and [[block]] withhold every item of {', '.join(none)}: correct them")
    now = judged.where(F.col(c.REASON).isNotNull())
    new = now.join(stored, [c.ITEM_IDX, c.REASON], "left_anti").withColumn("gone", F.lit(False))
    gone = stored.join(now, c.ITEM_IDX, "left_anti").withColumn("gone", F.lit(True))
    warehouse.merge(c.WITHHELD, new.unionByName(gone), job.commit(inputs={c.ITEMS: items_version}), delete="gone")
    log.info("withheld items: %s", {domain: withheld for domain, (_, withheld) in sorted(counts.items()) if withheld} or "none")
    return warehouse.version(c.WITHHELD)


@contextmanager
def written(job: Job, versions: dict[str, int]) -> Iterator[Rules | None]:
    """The rules, from pinned table versions; None where there is none."""
    if c.WITHHELD not in versions and not job.config.cap:
        yield None
        return
    folder = local_path(job.warehouse.path("_rules")) / uuid.uuid4().hex  # executors keep what they have read
    try:
        withheld = _none(job, "item_idx int")
        if c.WITHHELD in versions:
            withheld = job.warehouse.read(c.WITHHELD, versions[c.WITHHELD]).select(c.ITEM_IDX)
        withheld.write.parquet(file_uri(folder / c.WITHHELD))
        _groups(job, versions).write.parquet(file_uri(folder / c.GROUP))
        yield Rules(folder, digest(job.spark.read.parquet(file_uri(folder / c.GROUP))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(job: Job, items: DataFrame) -> DataFrame:
    """``items`` with the reason to withhold each; null: it may be recommended."""
    blocked = _listed(job, "block", job.config.block).where(c.LISTED).select(*_KEY, F.lit(True).alias("blocked")).distinct()
    listed = _listed(job, "allow", job.config.allow)
    allowed = listed.where(c.LISTED).select(*_KEY, F.lit(True).alias("allowed")).distinct()
    restricted = listed.select(c.DOMAIN, F.lit(True).alias("restricted")).distinct()
    rows = items.join(blocked, _KEY, "left").join(allowed, _KEY, "left").join(F.broadcast(restricted), c.DOMAIN, "left")
    not_allowed = F.col("restricted") & F.col("allowed").isNull()
    reason = F.when(F.col("blocked"), "blocked").when(not_allowed, "not_allowed")
    return rows.select(c.ITEM_IDX, *_KEY, reason.alias(c.REASON))


def _listed(job: Job, name: str, lists: list[ItemList]) -> DataFrame:
    """Rows of all allow or block lists."""
    opened = [open_list(job.spark, source, f"{name}[{i}] {source.path}") for i, source in enumerate(lists)]
    rows = reduce(DataFrame.unionByName, opened, _none(job, "domain string, item_id string, listed boolean"))
    unread = rows.where(F.col(c.LISTED).isNull()).count()
    if unread:
        log.warning("[[%s]]: listed is neither true nor false in %d rows; they are taken as not listed", name, unread)
    return rows


def _groups(job: Job, versions: dict[str, int]) -> DataFrame:
    """(item_idx, cap, group, at_most)."""
    items, found = job.warehouse.read(c.ITEMS, versions[c.ITEMS]).select(c.ITEM_IDX, *_KEY), []
    for i, cap in enumerate(job.config.cap):
        rows = items.join(open_groups(job.spark, cap, f"cap[{i}] {cap.path}"), _KEY)
        found.append(rows.select(c.ITEM_IDX, F.lit(i).alias(CAP), c.GROUP, F.lit(cap.at_most).alias(AT_MOST)))
    none = _none(job, "item_idx int, cap int, group string, at_most int")
    return reduce(DataFrame.unionByName, found, none)


def _none(job: Job, schema: str) -> DataFrame:
    return job.spark.createDataFrame([], schema)
