"""Which days of a run its quality gates stop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.features import quality
from metarec_spark.features.cleaning import DAY
from metarec_spark.features.day_pool import Batch, lost_events
from metarec_spark.features.ingested import RowCount
from metarec_spark.features.quality import KEPT, OUTCOME, ROWS, few
from metarec_spark.features.stopped_days import ACCEPTED, PASSED, STOPPED, StoppedDays
from metarec_spark.job import Job, log
from metarec_spark.warehouse.commits import Commit
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.spans import within


def stopped_days_of(job: Job, batch: Batch | None, counts: Sequence[RowCount], last: Commit | None) -> frozenset[date]:
    """Judge the days of the batch, the days since the last ingestion, and the stopped days; returns the days to leave out.

    Raises
    ------
    DataError
        If a day since the last ingestion is stopped, or a day would lose stored events, and no run of an earlier day said so.
    """
    stopped = StoppedDays(job)
    if batch is None and not stopped.with_status(STOPPED) and not job.config.quality.min_events_share:
        return frozenset()
    touched = batch.days.dates if batch else frozenset()
    undated = {n.gate_day for n in counts if n.day is None and not n.forgotten and n.gate_day <= job.ds} if batch else set()
    since = last.ds + timedelta(days=1) if last else min(touched, default=job.ds)
    first = min(since, job.ds)
    expected = {first + timedelta(days=n) for n in range((job.ds - first).days + 1)}
    waiting = {day for day in stopped.with_status(STOPPED) if day <= job.ds}
    days = touched | undated | waiting
    rows = _quality_of(job, batch, days, expected)
    platforms = rows.where(F.col(OUTCOME) == KEPT)
    if job.warehouse.exists(c.QUALITY):
        platforms = platforms.unionByName(job.warehouse.read(c.QUALITY).where(F.col(OUTCOME) == KEPT))
    findings = quality.check(rows, days, expected | waiting, job.config.quality, platforms)
    if undated and batch:
        quality.check_undated(findings, _with_undated(job, batch, counts, rows), undated, job.config.quality, platforms)
    lost = lost_events(job, batch) if batch else {}
    losses = quality.add_losses(findings, lost, job.config.quality.max_lost_share)
    for (source, day), (removed, stored) in sorted(lost.items()):
        log.warning("%s, source %s: %d of %d stored events are in none of its files any more", day, source, removed, stored)
    if findings.new_platforms:
        text = "platforms without any event so far, set aside: %s"
        log.warning(text, "; ".join(findings.new_platforms))
    bad = set(findings.problems) - stopped.with_status(ACCEPTED)
    stopped.set_status(waiting - bad, PASSED)
    stopped.stop({day: findings.reason(day) for day in sorted(bad)})
    stopping = {day for day in bad if (day in expected or day in losses) and not stopped.stopped_before(day)}
    if stopping:
        problems = "; ".join(f"{day}: {findings.reason(day)}" for day in sorted(stopping)[:5])
        raise DataError(
            f"{few(stopping)} lost too much, and nothing is published: {problems}. Mend the log and run the day again, accept "
            "it with `metarec accept`, or change [quality]; runs of later days leave it out"
        )
    for day in sorted(bad):
        log.warning("%s is left out: %s. Mend the log, or accept it with `metarec accept`", day, findings.reason(day))
    return frozenset(bad)


def _quality_of(job: Job, batch: Batch | None, days: set[date] | frozenset[date], expected: set[date]) -> DataFrame:
    """Rows of ``quality`` after the run, of the days to judge and those before."""
    rows = job.spark.createDataFrame([], contract(c.QUALITY).schema)
    touched: frozenset[date] = frozenset()
    if batch:
        touched = batch.days.dates
        rows = rows.unionByName(batch.quality.where(F.col(DAY).isNotNull()))
    if job.warehouse.exists(c.QUALITY):
        first = min(expected) - timedelta(days=quality.USUAL_DAYS)
        stored = job.warehouse.read(c.QUALITY).where((F.col(DAY) >= F.lit(first)) | within(DAY, days))
        rows = rows.unionByName(stored.where(~within(DAY, touched)))
    return rows


def _with_undated(job: Job, batch: Batch, counts: Sequence[RowCount], rows: DataFrame) -> DataFrame:
    """Rows of ``quality`` of gate days, with the new undated rows, and with other days' new rows of their files as if kept.

    Undated rows are few or many beside what their file holds: a file of a whole history has some, and is no loss to its last day.
    """
    gate_days = {(n.source, n.file): n.gate_day for n in counts if n.day is None}
    schema = f"{c.SOURCE} string, {c.FILE} string, gate_day date"
    of_file = F.broadcast(job.spark.createDataFrame([(*key, day) for key, day in gate_days.items()], schema))
    new = batch.outcomes.where("new_row").join(of_file, [c.SOURCE, c.FILE])
    elsewhere = new.where(~F.col(DAY).eqNullSafe(F.col("gate_day")))
    outcome = F.when(F.col(DAY).isNull(), F.col(OUTCOME)).otherwise(KEPT)
    elsewhere = elsewhere.select(c.SOURCE, c.DOMAIN, F.col("gate_day").alias(DAY), outcome.alias(OUTCOME), ROWS)
    return rows.where(within(DAY, {*gate_days.values()})).unionByName(elsewhere)
