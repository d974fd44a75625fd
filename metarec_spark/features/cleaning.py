"""Cleaning: every row of a log becomes an event or is rejected with one reason. No row is lost or counted twice."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Features
from metarec_spark.features import erased
from metarec_spark.sources.events import ARRIVAL, TIME_TEXT
from metarec_spark.sources.problems import PROBLEM
from metarec_spark.sources.values import LONGEST, blank

DAY = "day"
_KEY = (c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME)


def clean(
    rows: DataFrame,
    first: date,
    last: date,
    settings: Features,
    now: datetime,
    *,
    forgotten: DataFrame | None = None,
    tasks_per_day: int = 1,
) -> DataFrame:
    """Clean the rows of the days ``first`` to ``last``: add ``reason`` (null for an event) and ``day`` (of which the row counts).

    A row counts for the UTC day of its event; if that is unusable, for the day on which it arrived; if that is unknown too, for
    no day (null). Every reason follows from rows of the same day only, so that any days can be cleaned alone.

    Parameters
    ----------
    rows
        Rows of :func:`metarec_spark.sources.events.open_events`, of all sources.
    first, last
        Days whose rows are returned, beside the rows without a day.
    settings
        Limits and known event types.
    now
        Time zone aware; later times are in the future, in a source without arrival days.
    forgotten
        Table of erased users: their rows get the reason ``forgotten``.
    tasks_per_day
        Most tasks that clean the rows of one day; a task has its rows in the order of their days.

    Notes
    -----
    Executor memory does not grow with the rows: a task sorts, and buffers a user's hour, on disk if memory is short.
    """
    judged = judge(_within_reach(rows, first, last, settings, now), settings, now, tasks_per_day)
    judged = judged.where(F.col(DAY).between(F.lit(first), F.lit(last)) | F.col(DAY).isNull())
    return judged if forgotten is None else erased.marked(judged, forgotten)


def judge(rows: DataFrame, settings: Features, now: datetime, tasks_per_day: int = 1) -> DataFrame:
    """Add ``reason`` and ``day`` to all rows, as :func:`clean` says."""
    late = F.date_sub(F.col(ARRIVAL), settings.late_days)
    event_day = F.to_date(c.EVENT_TIME)
    in_future = F.when(F.col(ARRIVAL).isNull(), F.col(c.EVENT_TIME) > F.lit(now)).otherwise(event_day > F.col(ARRIVAL))
    first_reason = F.coalesce(
        F.col(PROBLEM),
        F.when(blank(F.col(c.USER_ID)), "null_user"),
        F.when(blank(F.col(c.ITEM_ID)), "null_item"),
        F.when(blank(F.col(c.DOMAIN)), "null_domain"),
        F.when(_long(c.USER_ID) | _long(c.ITEM_ID) | _long(c.DOMAIN), "long_id"),
        F.when(F.col(c.EVENT_TIME).isNull(), "bad_time"),
        F.when(in_future, "future_time"),
        F.when(event_day < late, "late"),
        F.when(_unknown_type(settings.event_types), "unknown_type"),
    )
    misplaced = F.coalesce(in_future, F.lit(True)) | F.coalesce(event_day < late, F.lit(False))
    day = F.when(misplaced, F.col(ARRIVAL)).otherwise(event_day)
    judged = rows.withColumn(c.REASON, first_reason).withColumn(DAY, day)
    # Rejected rows are distributed by their contents, so that no task receives all rows with a null key.
    contents = F.xxhash64(c.ITEM_ID, c.EVENT_TIME, TIME_TEXT, c.USER_ID)
    bucket = F.when(F.col(c.REASON).isNull(), F.xxhash64(c.USER_ID)).otherwise(contents)
    judged = judged.withColumn("bucket", bucket).withColumn("hour", F.date_trunc("hour", c.EVENT_TIME))
    judged = judged.withColumn("share", F.pmod("bucket", F.lit(tasks_per_day)))
    # One shuffle and one sort for both windows, and for the tables that are written by day.
    judged = judged.repartition(DAY, "share")
    user_hour = [DAY, "share", "bucket", "hour", c.USER_ID]
    same = Window.partitionBy(*user_hour, c.REASON, *_KEY[1:]).orderBy(c.SOURCE, c.VALUE, TIME_TEXT)
    judged = judged.withColumn("copy", F.row_number().over(same))
    judged = judged.withColumn(c.REASON, F.coalesce(c.REASON, F.when(F.col("copy") > 1, "duplicate")))
    hourly = Window.partitionBy(*user_hour)
    busy = F.count(F.when(F.col(c.REASON).isNull(), 1)).over(hourly) > settings.max_events_per_hour
    judged = judged.withColumn("busy", busy)
    judged = judged.withColumn(c.REASON, F.coalesce(c.REASON, F.when(F.col("busy"), "bot")))
    return judged.drop("bucket", "hour", "share", "copy", "busy")


def _within_reach(rows: DataFrame, first: date, last: date, settings: Features, now: datetime) -> DataFrame:
    """Rows that can count for ``first`` to ``last``, by conditions that are pushed down to the files."""
    # With a time zone: Spark reads a naive datetime in the zone of the driver's machine.
    start = datetime.combine(first, datetime.min.time(), UTC)
    end = datetime.combine(last, datetime.min.time(), UTC) + timedelta(days=1)
    time = F.col(c.EVENT_TIME)
    by_time = time.isNull() | ((time >= F.lit(start)) & (time < F.lit(end))) | (time > F.lit(now))
    by_arrival = F.col(ARRIVAL).between(F.lit(first), F.lit(last + timedelta(days=settings.late_days)))
    return rows.where(F.when(F.col(ARRIVAL).isNull(), by_time).otherwise(by_arrival))


def accepted(judged: DataFrame) -> DataFrame:
    """Rows of the table ``events``: cleaned rows without a reason."""
    return judged.where(F.col(c.REASON).isNull()).select(
        *[c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.SOURCE], F.col(DAY).alias(c.EVENT_DATE)
    )


def rejected(judged: DataFrame) -> DataFrame:
    """Rows of the table ``rejected_events``: cleaned rows with a reason, except erased users' rows."""
    time = F.coalesce(TIME_TEXT, F.col(c.EVENT_TIME).cast("string")).alias(c.EVENT_TIME)
    return judged.where(F.col(c.REASON) != c.FORGOTTEN).select(
        *[c.SOURCE, DAY, c.REASON, c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE], time, c.VALUE
    )


def _long(column: str) -> F.Column:
    return F.length(column) > LONGEST


def _unknown_type(known: list[str]) -> F.Column:
    return blank(F.col(c.EVENT_TYPE)) | _long(c.EVENT_TYPE) | (~F.col(c.EVENT_TYPE).isin(known) if known else F.lit(False))
