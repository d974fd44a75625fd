"""What is held out is in no training sequence and in no context."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from features.factories import sequence_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import Row, SparkSession

from metarec_spark.config.sections import Features, Split
from metarec_spark.features.split import held_out, pairs, train_part

DS = date(2024, 1, 10)
LEAVE_ONE_OUT = Split(protocol="leave_one_out")
TEMPORAL = Split(protocol="temporal", test_days=1, validation_days=2)


def split_of(spark: SparkSession, split: Split, **users: list[tuple]) -> dict[str, Row]:
    return {row.user_id: row for row in held_out(sequence_rows(spark, **users), split, DS).collect()}


def targets(row: Row) -> set[tuple]:
    return {tuple(target) for target in row.targets}


def on(*days: int) -> list[tuple]:
    """One event in the domain a on each day of January, of items 0, 1, …"""
    return [(item, "a", f"2024-01-{day:02} 08:00:00") for item, day in enumerate(days)]


def test_leave_one_out_by_hand(spark: SparkSession):
    found = split_of(
        spark,
        LEAVE_ONE_OUT,
        one=[(0, "a")],
        two=[(0, "a"), (1, "a")],
        three=[(0, "a"), (1, "a"), (0, "a")],
        # positions: 0  1  2  3  4  5
        mixed=[(0, "a"), (9, "b"), (1, "a"), (2, "a"), (8, "b"), (7, "c")],
    )
    assert targets(found["one"]) == {("a", "test", 0)}
    assert (found["one"].train_positions, found["one"].test_context) == ([], [])
    assert targets(found["two"]) == {("a", "test", 1), ("a", "validation", 0)}
    assert (found["two"].train_positions, found["two"].test_context) == ([], [0])
    assert targets(found["three"]) == {("a", "test", 2), ("a", "validation", 1)}
    assert (found["three"].train_positions, found["three"].test_context) == ([0], [0, 1])
    assert targets(found["mixed"]) == {
        *[("a", "test", 3), ("a", "validation", 2), ("b", "test", 4), ("b", "validation", 1)],
        ("c", "test", 5),
    }
    assert (found["mixed"].train_positions, found["mixed"].test_context) == ([0], [0, 1, 2])


def test_without_a_protocol_nothing_is_held_out(spark: SparkSession):
    found = split_of(spark, Split(protocol="none"), u=[(0, "a"), (1, "b")])["u"]
    assert (found.targets, found.train_positions, found.test_context) == ([], [0, 1], [0, 1])


def test_temporal_by_hand(spark: SparkSession):
    midnight = [(0, "a", "2024-01-07 23:59:59"), (1, "a", "2024-01-08 00:00:00"), (2, "a", "2024-01-10 00:00:00")]
    found = split_of(
        spark,
        TEMPORAL,
        all=on(5, 7, 8, 9, 10, 10),
        old=on(1, 2),
        new=on(10),
        midnight=midnight,
        domains=[
            (0, "a", "2024-01-01 08:00:00"),
            (1, "b", "2024-01-10 08:00:00"),
            (2, "a", "2024-01-10 09:00:00"),
            (3, "b", "2024-01-10 10:00:00"),
        ],
    )
    assert targets(found["all"]) == {("a", "validation", 2), ("a", "test", 4)}
    assert (found["all"].train_positions, found["all"].test_context) == ([0, 1], [0, 1, 2, 3])
    assert (targets(found["old"]), found["old"].train_positions) == (set(), [0, 1])
    assert (targets(found["new"]), found["new"].train_positions) == ({("a", "test", 0)}, [])
    assert (targets(found["midnight"]), found["midnight"].train_positions) == ({("a", "validation", 1), ("a", "test", 2)}, [0])
    assert (targets(found["domains"]), found["domains"].test_context) == ({("b", "test", 1), ("a", "test", 2)}, [0])


def test_a_temporal_split_is_by_utc_wherever_the_driver_runs(spark: SparkSession, monkeypatch: pytest.MonkeyPatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        late = [(0, "a", "2024-01-09 23:59:59"), (1, "a", "2024-01-10 00:00:00")]
        assert targets(split_of(spark, TEMPORAL, u=late)["u"]) == {("a", "validation", 0), ("a", "test", 1)}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_training_part_has_no_held_out_event_and_nobody_without_events(spark: SparkSession):
    users = {"mixed": [(0, "a"), (9, "b"), (1, "a"), (2, "a")], "one": [(0, "a")]}
    (row,) = train_part(held_out(sequence_rows(spark, **users), LEAVE_ONE_OUT, DS)).collect()
    assert (row.user_id, row.item_idx, row.domain, row.event_type, len(row.event_time)) == ("mixed", [0], ["a"], ["click"], 1)


def test_a_pair_has_its_target_context_and_what_was_seen(spark: SparkSession):
    history = [(0, "a"), (9, "b"), (1, "a"), (2, "a"), (2, "a"), (0, "a")]
    frame = sequence_rows(spark, u=history).selectExpr("* EXCEPT (seen_items)", "array(0, 1, 2, 7, 9) AS seen_items")
    found = {(row.target_domain, row.split): row for row in pairs(held_out(frame, LEAVE_ONE_OUT, DS)).collect()}
    assert set(found) == {("a", "test"), ("a", "validation"), ("b", "test")}
    test, validation, other = found["a", "test"], found["a", "validation"], found["b", "test"]
    assert (test.target, test.item_idx, test.domain, test.train_events) == (0, [0, 1, 2, 2], ["a"] * 4, 3)
    assert sorted(test.seen) == [1, 2, 7], "not the target, though it was seen before, and not the other test"
    assert (validation.target, validation.item_idx, sorted(validation.seen)) == (2, [0, 1, 2], [0, 1, 7])
    assert validation.train_events == 3
    assert (other.target, other.item_idx, other.train_events) == (9, [0], 0)


@pytest.mark.parametrize(("zone", "split"), [("UTC", "validation"), ("Asia/Tokyo", "test"), ("America/New_York", "validation")])
def test_the_days_of_a_temporal_split_are_of_the_zone(spark: SparkSession, zone: str, split: str):
    evening = str(DS - timedelta(days=1)) + " 20:00:00"
    frame = held_out(sequence_rows(spark, u=[(1, "a", evening)]), Split(protocol="temporal"), DS, Features(day_zone=zone))
    assert [target.split for (targets,) in frame.select("targets").collect() for target in targets] == [split]


sequences_of_users = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abc"), st.integers(4, 10)), min_size=1, max_size=9),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("split", [LEAVE_ONE_OUT, TEMPORAL], ids=["leave_one_out", "temporal"])
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(users=sequences_of_users)
def test_no_context_holds_a_test_event_or_one_after_its_target(spark: SparkSession, split: Split, users: list[list[tuple]]):
    histories = {}
    for number, events in enumerate(users):
        ordered = sorted(events, key=lambda event: event[2])
        histories[f"u{number}"] = [
            (item, domain, f"2024-01-{day:02} 08:{minute:02}:00") for minute, (item, domain, day) in enumerate(ordered)
        ]
    frame = held_out(sequence_rows(spark, **histories), split, DS).cache()
    rows = {row.user_id: row for row in frame.selectExpr("*", "transform(event_time, t -> string(t)) AS times").collect()}
    for row in rows.values():
        test = {target.position for target in row.targets if target.split == "test"}
        held = {target.position for target in row.targets}
        assert len({(target.domain, target.split) for target in row.targets}) == len(row.targets)
        assert not held & set(row.train_positions) and not test & set(row.test_context)
        assert set(row.train_positions) <= set(row.test_context)
        assert all(row.domain[target.position] == target.domain for target in row.targets)
    for pair in pairs(frame).selectExpr("*", "transform(event_time, t -> string(t)) AS times").collect():
        row = rows[pair.user_id]
        (position,) = [t.position for t in row.targets if (t.domain, t.split) == (pair.target_domain, pair.split)]
        test_times = {row.times[t.position] for t in row.targets if t.split == "test"}
        assert pair.target == row.item_idx[position] and pair.target not in pair.seen
        assert not set(pair.times) & test_times, "times are unique within a user"
        assert all(time < row.times[position] for time in pair.times)
    frame.unpersist()
