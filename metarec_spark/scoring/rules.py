"""The configuration's rules on items: which are withheld from the night's lists, and of which groups a list holds a few.

``withheld`` is merged, so that its change feed says whose lists a rule changes. Executors read the rules from a folder of
Parquet files, which lasts as long as the lists are made. Lists bear no date: an older day that is run again sees today's.
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
from metarec_spark.job import Job, log
from metarec_spark.scoring.eligible import AT_MOST, CAP
from metarec_spark.scoring.serving import ServingModel
from metarec_spark.sources import open_groups, open_list
from metarec_spark.warehouse.contracts import digest
from metarec_spark.warehouse.storage import Location, scratch_folder

_KEY = [c.DOMAIN, c.ITEM_ID]
_LIST = "list"


@dataclass(frozen=True)
class Rules:
    """The rules of a night, as executors read them."""

    folder: Location
    """Where they were written; it lasts as long as the lists are made."""
    digest: str
    """The same for the same groups and caps."""
    withheld: int | None
    """Version of ``withheld``; None: there never was an allow or block list."""


@contextmanager
def written(job: Job, items_version: int, models: Sequence[ServingModel]) -> Iterator[Rules | None]:
    """The night's rules; ``withheld`` is brought up to date. None where there is no rule, and no list ever was.

    Raises
    ------
    DataError
        Where a file cannot be read, or names no domain to allow items of, or nothing would be left to recommend in a domain.
    """
    warehouse, config = job.warehouse, job.config
    listed = bool(config.allow or config.block) or warehouse.exists(c.WITHHELD)
    if not listed and not config.cap:
        yield None
        return
    items = warehouse.read(c.ITEMS, items_version).select(c.ITEM_IDX, *_KEY)
    known = reduce(DataFrame.unionByName, [of.known(items) for of in models])
    groups = _groups(job, known)
    with scratch_folder(job.spark, warehouse.path("_rules")) as uri:
        groups.write.parquet(f"{uri}/{c.GROUP}")
        version = _withhold(job, items, items_version, known) if listed else None
        withheld = warehouse.read(c.WITHHELD, version).select(c.ITEM_IDX) if listed else _none(job, "item_idx int")
        withheld.write.parquet(f"{uri}/{c.WITHHELD}")
        yield Rules(uri, digest(job.spark.read.parquet(f"{uri}/{c.GROUP}")), version)


def _withhold(job: Job, items: DataFrame, items_version: int, known: DataFrame) -> int:
    """Bring ``withheld`` up to date, and return its version; ``known`` are the items that could be recommended."""
    warehouse = job.warehouse
    warehouse.ensure(c.WITHHELD)
    judged, stored = _judged(job, items).persist(StorageLevel.DISK_ONLY), warehouse.read(c.WITHHELD)
    try:
        of_domain = judged.join(known, c.ITEM_IDX, "left_semi").groupBy(c.DOMAIN).agg(F.count("*"), F.count(c.REASON))
        counts = {row[0]: (row[1], row[2]) for row in of_domain.toLocalIterator()}
        if none := {name: items for name, (items, withheld) in counts.items() if items == withheld}:
            raise DataError(
                f"[[allow]] and [[block]] withhold every item of {none} that could be listed: correct them; no list was made"
            )
        now = judged.where(F.col(c.REASON).isNotNull())
        new = now.join(stored, [c.ITEM_IDX, c.REASON], "left_anti").withColumn("gone", F.lit(False))
        gone = stored.join(now, c.ITEM_IDX, "left_anti").withColumn("gone", F.lit(True))
        warehouse.merge(c.WITHHELD, new.unionByName(gone), job.commit(inputs={c.ITEMS: items_version}), delete="gone")
    finally:
        judged.unpersist()
    log.info("withheld items: %s", {domain: withheld for domain, (_, withheld) in sorted(counts.items()) if withheld} or "none")
    return warehouse.version(c.WITHHELD)


def _judged(job: Job, items: DataFrame) -> DataFrame:
    """``items`` with the reason to withhold each; null: it may be recommended."""
    config = job.config
    # What is neither true nor false is taken as that which keeps an item from lists.
    block, allow = (_listed(job, items, name, getattr(config, name), kept) for name, kept in (("block", True), ("allow", False)))
    blocked = block.where(c.LISTED).select(*_KEY, F.lit(True).alias("blocked")).distinct()
    allowed = allow.where(c.LISTED).select(*_KEY, F.lit(True).alias("allowed")).distinct()
    named = _none(job, "domain string").unionByName(allow.select(c.DOMAIN))
    for domain in {source.domain for source in config.allow if source.domain}:  # its file may have no row
        named = named.unionByName(job.spark.createDataFrame([(domain,)], "domain string"))
    restricted = named.distinct().withColumn("restricted", F.lit(True))
    rows = items.join(blocked, _KEY, "left").join(allowed, _KEY, "left").join(F.broadcast(restricted), c.DOMAIN, "left")
    not_allowed = F.col("restricted") & F.col("allowed").isNull()
    erased = F.col(c.ITEM_ID).startswith(TOMBSTONE)
    reason = F.when(F.col("blocked") | erased, "blocked").when(not_allowed, "not_allowed")
    return rows.select(c.ITEM_IDX, *_KEY, reason.alias(c.REASON))


def _listed(job: Job, items: DataFrame, name: str, lists: list[ItemList], unread: bool) -> DataFrame:
    """Rows (domain, item_id, listed) of all allow or block lists; a list that says nothing of any item is warned of.

    Parameters
    ----------
    unread
        What a row is taken for whose ``listed`` is neither true nor false.
    """
    where = [f"{name}[{i}] {source.path}" for i, source in enumerate(lists)]
    opened = [open_list(job.spark, *of).withColumn(_LIST, F.lit(i)) for i, of in enumerate(zip(lists, where, strict=True))]
    rows = reduce(DataFrame.unionByName, opened, _none(job, f"domain string, item_id string, listed boolean, {_LIST} int"))
    known = rows.join(items, _KEY, "left").groupBy(_LIST)
    counts = known.agg(F.count("*"), F.count(c.ITEM_IDX), F.count_if(F.col(c.LISTED).isNull()))
    found = {number: of for number, *of in counts.toLocalIterator()}
    for number, file in enumerate(where):
        read, matched, unreadable = found.get(number, (0, 0, 0))
        if not read and name == "allow" and not lists[number].domain:
            raise DataError(f"{file}: no row, so no domain to allow items of; give the file its rows, or the list a domain")
        if not matched:
            log.warning("%s: none of its %d rows names an item that is known; check domain and item_id", file, read)
        if unreadable:
            log.warning("%s: listed is neither true nor false in %d rows; taken as %s", file, unreadable, unread)
    return rows.withColumn(c.LISTED, F.coalesce(c.LISTED, F.lit(unread)))


def _groups(job: Job, items: DataFrame) -> DataFrame:
    """(item_idx, cap, group, at_most) of the items, a row for each in a group."""
    found = []
    for i, cap in enumerate(job.config.cap):
        rows = items.join(open_groups(job.spark, cap, f"cap[{i}] {cap.path}"), _KEY)
        found.append(rows.select(c.ITEM_IDX, F.lit(i).alias(CAP), c.GROUP, F.lit(cap.at_most).alias(AT_MOST)))
    return reduce(DataFrame.unionByName, found, _none(job, "item_idx int, cap int, group string, at_most int"))


def _none(job: Job, schema: str) -> DataFrame:
    return job.spark.createDataFrame([], schema)
