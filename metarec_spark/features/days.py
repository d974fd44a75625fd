"""Days in the time zone that the configuration names (`features.day_zone`)."""

from __future__ import annotations

from datetime import date, datetime

from pyspark.sql import Column
from pyspark.sql import functions as F

from metarec_spark.sources.times import known_zone


def day_of(time: Column, zone: str) -> Column:
    """Return the day of an instant."""
    return F.to_date(time if zone == "UTC" else F.from_utc_timestamp(time, zone))


def midnight(day: Column, zone: str) -> Column:
    """Return the instant at which a day begins."""
    start = day.cast("timestamp")
    return start if zone == "UTC" else F.to_utc_timestamp(start, zone)


def start_of(day: date, zone: str) -> datetime:
    """Return the instant at which a day begins, with its zone: Spark reads a naive datetime in that of the driver's machine."""
    return datetime.combine(day, datetime.min.time(), known_zone(zone))
