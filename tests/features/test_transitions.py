"""Transition weights, by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from features.factories import sequence_rows
from pyspark.sql import SparkSession

from metarec_spark.config.sections import Transitions
from metarec_spark.features.transitions import transitions
from metarec_spark.model.transitions import TransitionParams, transition_weight
from metarec_spark.warehouse.contracts import conform
from metarec_spark.warehouse.storage import file_uri

# u: 0 → 1 → 0 → 2, v: 0 → 1. Events: item 0 three, item 1 two, item 2 one.
USERS = {"u": [(0, "a"), (1, "b"), (0, "a"), (2, "a")], "v": [(0, "a"), (1, "b")]}
PLAIN = {"gap_decay": 0.0, "backward": 0.0, "popularity_damping": 0.0, "source_damping": 0.0, "similarity": 0.0}
Tokens = dict[int, tuple[str, dict[str, float]]]


def made(spark: SparkSession, users: dict = USERS, tokens: Tokens | None = None, **settings: object) -> dict[int, list]:
    """Item → its successors; ``tokens`` are item → (domain, token → weight)."""
    rows = [(item, domain, list(bag), list(bag.values())) for item, (domain, bag) in (tokens or {}).items()]
    content = spark.createDataFrame(rows, "item_idx int, domain string, tokens array<string>, weights array<float>")
    folder = file_uri(Path(tempfile.mkdtemp()) / "items")
    frame = transitions(sequence_rows(spark, **users), content, Transitions(**(PLAIN | settings)), folder)
    found = conform(frame, "item_transitions").collect()
    assert all(row.domain == "ab"[row.item_idx == 1] for row in found)
    return {row.item_idx: row.successors for row in found}


def found(spark: SparkSession, users: dict = USERS, **settings: object) -> dict[int, list[tuple]]:
    rows = made(spark, users, **settings)
    return {item: [(s.item_idx, s.domain, pytest.approx(s.weight, rel=1e-6)) for s in row] for item, row in rows.items()}


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


def test_the_strongest_successors_of_each_domain_are_kept_and_ties_go_to_the_smaller_index(spark: SparkSession):
    assert found(spark, successors=1) == {0: [(1, "b", 2.0), (2, "a", 2.0)], 1: [(0, "a", 1.0)]}
    assert found(spark, {"u": [(0, "a"), (2, "a"), (3, "a")]}, successors=1)[0] == [(2, "a", 1.0)]


BAGS: Tokens = {0: ("a", {"x": 0.5, "y": 0.5, "z": 0.1}), 2: ("a", {"x": 0.5, "z": 0.25}), 1: ("b", {"y": 0.25, "z": 0.5})}


def test_similarity_is_the_product_of_shared_content_and_both_ways_the_same(spark: SparkSession):
    rows = made(spark, {"u": [(0, "a"), (2, "a")]}, BAGS, similarity=2.0)
    signals = {
        (item, s.item_idx): pytest.approx((s.forward, s.backward, s.similarity, s.weight))
        for item, of in rows.items()
        for s in of
    }
    alike = {(0, 2): 0.25 + 0.025, (0, 1): 0.125 + 0.05, (1, 2): 0.125}
    alike |= {(b, a): value for (a, b), value in alike.items()}
    forward, backward = {(0, 2): 1.0}, {(2, 0): 1.0}
    assert signals == {
        pair: (forward.get(pair, 0.0), backward.get(pair, 0.0), value, forward.get(pair, 0.0) + 2 * value)
        for pair, value in alike.items()
    }


def test_tokens_that_are_too_common_make_no_items_alike(spark: SparkSession):
    rows = made(spark, {"u": [(0, "a"), (2, "a")]}, BAGS, similarity=1.0, common_items=2)
    assert {(item, s.item_idx): round(s.similarity, 4) for item, of in rows.items() for s in of if s.similarity} == {
        (0, 2): 0.25, (2, 0): 0.25, (0, 1): 0.125, (1, 0): 0.125,
    }  # fmt: skip


def test_an_item_whose_events_come_in_many_batches_is_one_row(spark: SparkSession):
    users = {f"u{n}": [(0, "a"), (n, "a"), (0, "a"), (1, "b")] for n in range(2, 12)}
    expected = found(spark, users)
    assert len(expected) == 11, "all but the last of each sequence"
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 1)
    try:
        assert found(spark, users) == expected
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")


def test_single_events_have_no_transition(spark: SparkSession):
    assert found(spark, {"u": [(0, "a")], "v": [(2, "a"), (2, "a")]}) == {}


def test_many_successors_are_those_of_a_matrix_product(spark: SparkSession):
    draw, size, settings = np.random.default_rng(0), 60, {"backward": 0.4, "popularity_damping": 0.3, "similarity": 0.7}
    walks = [draw.integers(0, size, 20).tolist() for _ in range(40)]
    name = ["a" if item != 1 else "b" for item in range(size)]
    bags = {
        item: (name[item], {f"w{t}": float(draw.integers(1, 9)) / 8 for t in draw.choice(30, 4, False)}) for item in range(size)
    }
    rows = made(spark, {f"u{n}": [(i, name[i]) for i in walk] for n, walk in enumerate(walks)}, bags, max_gap=5, **settings)
    forward, events, token = np.zeros((size, size)), np.bincount(np.concatenate(walks), minlength=size), np.zeros((size, 30))
    for walk in walks:
        for first, later in ((i, j) for i in range(20) for j in range(i + 1, min(20, i + 6))):
            forward[walk[first], walk[later]] += walk[first] != walk[later]
    for item, (_, bag) in bags.items():
        for word, weight in bag.items():
            token[item, int(word[1:])] = weight
    alike = token @ token.T
    np.fill_diagonal(alike, 0)
    params = TransitionParams.from_settings(Transitions(**(PLAIN | settings)))  # the weight of g is the table's
    weight = transition_weight(forward, forward.T, alike, np.maximum(events, 1) ** -params.popularity_damping, params)
    assert (weight > 0).sum() > 1024, "more than there is room for at first"
    for item in range(size):
        got = {s.item_idx: (s.weight, s.forward, s.backward, s.similarity) for s in rows[item]}
        expected = {
            b: (weight[item, b], forward[item, b], forward[b, item], alike[item, b]) for b in np.flatnonzero(weight[item])
        }
        assert got == {b: pytest.approx(of, rel=1e-5) for b, of in expected.items()}
        assert [s.item_idx for s in rows[item]] == sorted(got, key=lambda b: (-got[b][0], b))
