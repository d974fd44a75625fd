"""New and stored rows of the days that a run touches, judged together."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark.features import cleaning
from metarec_spark.features.caching import cached
from metarec_spark.features.cleaning import ABSENT, DAY, IS_STORED_EVENT, NEW, REMOVED, STATE
from metarec_spark.features.deliveries import Delivery
from metarec_spark.features.ingested import FileKey, RowCount
from metarec_spark.features.new_rows import GATE_DAY
from metarec_spark.features.quality import KEPT, OUTCOME, ROWS
from metarec_spark.job import Job
from metarec_spark.sources.values import blank
from metarec_spark.warehouse.spans import within

_TASKS_PER_CORE, _WHOLE_DAYS = 2, 14
"""Tasks per core that judge and write the days of a run. With so many days, or more, a task has whole days; with fewer, the rows
of a day are divided among tasks."""
_NEW_ROW = "new_row"


@dataclass(frozen=True)
class Days:
    """Days whose rows are compared."""

    dates: frozenset[date]
    undated: bool
    """Whether rows without a day are compared too."""

    def contain(self, column: str) -> Column:
        """Whether a column has one of the days."""
        return within(column, self.dates) | (F.col(column).isNull() if self.undated else F.lit(False))


@dataclass(frozen=True)
class Batch:
    """New rows that were compared with the stored rows of their days."""

    days: Days
    judged: DataFrame
    """Rows of :func:`metarec_spark.features.cleaning.judge_days`."""
    outcomes: DataFrame
    """Judged rows, counted by source, file, domain (null if blank), day, outcome, ``new_row`` and ``is_stored_event``."""
    quality: DataFrame
    """Rows of the table ``quality`` for these days, after the run."""
    complete: list[str]
    """Sources whose files are the whole truth of their days."""


def compare(
    job: Job,
    caches: ExitStack,
    rows: DataFrame,
    counts: Sequence[RowCount],
    deliveries: Sequence[Delivery],
    left_out: frozenset[date],
) -> Batch | None:
    """Compare new rows with the stored rows of their days; None if there is no new row.

    Parameters
    ----------
    caches
        What is computed stays cached until it is closed.
    rows
        Rows of :func:`metarec_spark.features.new_rows.selected_rows`, up to the job's day.
    counts
        Their numbers.
    left_out
        Days whose rows are not compared.
    """
    chosen = [n for n in counts if n.gate_day <= job.ds and n.gate_day not in left_out and not n.forgotten]
    if not chosen:
        return None
    days = Days(frozenset(n.day for n in chosen if n.day), any(n.day is None for n in chosen))
    days = _with_days_of(job, days, _unchanged_files(deliveries), left_out)
    new = rows.where(F.coalesce(F.col(c.REASON) != c.FORGOTTEN, F.lit(True)))
    if left_out:
        new = new.where(~F.col(GATE_DAY).isin(sorted(left_out)))
    judged = caches.enter_context(cached(judged_rows(job, new, days, deliveries), StorageLevel.DISK_ONLY))
    counted = caches.enter_context(cached(outcomes(judged)))
    quality = caches.enter_context(cached(quality_after(job, counted, days)))
    complete = [delivery.label for delivery in deliveries if delivery.source.delivery == "complete"]
    return Batch(days, judged, counted, quality, complete)


def judged_rows(job: Job, new: DataFrame, days: Days, deliveries: Sequence[Delivery]) -> DataFrame:
    """Rows of :func:`metarec_spark.features.cleaning.judge_days`: the new rows and the stored rows that they are compared with.

    Parameters
    ----------
    new
        Rows of :func:`metarec_spark.features.new_rows.selected_rows`, of these days, without those of erased users.
    """
    pool, stored = cleaning.new_rows(new), job.warehouse.exists(c.EVENTS)
    if stored:
        complete = [delivery for delivery in deliveries if delivery.source.delivery == "complete" and delivery.parts]
        unchanged = _unchanged_files(deliveries)
        events = job.warehouse.read(c.EVENTS).where(within(c.EVENT_DATE, days.dates))
        rejected = job.warehouse.read(c.REJECTED_EVENTS).where(days.contain(DAY))
        before = cleaning.stored_events(_of_users(events, new, rejected, complete, unchanged))
        before = before.unionByName(cleaning.stored_rejected(rejected))
        before = _without_file(before, new, complete) if complete else before
        pool = pool.unionByName(_without_reading(job, before, unchanged) if unchanged else before)
    spread = min(_WHOLE_DAYS, len(days.dates) or 1)
    tasks = math.ceil(_TASKS_PER_CORE * job.spark.sparkContext.defaultParallelism / spread)
    most = job.config.features.max_events_per_hour
    return cleaning.judge_days(pool, most, tasks, stored=stored, unnamed_files=stored and _has_unnamed_files(job))


def _has_unnamed_files(job: Job) -> bool:
    """Whether ``events`` may have rows from before it had the column ``file``: ``ingested``, which is made first, is younger."""
    warehouse = job.warehouse
    return not warehouse.exists(c.INGESTED) or warehouse.created(c.EVENTS) < warehouse.created(c.INGESTED)


def _of_users(
    events: DataFrame, new: DataFrame, rejected: DataFrame, complete: Sequence[Delivery], unchanged: Collection[FileKey]
) -> DataFrame:
    """Stored events that decide on a row: those of users with new rows, or with stored duplicates or bots, on the same day, and
    all events of sources that may lose some."""
    compared = new.select(c.USER_ID, DAY).unionByName(rejected.where(cleaning.MAY_BE_EVENT).select(c.USER_ID, DAY))
    users = compared.where(~blank(F.col(c.USER_ID))).withColumnRenamed(DAY, c.EVENT_DATE).distinct()
    labels = {delivery.label for delivery in complete} | {source for source, _ in unchanged}
    if not labels:
        return events.join(users, [c.USER_ID, c.EVENT_DATE], "left_semi")
    whole = F.col(c.SOURCE).isin(sorted(labels))
    return events.where(whole).unionByName(events.where(~whole).join(users, [c.USER_ID, c.EVENT_DATE], "left_semi"))


def _unchanged_files(deliveries: Sequence[Delivery]) -> set[FileKey]:
    """Files that are read again although they are the same: for other settings, or by request."""
    return {(delivery.label, one.state.file) for delivery in deliveries for one in delivery.readings if one.unchanged}


def _with_days_of(job: Job, days: Days, files: Collection[FileKey], left_out: Collection[date]) -> Days:
    """Add the days of which rows of some files are stored: by other settings, the rows may count for other days."""
    if not files or not job.warehouse.exists(c.EVENTS):
        return days
    events = job.warehouse.read(c.EVENTS).select(c.SOURCE, c.FILE, F.col(c.EVENT_DATE).alias(DAY))
    rows = events.unionByName(job.warehouse.read(c.REJECTED_EVENTS).select(c.SOURCE, c.FILE, DAY))
    stored = {row[0] for row in rows.join(_frame(job, files), [c.SOURCE, c.FILE], "left_semi").select(DAY).distinct().collect()}
    dated = {day for day in stored if day is not None and day <= job.ds and day not in left_out}
    return Days(days.dates | dated, days.undated or None in stored)


def _without_reading(job: Job, stored: DataFrame, files: Collection[FileKey]) -> DataFrame:
    """Mark stored rows as absent if their file is read again and is the same: they are another reading of its rows."""
    again = _frame(job, files).withColumn("read_again", F.lit(True))
    rows = stored.join(again, [c.SOURCE, c.FILE], "left")
    return rows.withColumn(ABSENT, F.col(ABSENT) | F.col("read_again").isNotNull()).drop("read_again")


def _frame(job: Job, files: Collection[FileKey]) -> DataFrame:
    return F.broadcast(job.spark.createDataFrame(sorted(files), f"{c.SOURCE} string, {c.FILE} string"))


def _without_file(stored: DataFrame, new: DataFrame, complete: Sequence[Delivery]) -> DataFrame:
    """Mark stored rows as absent if their source contains their day and their file is gone, or is read again for that day."""
    files: list[tuple[str, str, list[date], bool]] = []
    for delivery in complete:
        files += [(delivery.label, file, [], False) for file in delivery.unchanged]
        for reading in delivery.readings:
            days = None if reading.days is None else sorted(reading.days)
            files.append((delivery.label, reading.state.file, days or [], days is None))
    spark = stored.sparkSession
    there = spark.createDataFrame(files, f"{c.SOURCE} string, {c.FILE} string, read_days array<date>, read_whole boolean")
    labels = [delivery.label for delivery in complete]
    contained = new.where(F.col(c.SOURCE).isin(labels)).select(c.SOURCE, DAY, F.lit(True).alias("contained")).distinct()
    rows = stored.join(F.broadcast(contained), [c.SOURCE, DAY], "left").join(F.broadcast(there), [c.SOURCE, c.FILE], "left")
    not_there = F.col("read_whole").isNull() | F.col("read_whole") | F.array_contains("read_days", F.col(DAY))
    absent = F.col("contained").isNotNull() & F.coalesce(not_there, F.lit(True))
    return rows.withColumn(ABSENT, absent).drop("contained", "read_days", "read_whole")


def outcomes(judged: DataFrame) -> DataFrame:
    """Judged rows, counted by source, file, domain (null if blank), day, outcome, ``new_row`` and ``is_stored_event``."""
    domain = F.when(~blank(F.col(c.DOMAIN)), F.col(c.DOMAIN)).alias(c.DOMAIN)
    outcome, is_new = F.coalesce(c.REASON, F.lit(KEPT)).alias(OUTCOME), (F.col(STATE) == NEW).alias(_NEW_ROW)
    return judged.groupBy(c.SOURCE, c.FILE, domain, DAY, outcome, is_new, IS_STORED_EVENT).agg(F.count("*").alias(ROWS))


def of_files(counts: DataFrame) -> list[tuple[str, str, str, int]]:
    """(source, file, outcome, new rows) from :func:`outcomes`. Driver memory: the files that were read."""
    rows = counts.where(_NEW_ROW).groupBy(c.SOURCE, c.FILE, OUTCOME).agg(F.sum(ROWS))
    return [tuple(row) for row in rows.collect()]


def quality_after(job: Job, counts: DataFrame, days: Days) -> DataFrame:
    """Rows of the table ``quality`` for the days, as they are once the judged rows are written."""
    is_event, in_table = F.col(OUTCOME) == KEPT, F.col(IS_STORED_EVENT)
    change = F.when(is_event & ~in_table, F.col(ROWS)).when(~is_event & in_table, -F.col(ROWS)).otherwise(F.lit(0))
    events = counts.select(c.SOURCE, c.DOMAIN, DAY, F.lit(KEPT).alias(OUTCOME), change.alias(ROWS))
    rejected = counts.where(~F.col(OUTCOME).isin(KEPT, REMOVED)).select(c.SOURCE, c.DOMAIN, DAY, OUTCOME, ROWS)
    rows = events.unionByName(rejected)
    if job.warehouse.exists(c.EVENTS):
        stored = job.warehouse.read(c.EVENTS).where(within(c.EVENT_DATE, days.dates))
        stored = stored.groupBy(c.SOURCE, c.DOMAIN, F.col(c.EVENT_DATE).alias(DAY)).agg(F.count("*").alias(ROWS))
        rows = rows.unionByName(stored.withColumn(OUTCOME, F.lit(KEPT)))
    rows = rows.groupBy(c.SOURCE, c.DOMAIN, DAY, OUTCOME).agg(F.sum(ROWS).alias(ROWS))
    return rows.where(F.col(ROWS) > 0)


def lost_events(job: Job, batch: Batch) -> dict[tuple[str, date], tuple[int, int]]:
    """(source, day) → stored events that complete sources remove, and all stored events of the source and day."""
    removed = F.col(IS_STORED_EVENT) & F.col(c.SOURCE).isin(batch.complete)
    if not batch.complete or batch.outcomes.where(removed & (F.col(OUTCOME) == REMOVED)).isEmpty():
        return {}
    key = [c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME]
    events = cleaning.accepted(batch.judged).select(*key)
    gone = batch.judged.where(removed & (F.col(c.REASON) == REMOVED)).join(events, key, "left_anti")
    lost = {(row[0], row[1]): row[2] for row in gone.groupBy(c.SOURCE, DAY).count().collect()}
    stored = job.warehouse.read(c.EVENTS).where(within(c.EVENT_DATE, {day for _, day in lost}))
    totals = {(row[0], row[1]): row[2] for row in stored.groupBy(c.SOURCE, c.EVENT_DATE).count().collect()}
    return {key: (removed, totals[key]) for key, removed in lost.items()}
