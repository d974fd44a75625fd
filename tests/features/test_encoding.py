"""Sequences as numbers."""

from __future__ import annotations

import pytest
from features.factories import sequence_rows
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from metarec_spark.features.encoding import ARRAYS, encoded, padded

DOMAINS = ["shop", "news"]
TIMES = ["00:00:00", "00:00:00", "00:00:01", "00:00:04", "01:00:04"]


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> dict[str, Row]:
    known = [(item, "shop", f"2024-01-10 {time}") for item, time in enumerate(TIMES)]
    users = {
        "full": known,
        "short": [(3, "news"), (0, "shop")],
        # Unknown item 5, unknown domain film; what is left is a minute and two minutes apart.
        "unknown": [(1, "shop"), (5, "shop"), (2, "film"), (2, "news"), (0, "shop")],
        "nothing": [(5, "shop"), (9, "film")],
        "ages": [(0, "shop", "1970-01-01 00:00:00"), (1, "shop", "2100-01-01 00:00:00")],
    }
    frame = sequence_rows(spark, **users).withColumn(
        "event_type", F.expr("transform(item_idx, i -> element_at(array('buy', 'odd', 'click'), i % 3 + 1))")
    )
    found = encoded(frame, domains=DOMAINS, event_types=["click", "buy"], items=5, max_length=4, context_types={})
    assert dict(found.dtypes) | dict.fromkeys(ARRAYS, "array<int>") == dict(found.dtypes)
    return {row.user_id: row for row in found.collect()}


def test_arrays_are_as_long_as_their_sequence(rows: dict[str, Row]):
    row = rows["short"]
    assert (row.length, row.item_idx, row.domain) == (2, [3, 0], [1, 0])
    assert (row.event_type, row.gap) == ([2, 2], [0, 6])


def test_padding_fills_short_sequences_at_the_end(spark: SparkSession):
    frame = sequence_rows(spark, short=[(3, "news"), (0, "shop")], nothing=[(5, "shop")])
    known = encoded(frame, domains=DOMAINS, event_types=[], items=5, max_length=4, context_types={})
    found = {row.user_id: row for row in padded(known, 4).collect()}
    assert (found["short"].length, found["short"].item_idx, found["short"].domain) == (2, [3, 0, 0, 0], [1, 0, 0, 0])
    assert [found["nothing"][name] for name in ARRAYS] == [[0] * 4] * 4


def test_the_newest_events_are_kept(rows: dict[str, Row]):
    assert (rows["full"].length, rows["full"].item_idx) == (4, [1, 2, 3, 4])


def test_gaps_are_logarithmic_and_the_first_has_none(rows: dict[str, Row]):
    # 1 second: 1 + log2(2); 3 seconds: 1 + log2(4); an hour: 1 + floor(log2(3601)).
    assert rows["full"].gap == [0, 2, 3, 12]


def test_events_of_one_instant_have_the_smallest_gap(spark: SparkSession):
    frame = sequence_rows(spark, u=[(0, "shop", "2024-01-10 10:00:00"), (1, "shop", "2024-01-10 10:00:00")])
    assert encoded(frame, domains=DOMAINS, event_types=[], items=5, max_length=2, context_types={}).first().gap == [0, 1]


def test_the_longest_gap_has_the_last_bucket(rows: dict[str, Row]):
    assert rows["ages"].gap == [0, 31]


def test_events_with_unknown_items_or_domains_are_left_out(rows: dict[str, Row]):
    row = rows["unknown"]
    assert (row.length, row.item_idx, row.domain) == (3, [1, 2, 0], [0, 1, 0])
    assert row.gap == [0, 8, 6], "a gap is to the event that was kept before"


def test_unknown_types_are_0_and_known_ones_count_from_1(rows: dict[str, Row]):
    assert rows["unknown"].event_type == [0, 1, 2]


def test_a_user_of_unknown_items_only_has_an_empty_sequence(rows: dict[str, Row]):
    row = rows["nothing"]
    assert (row.length, row.item_idx, row.domain, row.event_type, row.gap) == (0, *[[]] * 4)


def test_other_columns_stay(rows: dict[str, Row]):
    assert rows["short"].seen_items == [0, 3]
    assert "event_time" not in rows["short"]
