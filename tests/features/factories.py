"""Tiny logs and sequences. Times are text, read by Spark as UTC, and come back as text: no Python time zone has a say."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.sections import Features
from metarec_spark.features import cleaning

LOG_ROW = {
    **{"source": "0:parquet", "user_id": "u1", "item_id": "i1", "domain": "shop", "event_type": "click"},
    **{"time_text": "2024-01-10 10:00:00", "value": None, "arrival": "2024-01-10"},
    **{"file": "file:/log.parquet", "problem": None},
}
LOG = "source string, user_id string, item_id string, domain string, event_type string, time_text string, value double, arrival string, file string, problem string"
SEQUENCE = "user_id string, item_idx array<int>, domain array<string>, event_type array<string>, event_time array<string>, seen_items array<int>"


def log_rows(spark: SparkSession, *rows: dict) -> DataFrame:
    """Rows as ``open_events`` gives them."""
    frame = spark.createDataFrame([tuple((LOG_ROW | row).values()) for row in rows], LOG)
    none = F.lit(None).cast("string")
    return frame.withColumns(
        {
            "event_time": F.try_to_timestamp("time_text"),
            "arrival": F.col("arrival").cast("date"),
            "file": F.lit("a"),
            "problem": none,
        }
    )


def judged_rows(rows: DataFrame, settings: Features, now: datetime, tasks_per_day: int = 1) -> DataFrame:
    """Rows of :func:`log_rows`, judged in a warehouse without events."""
    labelled = cleaning.label_rows(rows, settings, now).withColumn(cleaning.AGAIN, F.lit(False))
    return cleaning.judge_days(cleaning.new_rows(labelled), settings.max_events_per_hour, tasks_per_day, stored=False)


def event_rows(spark: SparkSession, *rows: tuple[str, str, str, str]) -> DataFrame:
    """Rows of ``events`` from (user, domain, item, time)."""
    frame = spark.createDataFrame(list(rows), "user_id string, domain string, item_id string, event_time string")
    frame = frame.withColumns({"event_time": F.col("event_time").cast("timestamp"), "event_type": F.lit("click")})
    return frame.withColumns(
        {
            "event_date": F.to_date("event_time"),
            "value": F.lit(None).cast("double"),
            "source": F.lit("0:parquet"),
            "file": F.lit("a"),
        }
    )


def item_rows(spark: SparkSession, *keys: tuple[str, str]) -> DataFrame:
    """Rows of ``items`` from (domain, item), indexed from 0 in the order given."""
    frame = spark.createDataFrame([(i, *key) for i, key in enumerate(keys)], "item_idx int, domain string, item_id string")
    return frame.withColumns(
        {"events": F.lit(1).cast("long"), "first_day": F.lit(None).cast("date"), "last_day": F.lit(None).cast("date")}
    )


def sequence_rows(spark: SparkSession, **users: list[tuple]) -> DataFrame:
    """Rows of ``user_sequences`` from user = [(item_idx, domain), …] or [(item_idx, domain, time), …]; a minute apart by default."""
    rows = []
    for user, events in users.items():
        timed = [(*event, f"2024-01-10 10:{i:02}:00")[:3] for i, event in enumerate(events)]
        items, domains, times = (list(column) for column in zip(*timed, strict=True)) if timed else ([], [], [])
        rows.append((user, items, domains, ["click"] * len(timed), times, sorted(set(items))))
    return spark.createDataFrame(rows, SEQUENCE).withColumn(
        "event_time", F.expr("transform(event_time, t -> CAST(t AS TIMESTAMP))")
    )
