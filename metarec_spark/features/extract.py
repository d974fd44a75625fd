"""extract: logs → events, rejected_events, quality → items → user_sequences, item_content → item_transitions.

``events``, ``rejected_events`` and ``quality`` are replaced by day. Everything after them follows the change feed of ``events``
from the version that it was last made from, so a run that was killed between two tables is completed by the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark import sources
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.errors import DataError
from metarec_spark.features import cleaning, erased, quality
from metarec_spark.features.as_of import erased_users, transition_settings
from metarec_spark.features.change_feed import losing, net
from metarec_spark.features.content import content, usable
from metarec_spark.features.items import counted, recounted, updated
from metarec_spark.features.sequences import extended, sequences
from metarec_spark.features.split import held_out, train_part
from metarec_spark.features.transitions import transitions
from metarec_spark.job import Job, Result, log
from metarec_spark.warehouse.storage import scratch_folder

_FIRST_DAY = date(1970, 1, 1)
_TASKS, _DAYS = 2, 14
"""Tasks for each core that judge and write the days of a run, at least where its events are of so many days; of fewer days,
each is divided."""


@dataclass(frozen=True)
class Kept:
    """What cleaning made of the rows that a run read."""

    read: int
    rejected: dict[str, int]
    forgotten: int
    """Rows of forgotten people, which are stored nowhere."""

    @property
    def kept(self) -> int:
        """Rows that became events."""
        return self.read - sum(self.rejected.values()) - self.forgotten


def extract(job: Job, *, history: bool = False) -> Result:
    """Bring all feature tables to the end of the job's day.

    The first run, and one with ``history`` or with changed sources or cleaning rules, reads the whole log up to the day. Any
    other reads the day, the ``late_days`` before it, and days that were missed since the last run.
    """
    if not job.config.sources:
        raise DataError("no [[sources]] in the configuration; name at least one behaviour log to extract from")
    first = _FIRST_DAY if history else _first_day(job)
    kept = _events(job, first)
    events_version = job.warehouse.version(c.EVENTS)
    information, unusable = _information(job)
    _items(job, events_version, information)
    _sequences(job, events_version)
    _content(job, information)
    _transitions(job)
    names = [c.ITEMS, c.USER_SEQUENCES]
    details = {"first_day": first.isoformat(), "rejected": kept.rejected, "forgotten": kept.forgotten}
    details |= {"unusable_vectors": unusable}
    details |= {name: job.warehouse.read(name).count() for name in names}
    return Result(rows_in=kept.read, rows_out=kept.kept, details=details)


def _first_day(job: Job) -> date:
    """First day to read: the whole log where the tables hold nothing that this configuration made."""
    said = job.warehouse.last_commit(c.EVENTS, job.name)
    if said is None:
        return _FIRST_DAY
    if said.get("settings") != _cleaning_settings(job):
        log.info("sources or cleaning rules changed since the last extract: reading the whole log again")
        return _FIRST_DAY
    missed = date.fromisoformat(said["ds"]) + timedelta(days=1)
    return min(job.ds, missed) - timedelta(days=job.config.features.late_days)


def _events(job: Job, first: date) -> Kept:
    config, spark, now = job.config, job.spark, datetime.now(UTC)
    opened = [sources.open_events(spark, source, position) for position, source in enumerate(config.sources)]
    rows = reduce(DataFrame.unionByName, [cleaning.within_reach(rows, first, job.ds, config.features, now) for rows in opened])
    shares = math.ceil(_TASKS * spark.sparkContext.defaultParallelism / min(_DAYS, (job.ds - first).days + 1))
    judged, gone = cleaning.judge(rows, config.features, now, shares), erased_users(job)
    judged = cleaning.of_days(judged, first, job.ds)
    judged = judged if gone is None else erased.marked(judged, gone)
    with _held(judged, StorageLevel.DISK_ONLY) as judged, _held(quality.counted(judged)) as found:
        counts = {row[0]: row[1] for row in found.groupBy(quality.OUTCOME).agg(F.sum(quality.ROWS)).toLocalIterator()}
        read, of_forgotten = sum(counts.values()), counts.pop(c.FORGOTTEN, 0)
        kept = Kept(read, {reason: n for reason, n in sorted(counts.items()) if reason != quality.KEPT}, of_forgotten)
        if not kept.kept and not job.warehouse.exists(c.EVENTS):
            raise DataError(f"no event on or before {job.ds} in any source: {_why_none(opened, kept)}")
        quality.check(_with_days_before(job, found, first), job.ds, config.quality)
        commit = job.commit(settings=_cleaning_settings(job))
        rejected, events = cleaning.rejected(judged), cleaning.accepted(judged)
        # Events last: the next run goes on from their commit, and so makes up for a run that was killed before it.
        job.warehouse.replace_days(c.REJECTED_EVENTS, rejected, cleaning.DAY, first, job.ds, commit, undated=True)
        job.warehouse.replace_days(c.QUALITY, found, cleaning.DAY, first, job.ds, commit, undated=True)
        job.warehouse.replace_days(c.EVENTS, events, c.EVENT_DATE, first, job.ds, commit)
    log.info("events: %d rows read from %s on, %d kept, rejected %s", kept.read, first, kept.kept, kept.rejected or "none")
    if kept.forgotten:
        log.info("events: %d of the rows are of forgotten people, and are stored nowhere", kept.forgotten)
    if not kept.kept:
        log.warning("no event from %s to %s; the tables hold what they held before", first, job.ds)
    return kept


def _with_days_before(job: Job, found: DataFrame, first: date) -> DataFrame:
    """What became of the rows that this run read, and of those of the days before."""
    if not job.warehouse.exists(c.QUALITY):
        return found
    before = F.col(cleaning.DAY).between(F.lit(job.ds - timedelta(days=quality.USUAL_DAYS)), F.lit(first - timedelta(days=1)))
    return found.unionByName(job.warehouse.read(c.QUALITY).where(before))


def _why_none(opened: list[DataFrame], kept: Kept) -> str:
    if kept.read:
        lost = kept.rejected | ({c.FORGOTTEN: kept.forgotten} if kept.forgotten else {})
        return f"all {kept.read} rows were rejected: {lost}; schemas/rejected_events.json says what the reasons mean"
    oldest = min(filter(None, (rows.agg(F.min(c.EVENT_TIME)).first()[0] for rows in opened)), default=None)
    return f"the oldest is of {oldest:%Y-%m-%d}; choose a later --ds" if oldest else "the sources are empty"


def _information(job: Job) -> tuple[DataFrame | None, int]:
    """Item information of all item sources, one row an item: the first source that names an item wins. And how many content
    vectors are not usable."""
    if not job.config.items:
        return None, 0
    opened = [
        sources.open_items(job.spark, source, i).withColumn("position", F.lit(i)) for i, source in enumerate(job.config.items)
    ]
    rows = reduce(DataFrame.unionByName, opened)
    unusable = rows.where(~usable(F.col(c.CONTENT))).count()
    if unusable:
        log.warning("%d content vectors hold something else than finite numbers; these items go without", unusable)
    named = F.struct("position", c.TITLE, c.ATTRIBUTES, c.CONTENT)
    rows = rows.groupBy(c.DOMAIN, c.ITEM_ID).agg(F.min(named).alias("named"))
    return rows.select(c.DOMAIN, c.ITEM_ID, "named.title", "named.attributes", "named.content"), unusable


def _items(job: Job, events_version: int, information: DataFrame | None) -> None:
    warehouse, key = job.warehouse, [c.DOMAIN, c.ITEM_ID]
    warehouse.ensure(c.ITEMS)
    events, items = warehouse.read(c.EVENTS, events_version), warehouse.read(c.ITEMS)
    with _difference(job, c.ITEMS, events_version) as difference:
        if difference is None:
            known = counted(events)
        else:
            lost = losing(difference, *key)
            known = recounted(items, difference.join(lost, key, "left_anti"))
            if not lost.isEmpty():
                again = counted(events.join(lost, key, "left_semi"))
                known = known.unionByName(lost.join(again, key, "left").na.fill(0, ["events"]))
        if information is not None:
            unseen = information.select(*key).join(items, key, "left_anti").join(known, key, "left_anti")
            none = F.lit(None).cast("date")
            known = known.unionByName(unseen.withColumns({"events": F.lit(0).cast("long"), "first_day": none, "last_day": none}))
        newest = items.agg(F.max(c.ITEM_IDX)).first()[0]
        first_free = 0 if newest is None else newest + 1
        with _held(known) as known:
            warehouse.merge(c.ITEMS, updated(items, known, first_free), job.commit(inputs={c.EVENTS: events_version}))


def _sequences(job: Job, events_version: int) -> None:
    warehouse, max_length = job.warehouse, job.config.features.max_length
    settings = fingerprint(max_length)
    events, items = warehouse.read(c.EVENTS, events_version), warehouse.read(c.ITEMS)
    commit = job.commit(inputs={c.EVENTS: events_version}, settings=settings)
    with _difference(job, c.USER_SEQUENCES, events_version, settings) as difference:
        if difference is None:
            warehouse.replace_all(c.USER_SEQUENCES, sequences(events, items, max_length), commit)
            return
        lost = losing(difference, c.USER_ID)
        added = difference.join(lost, c.USER_ID, "left_anti")
        rows = extended(warehouse.read(c.USER_SEQUENCES), added, items, max_length)
        if not lost.isEmpty():
            again = sequences(events.join(lost, c.USER_ID, "left_semi"), items, max_length)
            rows = rows.unionByName(lost.join(again, c.USER_ID, "left"))
        warehouse.merge(c.USER_SEQUENCES, rows.withColumn("gone", F.col("events").isNull()), commit, delete="gone")


def _transitions(job: Job) -> None:
    warehouse, config = job.warehouse, job.config
    inputs = {name: warehouse.version(name) for name in (c.USER_SEQUENCES, c.ITEM_CONTENT)}
    settings = transition_settings(job)
    said = warehouse.last_commit(c.ITEM_TRANSITIONS, job.name)
    if said and said["inputs"] == inputs and said.get("settings") == settings:
        return
    users = warehouse.read(c.USER_SEQUENCES, inputs[c.USER_SEQUENCES]).where(F.col("events") >= config.features.min_user_events)
    tokens = warehouse.read(c.ITEM_CONTENT, inputs[c.ITEM_CONTENT])
    with scratch_folder(job.spark, warehouse.path("_transitions")) as folder:
        rows = transitions(train_part(held_out(users, config.split, job.ds)), tokens, config.transitions, folder)
        warehouse.replace_all(c.ITEM_TRANSITIONS, rows, job.commit(inputs=inputs, settings=settings))


def _content(job: Job, information: DataFrame | None) -> None:
    if information is None:
        job.warehouse.ensure(c.ITEM_CONTENT)
        return
    job.warehouse.ensure(c.ITEM_CONTENT)
    rows, stored = content(job.warehouse.read(c.ITEMS), information), job.warehouse.read(c.ITEM_CONTENT)
    same = reduce(Column.__and__, [rows[name].eqNullSafe(stored[name]) for name in rows.columns])
    changed = rows.join(stored, same, "left_anti")
    job.warehouse.merge(c.ITEM_CONTENT, changed, job.commit(inputs={c.ITEMS: job.warehouse.version(c.ITEMS)}))


@contextmanager
def _difference(job: Job, name: str, events_version: int, settings: str | None = None) -> Iterator[DataFrame | None]:
    """Events that came and went since a table was last made from ``events``; None where it must be made from the whole.

    Who has only gained events is brought up to date from the table itself: the history is read again only for those who lost
    some.
    """
    # Of whatever job: what another one has brought in must not come twice.
    said, changes = next((said for _, said in job.warehouse.commits(name) if c.EVENTS in said.get("inputs", {})), None), None
    if said is not None and said.get("settings") == settings:
        changes = job.warehouse.changes(c.EVENTS, said["inputs"][c.EVENTS], events_version)
    if changes is None:
        yield None
        return
    with _held(net(changes)) as difference:
        yield difference


@contextmanager
def _held(rows: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK) -> Iterator[DataFrame]:
    """Rows that are computed once, however often they are asked for inside."""
    held = rows.persist(level)
    try:
        yield held
    finally:
        held.unpersist()


def _cleaning_settings(job: Job) -> str:
    features = job.config.features
    return fingerprint(*job.config.sources, features.late_days, features.max_events_per_hour, features.event_types)
