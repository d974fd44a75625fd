"""Read a source as extract would, and count what becomes of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.inputs import Source
from metarec_spark.config.sections import Features
from metarec_spark.features.cleaning import AGAIN, judge_days, label_rows, new_rows
from metarec_spark.sources.events import TIME_TEXT, open_events

MOST_ROWS = 1_000_000
"""Rows of a source that are judged."""
_SHOWN = 10


@dataclass(frozen=True)
class Judged:
    """What becomes of the rows of a log."""

    rows: int
    cut: bool
    """Whether the log has more rows than were judged."""
    events: int
    rejected: dict[str, int]
    """Reason → rows."""
    users: int
    items: int
    platforms: dict[str, int]
    """Platform → events, the most common ones first."""
    event_types: dict[str, int]
    first: date | None
    last: date | None
    repeats: float
    """Share of the events whose user has an earlier event with the item."""
    one_time: float
    """Share of the events that have the same time as another event of their user."""
    examples: list[Row]
    """Some rows of each outcome: reason, user_id, item_id, domain, event_type, event_time, value."""


def judged(spark: SparkSession, source: Source, settings: Features) -> Judged:
    """Read and judge at most a million rows of a source.

    Raises
    ------
    DataError
        If the source cannot be read.
    """
    rows = open_events(spark, source, 0, first_day=settings.first_day).limit(MOST_ROWS + 1)
    pool = new_rows(label_rows(rows, settings, datetime.now(UTC)).withColumn(AGAIN, F.lit(False)))
    outcomes = judge_days(pool, settings.max_events_per_hour, 1, stored=False).persist()
    try:
        counts = {row[0]: row[1] for row in outcomes.groupBy(c.REASON).count().toLocalIterator()}
        events = outcomes.where(F.col(c.REASON).isNull())
        return _described(counts, events, _examples(outcomes))
    finally:
        outcomes.unpersist()


def _described(counts: dict[str | None, int], valid: DataFrame, examples: list[Row]) -> Judged:
    day = F.to_date(c.EVENT_TIME)
    pairs = valid.select(c.DOMAIN, c.USER_ID, c.ITEM_ID).distinct().count()
    times = valid.select(c.USER_ID, c.EVENT_TIME).distinct().count()
    users, items, first, last = valid.agg(
        F.count_distinct(c.USER_ID), F.count_distinct(c.DOMAIN, c.ITEM_ID), F.min(day), F.max(day)
    ).collect()[0]
    events = counts.get(None, 0)
    rows = sum(counts.values())
    return Judged(
        rows=min(rows, MOST_ROWS),
        cut=rows > MOST_ROWS,
        events=events,
        rejected={reason: count for reason, count in sorted(counts.items(), key=str) if reason is not None},
        users=users,
        items=items,
        platforms=_most_common(valid, c.DOMAIN),
        event_types=_most_common(valid, c.EVENT_TYPE),
        first=first,
        last=last,
        repeats=1 - pairs / events if events else 0.0,
        one_time=1 - times / events if events else 0.0,
        examples=examples,
    )


def _most_common(rows: DataFrame, column: str) -> dict[str, int]:
    counted = rows.groupBy(column).count().orderBy(F.desc("count"), column).limit(1000)
    return {row[0]: row[1] for row in counted.toLocalIterator()}


def _examples(outcomes: DataFrame) -> list[Row]:
    """Return ten rows: as many kinds of outcome as there are, the rest events."""
    time = F.coalesce(F.date_format(c.EVENT_TIME, "yyyy-MM-dd HH:mm:ss"), TIME_TEXT).alias(c.EVENT_TIME)
    shown = [*map(F.col, (c.REASON, c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE)), time, F.col(c.VALUE)]
    lost = outcomes.where(F.col(c.REASON).isNotNull()).dropDuplicates([c.REASON]).select(*shown).limit(_SHOWN // 2).collect()
    events = outcomes.where(F.col(c.REASON).isNull()).select(*shown).limit(_SHOWN - len(lost)).collect()
    return events + lost
