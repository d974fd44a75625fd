"""Bring a column of times, of whatever type, to UTC timestamps."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from metarec_spark import columns as c
from metarec_spark.config.inputs import Source
from metarec_spark.sources.group import Group
from metarec_spark.sources.problems import INSTANT
from metarec_spark.sources.times import LARGEST, LAST, PER_SECOND, TimeReader
from metarec_spark.sources.values import INTEGERS, wrong_type

_TYPES = (T.TimestampType, T.TimestampNTZType, T.DateType, T.StringType, T.FloatType, T.DoubleType, T.DecimalType, *INTEGERS)


def instants(group: Group, source: Source, first_day: date, where: str) -> tuple[Column, Column]:
    """Return event times as UTC timestamps, null if one is no time from ``first_day`` to 9999; and the texts that arrived.

    Raises
    ------
    DataError
        If the column is of a type that is no time.
    """
    value, kind, reader = group.get(c.EVENT_TIME), group.types[c.EVENT_TIME], TimeReader.from_source(source)
    text = value.cast("string")
    if INSTANT in group.types:
        time = F.col(INSTANT)
    elif c.EVENT_TIME in group.nanoseconds:
        time = F.timestamp_micros(F.call_function("div", value, F.lit(1000)))
        text = time.cast("string")
        time = time if group.nanoseconds[c.EVENT_TIME] else local(time, source.time_zone)
    elif isinstance(kind, T.TimestampType):
        time = value
    elif isinstance(kind, (T.TimestampNTZType, T.DateType)):
        time = local(value.cast("timestamp"), source.time_zone)
    elif isinstance(kind, INTEGERS) and reader.form is None:
        time = _counted(value.cast("bigint"), reader)
    elif isinstance(kind, _TYPES):
        if isinstance(kind, (T.FloatType, T.DoubleType, T.DecimalType)):
            plain = F.when(F.abs(value) < F.lit(1e19), value).cast("decimal(38,9)").cast("string")
            text = F.regexp_replace(plain, r"\.?0+$", "")
        time = _read(text, reader)
    else:
        raise wrong_type(group, where, c.EVENT_TIME, "a timestamp, a date, a text or a number")
    start, end = F.lit(f"{first_day}T00:00:00Z").cast("timestamp"), F.timestamp_micros(F.lit(LAST))
    return F.when(time.between(start, end), time), text


def local(time: Column, zone: str) -> Column:
    """Return the instant of a clock's time in a zone, null if no clock showed it. The argument has it as if it were UTC."""
    if zone == "UTC":
        return time
    instant = F.to_utc_timestamp(time, zone)
    return F.when(F.from_utc_timestamp(instant, zone) == time, instant)


def _read(text: Column, reader: TimeReader) -> Column:
    return F.timestamp_micros(F.udf(reader, "bigint", useArrow=True)(text))


def _counted(number: Column, reader: TimeReader) -> Column:
    """Read whole numbers as :class:`TimeReader` reads their digits."""
    times = None
    for unit, per_second in PER_SECOND.items():
        in_reach = number.between(0, min(LAST * per_second // 10**6, 2**63 - 1))
        micros = number * (10**6 // per_second) if per_second <= 10**6 else F.call_function("div", number, F.lit(1000))
        time = F.timestamp_micros(F.when(in_reach, micros))
        if reader.unit == unit:
            return time
        smaller = number < F.lit(min(LARGEST[unit], 2**63 - 1))
        times = F.when(number < 10**8, None).when(smaller, time) if times is None else times.when(smaller, time)
    text = number.cast("string")
    digits = F.length(text).isin(8, 12, 14) & F.substring(text, 1, 2).isin("19", "20")
    return F.when(digits, local(F.try_to_timestamp(F.rpad(text, 14, "0"), F.lit("yyyyMMddHHmmss")), reader.zone)).otherwise(times)
