"""Open behaviour logs: rows of every format with our columns, nothing judged yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from metarec_spark import columns as c
from metarec_spark.config.inputs import Source
from metarec_spark.sources.group import Group
from metarec_spark.sources.instants import instants
from metarec_spark.sources.names import DAY, wanted
from metarec_spark.sources.opening import open_source
from metarec_spark.sources.problems import PROBLEM
from metarec_spark.sources.values import LONGEST, arrival, blank, number, platform, with_ids

ARRIVAL = "arrival"
TIME_TEXT = "time_text"
FIRST_DAY = date(1995, 1, 1)
"""First plausible day, if the configuration names no other."""
_SCHEMA = (
    f"{c.SOURCE} string, {c.USER_ID} string, {c.ITEM_ID} string, {c.DOMAIN} string, {c.EVENT_TYPE} string, "
    f"{c.EVENT_TIME} timestamp, {TIME_TEXT} string, {c.VALUE} double, {ARRIVAL} date, {c.FILE} string, {PROBLEM} string"
)


def open_events(
    spark: SparkSession,
    source: Source,
    position: int,
    files: Sequence[str] | None = None,
    first_day: date = FIRST_DAY,
    *,
    some: bool = False,
) -> DataFrame:
    """Open one behaviour log: source, user_id, item_id, domain, event_type, event_time, time_text, value, arrival, file, problem.

    Ids, domains, event types and times that are too long are cut to one character more than may be.

    ``event_time`` is null if the time cannot be read; ``time_text`` is the time as it arrived, null if it arrived as
    ``event_time``. ``arrival`` is the day on which the row arrived, null if the source has no ``day_column``. ``file`` is the
    file that the row was read from, as :func:`metarec_spark.sources.files.list_files` spells it. ``problem`` is the reason why
    what stands in the file is no row (see :mod:`metarec_spark.sources.problems`), null if it is one.

    Parameters
    ----------
    position
        Index of the source in the configuration.
    files
        Files to read, as :func:`metarec_spark.sources.files.list_files` spells them; None: all files of the source. Of a Delta
        table, data files of its current version, as its log spells them.
    first_day
        An earlier time is no time.
    some
        Whether these are not all files of the source: then all of them may lack a mapped column that is not required.

    Raises
    ------
    DataError
        If the source or one of its files cannot be opened, a needed column is missing, or a column has a type that cannot be
        used. What shows only while files are read is raised then.
    """
    where = f"sources[{position}] {source.path}"
    columns = wanted(source, (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TIME), (c.EVENT_TYPE, c.VALUE), day=source.day_column)
    columns = [replace(column, mapped=column.mapped and column.required) if some else column for column in columns]
    groups = open_source(spark, source, columns, where, files)
    rows = spark.createDataFrame([], _SCHEMA)  # first, so that the union is of this session
    for group in groups:
        rows = rows.unionByName(_events(group, source, position, first_day, where))
    return rows


def _events(group: Group, source: Source, position: int, first_day: date, where: str) -> DataFrame:
    group = with_ids(group, (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE), source.null_values, where)
    user = F.col(c.USER_ID)
    if source.user_namespace:
        user = F.when(~blank(user), F.concat(F.lit(f"{source.user_namespace}:"), user))
    time, text = instants(group, source, first_day, where)
    day, day_problem = arrival(group, DAY, where)
    text = F.substring(text, 1, LONGEST + 1)
    arrived_as_time = isinstance(group.types[c.EVENT_TIME], T.TimestampType)
    return group.rows.select(
        F.lit(source.label(position)).alias(c.SOURCE),
        F.substring(user, 1, LONGEST + 1).alias(c.USER_ID),
        c.ITEM_ID,
        platform(source),
        c.EVENT_TYPE,
        time.alias(c.EVENT_TIME),
        (F.when(time.isNull(), text) if arrived_as_time else text).alias(TIME_TEXT),
        number(group, c.VALUE, where).alias(c.VALUE),
        day.alias(ARRIVAL),
        c.FILE,
        F.coalesce(PROBLEM, day_problem).alias(PROBLEM),
    )
