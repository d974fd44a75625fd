"""extract: logs → events, rejected_events, quality → items → user_sequences, item_content → item_transitions.

``events``, ``rejected_events`` and ``quality`` are replaced by day. The later tables are updated from the change feed of
``events``, since the version that they were last made from: the next run completes a run that was killed between two tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.errors import DataError
from metarec_spark.features import cleaning, erased, quality
from metarec_spark.features.as_of import erased_users, transition_settings
from metarec_spark.features.change_feed import EventChanges, losing
from metarec_spark.features.content import content, usable
from metarec_spark.features.items import counted, recounted, updated
from metarec_spark.features.sequences import extended, sequences
from metarec_spark.features.split import held_out, train_part
from metarec_spark.features.transitions import transitions
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.sources.events import open_events
from metarec_spark.sources.items import CONFLICT, open_information
from metarec_spark.warehouse.storage import scratch_folder

_FIRST_DAY = date(1970, 1, 1)
_TASKS_PER_CORE, _WHOLE_DAYS = 2, 14
"""Tasks per core that clean and write the days of a run. With so many days, or more, a task has whole days; with fewer, the rows
of a day are divided among tasks."""


@dataclass(frozen=True)
class CleaningCounts:
    """Numbers of rows that a run read, by outcome."""

    read: int
    rejected: dict[str, int]
    """Rows by reason."""
    forgotten: int
    """Rows of erased users, which are stored nowhere."""

    @property
    def events(self) -> int:
        """Rows that became events."""
        return self.read - sum(self.rejected.values()) - self.forgotten


@dataclass(frozen=True)
class ExtractDetails(Details):
    """What extract reports beside its counts."""

    first_day: str
    rejected: dict[str, int]
    """Rows by reason."""
    forgotten: int
    unusable_vectors: int
    items: int
    """Rows of the table, as of ``user_sequences``."""
    user_sequences: int


def extract(job: Job, *, history: bool = False) -> Result:
    """Bring all feature tables to the end of the job's day.

    The first run, and a run with ``history`` or with changed sources or cleaning rules, reads the whole log up to the day. Any
    other run reads the day, the ``late_days`` before it, and the days that were missed since the last run.
    """
    if not job.config.sources:
        raise DataError("no [[sources]] in the configuration; name at least one behaviour log to extract from")
    first = _FIRST_DAY if history else _first_day(job)
    counts = _events(job, first)
    information, unusable_vectors = _item_information(job)
    with EventChanges(job.warehouse, job.warehouse.version(c.EVENTS)) as changes:
        _items(job, changes, information)
        _sequences(job, changes)
    _content(job, information)
    _transitions(job)
    sizes = {name: job.warehouse.read(name).count() for name in (c.ITEMS, c.USER_SEQUENCES)}
    details = ExtractDetails(first.isoformat(), counts.rejected, counts.forgotten, unusable_vectors, **sizes)
    return Result(rows_in=counts.read, rows_out=counts.events, details=details)


def _first_day(job: Job) -> date:
    """First day to read: the start of the log, unless an earlier run of this configuration has read it."""
    commit = job.warehouse.last_commit(c.EVENTS, job.name)
    if commit is None:
        return _FIRST_DAY
    if commit.settings != _cleaning_settings(job):
        log.info("sources or cleaning rules changed since the last extract: reading the whole log again")
        return _FIRST_DAY
    missed = commit.ds + timedelta(days=1)
    return min(job.ds, missed) - timedelta(days=job.config.features.late_days)


def _events(job: Job, first: date) -> CleaningCounts:
    """Clean the rows of the days from ``first`` on, check their quality, and replace these days in the tables."""
    config, spark, now = job.config, job.spark, datetime.now(UTC)
    opened = [
        open_events(spark, source, position, first_day=config.features.first_day)
        for position, source in enumerate(config.sources)
    ]
    rows = reduce(DataFrame.unionByName, opened)
    days = min(_WHOLE_DAYS, (job.ds - first).days + 1)
    tasks = math.ceil(_TASKS_PER_CORE * spark.sparkContext.defaultParallelism / days)
    cleaned = cleaning.clean(rows, first, job.ds, config.features, now, forgotten=erased_users(job), tasks_per_day=tasks)
    with _cached(cleaned, StorageLevel.DISK_ONLY) as cleaned, _cached(quality.counted(cleaned)) as outcomes:
        by_outcome = {row[0]: row[1] for row in outcomes.groupBy(quality.OUTCOME).agg(F.sum(quality.ROWS)).toLocalIterator()}
        read, forgotten = sum(by_outcome.values()), by_outcome.pop(c.FORGOTTEN, 0)
        rejected = {reason: n for reason, n in sorted(by_outcome.items()) if reason != quality.KEPT}
        counts = CleaningCounts(read, rejected, forgotten)
        if not counts.events and not job.warehouse.exists(c.EVENTS):
            raise DataError(f"no event on or before {job.ds} in any source: {_why_none(opened, counts)}")
        quality.check(_with_days_before(job, outcomes, first), job.ds, config.quality)
        commit = job.commit(settings=_cleaning_settings(job))
        # events last: the next run continues from the last commit of events, and so repeats a run that was killed before it.
        span = first, job.ds, commit
        job.warehouse.replace_days(c.REJECTED_EVENTS, cleaning.rejected(cleaned), cleaning.DAY, *span, undated=True)
        job.warehouse.replace_days(c.QUALITY, outcomes, cleaning.DAY, *span, undated=True)
        job.warehouse.replace_days(c.EVENTS, cleaning.accepted(cleaned), c.EVENT_DATE, *span)
    log.info("events: %d rows read from %s on, %d became events, rejected %s", read, first, counts.events, rejected or "none")
    if forgotten:
        log.info("events: %d of the rows are of erased users, and are stored nowhere", forgotten)
    if not counts.events:
        log.warning("no event from %s to %s; the tables are unchanged", first, job.ds)
    return counts


def _with_days_before(job: Job, outcomes: DataFrame, first: date) -> DataFrame:
    """Rows of ``quality`` of this run, and of the days before it."""
    if not job.warehouse.exists(c.QUALITY):
        return outcomes
    before = F.col(cleaning.DAY).between(F.lit(job.ds - timedelta(days=quality.USUAL_DAYS)), F.lit(first - timedelta(days=1)))
    return outcomes.unionByName(job.warehouse.read(c.QUALITY).where(before))


def _why_none(opened: list[DataFrame], counts: CleaningCounts) -> str:
    if counts.read:
        lost = counts.rejected | ({c.FORGOTTEN: counts.forgotten} if counts.forgotten else {})
        return f"all {counts.read} rows were rejected: {lost}; schemas/rejected_events.json says what the reasons mean"
    oldest = min(filter(None, (_single(rows.agg(F.min(c.EVENT_TIME))) for rows in opened)), default=None)
    return f"the oldest is of {oldest:%Y-%m-%d}; choose a later --ds" if oldest else "the sources are empty"


def _item_information(job: Job) -> tuple[DataFrame | None, int]:
    """Item information of all item sources, one row per item, and the number of content vectors that are not usable."""
    if not job.config.items:
        return None, 0
    rows = erased.without_items(open_information(job.spark, job.config.items), erased_users(job))
    conflicts, unusable = rows.agg(F.count_if(CONFLICT), F.count_if(~usable(F.col(c.CONTENT)))).collect()[0]
    if conflicts:
        log.warning("%d items have rows that differ in title, attributes or content; the fuller and newer one counts", conflicts)
    if unusable:
        log.warning("%d content vectors have values that are not finite numbers; these items have no content vector", unusable)
    return rows.drop(CONFLICT), unusable


def _items(job: Job, changes: EventChanges, information: DataFrame | None) -> None:
    warehouse, key = job.warehouse, [c.DOMAIN, c.ITEM_ID]
    warehouse.ensure(c.ITEMS)
    events, items = warehouse.read(c.EVENTS, changes.version), warehouse.read(c.ITEMS)
    changed = changes.for_table(c.ITEMS)
    if changed is None:
        known = counted(events)
    else:
        lost = losing(changed, *key)
        known = recounted(items, changed.join(lost, key, "left_anti"))
        if not lost.isEmpty():
            from_events = counted(events.join(lost, key, "left_semi"))
            known = known.unionByName(lost.join(from_events, key, "left").na.fill(0, ["events"]))
    if information is not None:
        unseen = information.select(*key).join(items, key, "left_anti").join(known, key, "left_anti")
        none = F.lit(None).cast("date")
        known = known.unionByName(unseen.withColumns({"events": F.lit(0).cast("long"), "first_day": none, "last_day": none}))
    newest = _single(items.agg(F.max(c.ITEM_IDX)))
    first_free = 0 if newest is None else newest + 1
    with _cached(erased.without_items(known, erased_users(job))) as known:
        warehouse.merge(c.ITEMS, updated(items, known, first_free), job.commit(inputs={c.EVENTS: changes.version}))


def _sequences(job: Job, changes: EventChanges) -> None:
    warehouse, max_length = job.warehouse, job.config.features.max_length
    settings = fingerprint(max_length)
    events, items = warehouse.read(c.EVENTS, changes.version), warehouse.read(c.ITEMS)
    commit = job.commit(inputs={c.EVENTS: changes.version}, settings=settings)
    changed = changes.for_table(c.USER_SEQUENCES, settings)
    if changed is None:
        warehouse.replace_all(c.USER_SEQUENCES, sequences(events, items, max_length), commit)
        return
    lost = losing(changed, c.USER_ID)
    added = changed.join(lost, c.USER_ID, "left_anti")
    rows = extended(warehouse.read(c.USER_SEQUENCES), added, items, max_length)
    if not lost.isEmpty():
        from_events = sequences(events.join(lost, c.USER_ID, "left_semi"), items, max_length)
        rows = rows.unionByName(lost.join(from_events, c.USER_ID, "left"))
    warehouse.merge(c.USER_SEQUENCES, rows.withColumn("gone", F.col("events").isNull()), commit, delete="gone")


def _content(job: Job, information: DataFrame | None) -> None:
    job.warehouse.ensure(c.ITEM_CONTENT)
    if information is None:
        return
    rows, stored = content(job.warehouse.read(c.ITEMS), information), job.warehouse.read(c.ITEM_CONTENT)
    same = reduce(Column.__and__, [rows[name].eqNullSafe(stored[name]) for name in rows.columns])
    changed = rows.join(stored, same, "left_anti")
    job.warehouse.merge(c.ITEM_CONTENT, changed, job.commit(inputs={c.ITEMS: job.warehouse.version(c.ITEMS)}))


def _transitions(job: Job) -> None:
    warehouse, config = job.warehouse, job.config
    inputs = {name: warehouse.version(name) for name in (c.USER_SEQUENCES, c.ITEM_CONTENT)}
    settings = transition_settings(job, config.split)
    commit = warehouse.last_commit(c.ITEM_TRANSITIONS, job.name)
    if commit and commit.inputs == inputs and commit.settings == settings:
        return
    users = warehouse.read(c.USER_SEQUENCES, inputs[c.USER_SEQUENCES]).where(F.col("events") >= config.features.min_user_events)
    tokens = warehouse.read(c.ITEM_CONTENT, inputs[c.ITEM_CONTENT])
    with scratch_folder(job.spark, warehouse.path("_transitions")) as folder:
        rows = transitions(train_part(held_out(users, config.split, job.ds)), tokens, config.transitions, folder)
        warehouse.replace_all(c.ITEM_TRANSITIONS, rows, job.commit(inputs=inputs, settings=settings))


def _single(rows: DataFrame) -> Any:
    """The value of a DataFrame of one row and one column."""
    (row,) = rows.collect()
    return row[0]


@contextmanager
def _cached(rows: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK) -> Iterator[DataFrame]:
    """Rows that are computed once, however often they are used in the block."""
    rows.persist(level)
    try:
        yield rows
    finally:
        rows.unpersist()


def _cleaning_settings(job: Job) -> str:
    features = job.config.features
    return fingerprint(
        *job.config.sources,
        *(("alias", job.config.platforms.alias),) if job.config.platforms.alias else (),
        features.first_day.isoformat(),
        features.late_days,
        features.max_events_per_hour,
        features.event_types,
    )
