"""A user's newest events in time order, over all domains."""

from __future__ import annotations

import random
from datetime import date

import pytest
from features.factories import event_rows, item_rows
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.sections import Features
from metarec_spark.features.sequences import extended, newer_than, sequences
from metarec_spark.warehouse.contracts import conform

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
    rows = conform(sequences(events.unionByName(ties), item_rows(spark, *ITEMS), Features(max_length=3)), "user_sequences")
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


def test_a_dislike_is_seen_and_counted_but_not_in_the_sequence(spark: SparkSession):
    rows = event_rows(
        spark,
        *[("u", "film", "c", "2024-01-09 12:00:00"), ("u", "shop", "a", NOON), ("u", "shop", "b", "2024-01-11 12:00:00")],
        ("only", "shop", "b", NOON),
    )
    rated = rows.withColumn("value", F.expr("CASE item_id WHEN 'a' THEN 3 WHEN 'b' THEN 2 END").cast("double"))
    meant = Features(dislike_below={"shop": 3.0, "film": 1.0})
    found = {row.user_id: row for row in sequences(rated, item_rows(spark, *ITEMS), meant).collect()}
    assert (found["u"].item_idx, found["u"].seen_items, found["u"].events) == ([3, 0], [0, 1, 3], 3)
    assert (found["only"].item_idx, found["only"].seen_items, found["only"].active_domains) == ([], [1], ["shop"])
    assert newer_than(spark.createDataFrame(list(found.values())), date(2024, 1, 9)).collect() == [("u",)]


def test_one_event_is_a_sequence(found: dict):
    assert (found["single"].item_idx, found["single"].event_time) == ([1], [NOON])


def test_sequences_are_extended_by_new_events_as_they_are_made_from_all(spark: SparkSession):
    draw = random.Random(0)
    events = {
        # u0 has a history, u9 is new; events of one instant, late ones, and more than the longest sequence.
        (f"u{user}", domain, item, f"2024-01-{draw.randint(1, 20):02} 0{draw.randint(0, 2)}:00:00")
        for user in range(10)
        for domain, item in draw.choices(ITEMS, k=1 + 2 * user)
    }
    new = {event for event in sorted(events) if event[0] in ("u9",) or (event[0] != "u0" and draw.random() < 0.3)}
    items = item_rows(spark, *ITEMS)

    def rated(some: set) -> DataFrame:
        return event_rows(spark, *sorted(some)).withColumn(
            "value", F.pmod(F.hash("user_id", "event_time"), F.lit(5)).cast("double")
        )

    for features in [
        Features(max_length=3),
        Features(),
        Features(dislike_below={"shop": 3.0}, context_types={"news": ["click"]}),
    ]:
        before = sequences(rated(events - new), items, features)
        found = conform(extended(before, rated(new), items, features), "user_sequences")
        wanted = conform(sequences(rated(events), items, features), "user_sequences")
        touched = {event[0] for event in new}
        assert "u0" not in touched and len(touched) > 5
        assert sorted(found.collect()) == sorted(row for row in wanted.collect() if row.user_id in touched)
