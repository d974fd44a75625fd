"""Cleaning: every row of a log becomes an event or is rejected with one reason. No row is lost or counted twice.

Two steps. :func:`label_rows` finds what a row shows by itself: unusable ids, times and types. :func:`judge_days` compares the
rows of a day with each other, stored rows included: copies and bots. Its result follows from the rows of the day alone, not from
the runs in which they were read.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Features
from metarec_spark.features import erased
from metarec_spark.features.days import day_of, midnight
from metarec_spark.sources.events import ARRIVAL, TIME_TEXT
from metarec_spark.sources.problems import PROBLEM
from metarec_spark.sources.values import LONGEST, blank

DAY = "day"
STATE = "state"
NEW, STORED_EVENT, STORED_REJECTED = 0, 1, 2
AGAIN, ABSENT, IS_STORED_EVENT = "again", "absent", "is_stored_event"
REMOVED = "removed"
"""Reason of a stored row that its source no longer has; such a row is in no table."""
ZONE_WIDTH_HOURS = 14
"""UTC+14 is the zone furthest ahead: so far may a time be ahead of the clock, or of its arrival day, in another zone."""
MAY_BE_EVENT = f"{c.REASON} IN ('duplicate', 'bot')"
"""Of a stored rejected row: whether it is rejected for other rows of its day alone."""
_KEY = (c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE, TIME_TEXT)
_CONTENT = (c.SOURCE, c.VALUE)
_COLUMNS = (c.SOURCE, c.FILE, c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, TIME_TEXT, c.VALUE, c.REASON, DAY)
POOL = (*_COLUMNS, STATE, AGAIN, ABSENT)
"""Columns of the rows that :func:`judge_days` compares."""


def label_rows(rows: DataFrame, settings: Features, now: datetime, forgotten: DataFrame | None = None) -> DataFrame:
    """Add ``reason`` (null if the row is usable) and ``day`` (the day that it counts for).

    A row counts for the day of its event, in ``settings.day_zone``; if that is unusable, for the day on which it arrived; if that
    is unknown too, for no day (null).

    Parameters
    ----------
    rows
        Rows of :func:`metarec_spark.sources.events.open_events`.
    settings
        Limits and known event types.
    now
        Time zone aware; a time more than :data:`ZONE_WIDTH_HOURS` hours later is in the future, in a source without arrival days.
    forgotten
        Table of erased users: their rows get the reason ``forgotten``, whatever else is wrong with them.
    """
    time, arrival = F.col(c.EVENT_TIME), F.col(ARRIVAL)
    event_day = day_of(time, settings.day_zone)
    end_of_arrival = F.timestamp_add("HOUR", F.lit(ZONE_WIDTH_HOURS), midnight(F.date_add(arrival, 1), settings.day_zone))
    in_future = F.when(arrival.isNull(), time > F.lit(now + timedelta(hours=ZONE_WIDTH_HOURS))).otherwise(time >= end_of_arrival)
    late = event_day < F.date_sub(arrival, settings.late_days)
    reason = F.coalesce(
        F.col(PROBLEM),
        F.when(blank(F.col(c.USER_ID)), "null_user"),
        F.when(blank(F.col(c.ITEM_ID)), "null_item"),
        F.when(blank(F.col(c.DOMAIN)), "null_domain"),
        F.when(_long(c.USER_ID) | _long(c.ITEM_ID) | _long(c.DOMAIN), "long_id"),
        F.when(time.isNull(), "bad_time"),
        F.when(in_future, "future_time"),
        F.when(late, "late"),
        F.when(_unknown_type(settings.event_types), "unknown_type"),
    )
    unusable_day = F.coalesce(in_future, F.lit(True)) | F.coalesce(late, F.lit(False))
    rows = rows.withColumn(c.REASON, reason).withColumn(DAY, F.when(unusable_day, arrival).otherwise(event_day))
    # Rows are compared by what the tables hold: the time in UTC, or its text if it cannot be read.
    rows = rows.withColumn(TIME_TEXT, F.coalesce(time.cast("string"), TIME_TEXT))
    return rows if forgotten is None else erased.marked(rows, forgotten)


def judge_days(
    pool: DataFrame, max_events_per_hour: int, tasks_per_day: int, *, stored: bool, unnamed_files: bool = False
) -> DataFrame:
    """Compare the rows of each day: set the reason ``duplicate`` or ``bot``, and drop stored rows that were read again.

    Of rows that were read again (``again``), each takes the place of a stored row of the same file with the same content. Of
    usable rows with the same user, item, domain, type and time, the first by (source, value, stored or not, file) is the event,
    and the others are duplicates. If a user then has more than ``max_events_per_hour`` events in a clock hour, all of them are
    bots: stored events too, so that the result does not depend on the order in which rows arrive.

    Parameters
    ----------
    pool
        Columns :data:`POOL`: new rows (``state`` 0), stored events (1) and stored rejected rows (2) of the same days. ``reason``
        is null for rows that may be events, stored duplicates and bots included. ``absent``: stored rows that their source no
        longer has, unless they were read again.
    tasks_per_day
        Most tasks among which the rows of a day are divided; a task has its rows in the order of their days.
    stored
        Whether the pool has stored rows.
    unnamed_files
        Whether stored rows may have no file, because they are older than the column: a row takes the place of such a row whatever
        its own file is.

    Returns
    -------
    DataFrame
        The pool without superseded rows, with the final ``reason``, and ``is_stored_event``: whether the table ``events`` has
        this very row.

    Notes
    -----
    One shuffle; one sort, or two if there are stored rows. Executor memory does not grow with the rows: a task buffers a user's
    hour, on disk if memory is short.
    """
    # Rows without a user are distributed by their contents, so that no task receives all of them.
    bucket = F.when(blank(F.col(c.USER_ID)), F.xxhash64(*_KEY)).otherwise(F.xxhash64(c.USER_ID))
    rows = pool.withColumn("bucket", bucket).withColumn("hour", F.substring(TIME_TEXT, 1, len("2024-01-10 12")))
    rows = rows.withColumn("share", F.pmod("bucket", F.lit(tasks_per_day)))
    rows = rows.repartition(DAY, "share")
    user_hour = [DAY, "share", "bucket", "hour", c.USER_ID]
    is_event = F.col(STATE) == STORED_EVENT
    if stored:
        if unnamed_files:
            content = Window.partitionBy(*user_hour, *_KEY, *_CONTENT)
            unnamed = F.max((F.col(STATE) != NEW) & F.col(c.FILE).isNull()).over(content)
            rows = rows.withColumn("same_file", F.when(~unnamed, F.col(c.FILE)))
        else:
            rows = rows.withColumn("same_file", F.col(c.FILE))
        same_row = Window.partitionBy(*user_hour, *_KEY, *_CONTENT, "same_file")
        rows = rows.withColumn("rank", F.row_number().over(same_row.orderBy(STATE)))
        rows = rows.withColumn("new", F.count(F.when(F.col(STATE) == NEW, 1)).over(same_row))
        rows = rows.withColumn("read_again", F.count(F.when((F.col(STATE) == NEW) & F.col(AGAIN), 1)).over(same_row))
        rows = rows.withColumn("event_in_table", F.max(is_event).over(same_row))
        superseded = (F.col(STATE) != NEW) & (F.col("rank") <= F.col("new") + F.col("read_again"))
        rows = rows.where(~superseded)
        takes_place = (F.col(STATE) == NEW) & F.col(AGAIN) & (F.col("rank") == 1) & F.col("event_in_table")
        rows = rows.withColumn(IS_STORED_EVENT, is_event | takes_place)
        rows = rows.withColumn(c.REASON, F.when(F.col(ABSENT), REMOVED).otherwise(F.col(c.REASON)))
        rows = rows.drop("same_file", "rank", "new", "read_again", "event_in_table")
    else:
        rows = rows.withColumn(IS_STORED_EVENT, F.lit(False))
    usable = F.col(c.REASON).isNull()
    # Of equal copies the stored event stays; of others the order of their arrival has no say.
    in_order = Window.partitionBy(*user_hour, *_KEY).orderBy(c.SOURCE, c.VALUE, F.desc(IS_STORED_EVENT), c.FILE)
    copies = F.count(F.when(usable, 1)).over(in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    rows = rows.withColumn("copies", copies)
    rows = rows.withColumn(c.REASON, F.when(usable & (F.col("copies") > 1), "duplicate").otherwise(F.col(c.REASON)))
    events = F.count(F.when(usable, 1)).over(Window.partitionBy(*user_hour))
    rows = rows.withColumn("events_in_hour", events)
    rows = rows.withColumn(
        c.REASON, F.when(usable & (F.col("events_in_hour") > max_events_per_hour), "bot").otherwise(F.col(c.REASON))
    )
    return rows.drop("bucket", "hour", "share", "copies", "events_in_hour")


def new_rows(labelled: DataFrame) -> DataFrame:
    """Rows of :func:`label_rows`, with a column ``again``, as a part of the pool."""
    return labelled.select(*_COLUMNS, F.lit(NEW).alias(STATE), AGAIN, F.lit(False).alias(ABSENT))


def stored_events(events: DataFrame) -> DataFrame:
    """Rows of the table ``events`` as a part of the pool."""
    text, no_reason = F.col(c.EVENT_TIME).cast("string"), F.lit(None).cast("string")
    return _stored(events.withColumns({TIME_TEXT: text, c.REASON: no_reason, DAY: F.col(c.EVENT_DATE)}), STORED_EVENT)


def stored_rejected(rejected: DataFrame) -> DataFrame:
    """Rows of the table ``rejected_events`` as a part of the pool; duplicates and bots may become events."""
    usable = F.expr(MAY_BE_EVENT)
    # Rows without a file are of a version that stored times as they arrived.
    time = F.when(F.col(c.FILE).isNull(), F.try_to_timestamp(c.EVENT_TIME)).cast("string")
    text = F.coalesce(time, F.col(c.EVENT_TIME))
    columns = {
        TIME_TEXT: text,
        c.EVENT_TIME: F.when(usable, text).try_cast("timestamp"),
        c.REASON: F.when(~usable, F.col(c.REASON)),
    }
    return _stored(rejected.withColumns(columns), STORED_REJECTED)


def _stored(rows: DataFrame, state: int) -> DataFrame:
    return rows.select(*_COLUMNS, F.lit(state).alias(STATE), F.lit(False).alias(AGAIN), F.lit(False).alias(ABSENT))


def accepted(judged: DataFrame) -> DataFrame:
    """Rows of the table ``events``: judged rows without a reason."""
    columns = [c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.SOURCE]
    return judged.where(F.col(c.REASON).isNull()).select(*columns, F.col(DAY).alias(c.EVENT_DATE), c.FILE)


def rejected(judged: DataFrame) -> DataFrame:
    """Rows of the table ``rejected_events``: judged rows with a reason."""
    rows = judged.where(F.col(c.REASON) != REMOVED).withColumn(c.EVENT_TIME, F.col(TIME_TEXT))
    return rows.select(c.SOURCE, DAY, c.REASON, c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.FILE)


def _long(column: str) -> Column:
    return F.length(column) > LONGEST


def _unknown_type(known: list[str]) -> Column:
    type_ = F.col(c.EVENT_TYPE)
    return blank(type_) | _long(c.EVENT_TYPE) | (~type_.isin(known) if known else F.lit(False))
