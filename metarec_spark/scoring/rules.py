"""Business rules on items: allow and block lists decide which items are excluded, caps limit the items of a group per list.

The excluded items are merged into the table ``withheld``, whose change feed tells the incremental update which lists a rule
changes. Executors read the rules from a folder of Parquet files. Rules bear no date: an older day that is run again sees
today's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark.config.sections import ItemList
from metarec_spark.errors import DataError
from metarec_spark.features.erased import TOMBSTONE
from metarec_spark.features.quality import FEWEST_ROWS
from metarec_spark.job import Job, log
from metarec_spark.scoring.eligible import AT_MOST, CAP
from metarec_spark.scoring.serving import ServingModel
from metarec_spark.sources.lists import open_groups, open_list
from metarec_spark.warehouse.contracts import digest
from metarec_spark.warehouse.storage import Location, scratch_folder

_KEY = [c.DOMAIN, c.ITEM_ID]
_LIST = "list"


@dataclass(frozen=True)
class Rules:
    """The rules of a run, as executors read them."""

    folder: Location
    """Folder of their Parquet files; it exists while lists are made."""
    digest: str
    """Hash of the groups and caps."""
    withheld: int | None
    """Version of ``withheld``; None: there never was an allow or block list."""


@contextmanager
def write_rules(job: Job, items_version: int, models: Sequence[ServingModel]) -> Iterator[Rules | None]:
    """Yield the run's rules, after updating ``withheld``; None if there is no rule and never was an allow or block list.

    Raises
    ------
    DataError
        If a file cannot be read, or an allow list names no platform, or a platform would have no eligible item left.
    """
    warehouse, config = job.warehouse, job.config
    listed = bool(config.allow or config.block) or warehouse.exists(c.WITHHELD)
    if not listed and not config.cap:
        yield None
        return
    items = warehouse.read(c.ITEMS, items_version).select(c.ITEM_IDX, *_KEY)
    known = reduce(DataFrame.unionByName, [model.known_items(items) for model in models])
    groups = _groups(job, known, items)
    with scratch_folder(job.spark, warehouse.path("_rules")) as uri:
        groups.write.parquet(f"{uri}/{c.GROUP}")
        version = _update_excluded(job, items, items_version, known) if listed else None
        excluded = warehouse.read(c.WITHHELD, version).select(c.ITEM_IDX) if listed else _empty(job, "item_idx int")
        excluded.write.parquet(f"{uri}/{c.WITHHELD}")
        yield Rules(uri, digest(job.spark.read.parquet(f"{uri}/{c.GROUP}")), version)


def _update_excluded(job: Job, items: DataFrame, items_version: int, known: DataFrame) -> int:
    """Update ``withheld`` and return its version; ``known`` are the items that could be recommended."""
    warehouse = job.warehouse
    warehouse.ensure(c.WITHHELD)
    reasons, stored = _exclusion_reasons(job, items).persist(StorageLevel.DISK_ONLY), warehouse.read(c.WITHHELD)
    try:
        by_domain = reasons.join(known, c.ITEM_IDX, "left_semi").groupBy(c.DOMAIN).agg(F.count("*"), F.count(c.REASON))
        counts = {row[0]: (row[1], row[2]) for row in by_domain.toLocalIterator()}
        if empty := {name: item_count for name, (item_count, excluded) in counts.items() if item_count == excluded}:
            raise DataError(
                f"[[allow]] and [[block]] exclude every item of {empty} that could be recommended: correct them; no list was made"
            )
        now = reasons.where(F.col(c.REASON).isNotNull())
        new = now.join(stored, [c.ITEM_IDX, c.REASON], "left_anti").withColumn("gone", F.lit(False))
        gone = stored.join(now, c.ITEM_IDX, "left_anti").withColumn("gone", F.lit(True))
        warehouse.merge(c.WITHHELD, new.unionByName(gone), job.commit(inputs={c.ITEMS: items_version}), delete="gone")
    finally:
        reasons.unpersist()
    log.info("excluded items: %s", {domain: excluded for domain, (_, excluded) in sorted(counts.items()) if excluded} or "none")
    return warehouse.version(c.WITHHELD)


def _exclusion_reasons(job: Job, items: DataFrame) -> DataFrame:
    """Return ``items`` with the reason to exclude each; null: the item is eligible."""
    config = job.config
    # A value of ``listed`` that is neither true nor false excludes the item.
    block = _listed(job, items, "block", config.block, default=True)
    allow = _listed(job, items, "allow", config.allow, default=False)
    blocked = block.where(c.LISTED).select(*_KEY, F.lit(True).alias("blocked")).distinct()
    allowed = allow.where(c.LISTED).select(*_KEY, F.lit(True).alias("allowed")).distinct()
    named = _empty(job, "domain string").unionByName(allow.select(c.DOMAIN))
    for domain in {item_list.domain for item_list in config.allow if item_list.domain}:  # its file may have no row
        named = named.unionByName(job.spark.createDataFrame([(domain,)], "domain string"))
    restricted = named.distinct().withColumn("restricted", F.lit(True))
    rows = items.join(blocked, _KEY, "left").join(allowed, _KEY, "left").join(F.broadcast(restricted), c.DOMAIN, "left")
    not_allowed = F.col("restricted") & F.col("allowed").isNull()
    erased = F.col(c.ITEM_ID).startswith(TOMBSTONE)
    reason = F.when(F.col("blocked") | erased, "blocked").when(not_allowed, "not_allowed")
    return rows.select(c.ITEM_IDX, *_KEY, reason.alias(c.REASON))


def _listed(job: Job, items: DataFrame, name: str, lists: list[ItemList], *, default: bool) -> DataFrame:
    """Return rows (domain, item_id, listed) of all allow or block lists; rows that match no item are told.

    Parameters
    ----------
    default
        Replaces a value of ``listed`` that is neither true nor false.
    """
    labels = [f"{name}[{i}] {item_list.path}" for i, item_list in enumerate(lists)]
    opened = [
        open_list(job.spark, item_list, label).withColumn(_LIST, F.lit(i))
        for i, (item_list, label) in enumerate(zip(lists, labels, strict=True))
    ]
    rows = reduce(DataFrame.unionByName, opened, _empty(job, f"domain string, item_id string, listed boolean, {_LIST} int"))
    by_list = rows.join(items, _KEY, "left").groupBy(_LIST)
    counted = by_list.agg(F.count("*"), F.count(c.ITEM_IDX), F.count_if(F.col(c.LISTED).isNull()))
    counts = {number: row for number, *row in counted.toLocalIterator()}
    for number, file in enumerate(labels):
        read, matched, unreadable = counts.get(number, (0, 0, 0))
        if not read and name == "allow" and not lists[number].domain:
            raise DataError(f"{file}: no row, so no domain to allow items of; give the file its rows, or the list a domain")
        _require_known(job, file, read, matched)
        if unreadable:
            log.warning("%s: listed is neither true nor false in %d rows; taken as %s", file, unreadable, default)
    return rows.withColumn(c.LISTED, F.coalesce(c.LISTED, F.lit(default)))


def _require_known(job: Job, file: str, read: int, matched: int) -> None:
    """Tell how many rows of a list name no known item; stop if nearly all do not."""
    least = job.config.quality.min_known_share
    if read >= FEWEST_ROWS and matched < least * read:
        raise DataError(
            f"{file}: {matched} of its {read} rows name an item that is known, at least {least:.0%} must "
            "(quality.min_known_share); check domain and item_id"
        )
    if not matched:
        log.warning("%s: none of its %d rows names an item that is known; check domain and item_id", file, read)
    elif matched < read:
        log.warning("%s: %d of its %d rows name no item that is known", file, read - matched, read)


def _groups(job: Job, known: DataFrame, items: DataFrame) -> DataFrame:
    """Return (item_idx, cap, group, at_most), one row per item that could be recommended and group that it belongs to.

    Parameters
    ----------
    known
        Items that could be recommended.
    items
        All items.
    """
    parts = []
    for i, cap in enumerate(job.config.cap):
        file = f"cap[{i}] {cap.path}"
        groups = open_groups(job.spark, cap, file)
        named = groups.select(*_KEY).distinct().join(items, _KEY, "left")
        (counts,) = named.agg(F.count("*"), F.count(c.ITEM_IDX)).collect()
        _require_known(job, file, *counts)
        rows = known.join(groups, _KEY)
        parts.append(rows.select(c.ITEM_IDX, F.lit(i).alias(CAP), c.GROUP, F.lit(cap.at_most).alias(AT_MOST)))
    return reduce(DataFrame.unionByName, parts, _empty(job, "item_idx int, cap int, group string, at_most int"))


def _empty(job: Job, schema: str) -> DataFrame:
    return job.spark.createDataFrame([], schema)
