"""The rows that a run reads: files opened, rows labelled with their day and reason, and those of other days set aside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features.as_of import erased_users
from metarec_spark.features.cleaning import AGAIN, DAY, label_rows
from metarec_spark.features.days import start_of
from metarec_spark.features.deliveries import Delivery, Part
from metarec_spark.features.ingested import RowCount
from metarec_spark.job import Job
from metarec_spark.sources.events import ARRIVAL, open_events

GATE_DAY = "gate_day"
"""Day whose quality gate a row counts for: its day; if it has none, the day when its file was delivered."""
_PART, _URI = "part", "uri"
_SELECTION = (
    f"{_PART} int, {_URI} string, {c.FILE} string, {AGAIN} boolean, days array<date>, except_days array<date>, undated boolean, "
    "undated_day date"
)


def selected_rows(job: Job, deliveries: Sequence[Delivery], now: datetime) -> DataFrame | None:
    """Rows of :func:`metarec_spark.features.cleaning.label_rows` that the readings ask for, with ``again`` and ``gate_day``.

    Rows of days after the job's are among them. None if nothing is to be read.
    """
    opened: list[DataFrame] = []
    selection = []
    for delivery in deliveries:
        for part in delivery.parts:
            some = len(part.readings) < len(delivery.present)
            first_day = job.config.features.first_day
            rows = open_events(job.spark, delivery.source, delivery.position, part.files, first_day, some=some)
            if delivery.source.format == "delta":  # the table counts as one file
                rows = rows.withColumn(c.FILE, F.lit(part.readings[0].state.uri))
            rows = _within(rows, part, job.config.features.day_zone).withColumnRenamed(c.FILE, _URI)
            opened.append(rows.withColumn(_PART, F.lit(len(opened))))
            for reading in part.readings:
                delivered = min(reading.state.modified.date(), job.ds) if reading.state.modified else job.ds
                days = None if reading.days is None else sorted(reading.days)
                which = days, sorted(reading.except_days), reading.undated, reading.undated_day or delivered
                selection.append((len(opened) - 1, reading.state.uri, reading.state.file, reading.again, *which))
    if not opened:
        return None
    rows = label_rows(reduce(DataFrame.unionByName, opened), job.config.features, now, erased_users(job))
    rows = rows.join(F.broadcast(job.spark.createDataFrame(selection, _SELECTION)), [_PART, _URI])
    day = F.col(DAY)
    chosen = (F.col("days").isNull() | F.array_contains("days", day)) & ~F.array_contains("except_days", day)
    rows = rows.where(F.when(day.isNull(), F.col("undated")).otherwise(chosen))
    rows = rows.withColumn(GATE_DAY, F.coalesce(day, F.least(F.col("undated_day"), F.lit(job.ds))))
    return rows.drop(_PART, _URI, "days", "except_days", "undated", "undated_day")


def _within(rows: DataFrame, part: Part, zone: str) -> DataFrame:
    """Rows that can count for the days that are read, by conditions that are pushed down to the files."""
    days = [day for reading in part.readings for day in reading.days or ()]
    if any(reading.days is None or reading.undated for reading in part.readings) or not days:
        return rows
    first, last = min(days), max(days) + timedelta(days=1)
    time, arrival = F.col(c.EVENT_TIME), F.col(ARRIVAL)
    by_time = (time >= F.lit(start_of(first, zone))) & (time < F.lit(start_of(last, zone)))
    by_arrival = arrival >= F.lit(first - timedelta(days=1))  # a row counts for the day of its event or of its arrival
    return rows.where(F.when(arrival.isNull(), by_time).otherwise(by_arrival))


def counted_rows(rows: DataFrame) -> list[RowCount]:
    """Numbers of selected rows by file and day. Driver memory: files × their days."""
    forgotten = F.coalesce(F.col(c.REASON) == c.FORGOTTEN, F.lit(False)).alias("forgotten")
    counts = rows.groupBy(c.SOURCE, c.FILE, DAY, GATE_DAY, forgotten).agg(F.count("*"))
    return [RowCount(*row) for row in counts.collect()]
