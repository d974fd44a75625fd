"""A user's newest events in time order, over all domains."""

from __future__ import annotations

import pytest
from features.factories import event_rows, item_rows
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.contracts import conform
from metarec_spark.features.sequences import sequences, touched_items, touched_users

ITEMS = [("shop", "a"), ("shop", "b"), ("news", "a"), ("film", "c")]
NOON = "2024-01-10 12:00:00"


@pytest.fixture(scope="module")
def found(spark: SparkSession) -> dict[str, tuple]:
    """Sequences of at most 3 events, by user."""
    events = event_rows(
        spark,
        *[
            ("long", "film", "c", "2024-01-13 09:00:00"),
            ("long", "shop", "a", "2024-01-10 09:00:00"),
            ("long", "news", "a", "2024-01-12 09:00:00"),
        ],
        *[("long", "shop", "b", "2024-01-09 09:00:00"), ("long", "shop", "a", "2024-01-11 09:00:00")],
        *[("ties", "film", "c", NOON), ("ties", "news", "a", NOON), ("ties", "shop", "a", NOON)],
        ("single", "shop", "b", NOON),
    )
    ties = events.where("user_id = 'ties' AND domain = 'shop'").withColumn("event_type", F.lit("buy"))
    rows = conform(sequences(events.unionByName(ties), item_rows(spark, *ITEMS), max_length=3), "user_sequences")
    return {row.user_id: row for row in rows.withColumn("event_time", F.col("event_time").cast("array<string>")).collect()}


def test_the_newest_events_are_kept_in_time_order(found: dict):
    assert found["long"].item_idx == [0, 2, 3]
    assert found["long"].domain == ["shop", "news", "film"]
    assert found["long"].event_type == ["click"] * 3
    assert found["long"].event_time == ["2024-01-11 09:00:00", "2024-01-12 09:00:00", "2024-01-13 09:00:00"]


def test_seen_items_domains_and_count_are_of_the_whole_history(found: dict):
    assert found["long"].seen_items == [0, 1, 2, 3]
    assert found["long"].active_domains == ["film", "news", "shop"]
    assert (found["long"].events, found["single"].events) == (5, 1)


def test_events_of_one_instant_are_ordered_by_item_then_type(found: dict):
    assert found["ties"].item_idx == [0, 2, 3]
    assert found["ties"].event_type == ["click", "click", "click"], "of the two events with item 0, the first is the one too many"


def test_one_event_is_a_sequence(found: dict):
    assert (found["single"].item_idx, found["single"].event_time) == ([1], [NOON])


def test_only_net_changes_touch_anybody(spark: SparkSession):
    def changed(kind: str, *rows: tuple[str, str, str, str]) -> DataFrame:
        return event_rows(spark, *rows).withColumn("_change_type", F.lit(kind))

    same, gone = ("same", "shop", "a", NOON), ("less", "shop", "b", NOON)
    new, moved = ("more", "news", "a", NOON), ("moved", "film", "c", "2024-01-10 13:00:00")
    changes = changed("delete", same, gone, ("moved", "film", "c", NOON)).unionByName(changed("insert", same, new, moved))
    assert sorted(row[0] for row in touched_users(changes).collect()) == ["less", "more", "moved"]
    assert sorted(tuple(row) for row in touched_items(changes).collect()) == [("film", "c"), ("news", "a"), ("shop", "b")]
