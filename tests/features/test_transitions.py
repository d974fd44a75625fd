"""Transition weights, by hand."""

from __future__ import annotations

import pytest
from features.factories import sequence_rows
from pyspark.sql import SparkSession

from metarec_spark.contracts import conform
from metarec_spark.features.transitions import transitions
from metarec_spark.sections import Transitions

# u: 0 → 1 → 0 → 2, v: 0 → 1. Events: item 0 three, item 1 two, item 2 one.
USERS = {"u": [(0, "a"), (1, "b"), (0, "a"), (2, "a")], "v": [(0, "a"), (1, "b")]}
PLAIN = {"gap_decay": 0.0, "backward": 0.0, "popularity_damping": 0.0, "source_damping": 0.0}


def found(spark: SparkSession, users: dict = USERS, **settings: object) -> dict[int, list[tuple]]:
    rows = conform(transitions(sequence_rows(spark, **users), Transitions(**(PLAIN | settings))), "item_transitions").collect()
    assert all(row.domain == "ab"[row.item_idx == 1] for row in rows)
    return {row.item_idx: [(s.item_idx, s.domain, pytest.approx(s.weight, rel=1e-6)) for s in row.successors] for row in rows}


def test_counts_of_what_comes_later(spark: SparkSession):
    # 0 → 1: twice; 0 → 2: at distances 3 and 1; 1 → 0: once; 1 → 2: once. An item is no successor of itself.
    assert found(spark) == {0: [(1, "b", 2.0), (2, "a", 2.0)], 1: [(0, "a", 1.0), (2, "a", 1.0)]}


def test_every_weight_by_hand(spark: SparkSession):
    decay, back, popular, source = 0.5, 0.25, 0.4, 0.2
    # Sums of distance ** -0.5 of earlier → later.
    forward = {(0, 1): 2.0, (0, 2): 1 + 3**-decay, (1, 0): 1.0, (1, 2): 2**-decay}
    events = {0: 3, 1: 2, 2: 1}
    expected = {}
    for item in events:
        for successor in events:
            weight = forward.get((item, successor), 0.0) + back * forward.get((successor, item), 0.0)
            if weight:
                expected[item, successor] = weight / events[successor] ** popular / events[item] ** source
    rows = found(spark, gap_decay=decay, backward=back, popularity_damping=popular, source_damping=source)
    assert {(item, s[0]): s[2] for item, successors in rows.items() for s in successors} == expected
    assert [s[0] for s in rows[2]] == [0, 1], "strongest first"


def test_pairs_further_apart_than_the_longest_gap_do_not_count(spark: SparkSession):
    assert found(spark, max_gap=1) == {0: [(1, "b", 2.0), (2, "a", 1.0)], 1: [(0, "a", 1.0)]}


def test_the_strongest_successors_are_kept_and_ties_go_to_the_smaller_index(spark: SparkSession):
    assert found(spark, successors=1) == {0: [(1, "b", 2.0)], 1: [(0, "a", 1.0)]}


def test_single_events_have_no_transition(spark: SparkSession):
    assert found(spark, {"u": [(0, "a")], "v": [(2, "a"), (2, "a")]}) == {}
