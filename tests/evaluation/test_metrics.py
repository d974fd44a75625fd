"""Metrics, by hand and against their definitions on full relevance vectors."""

from __future__ import annotations

import numpy as np
import pytest

from metarec_spark.evaluation.metrics import AT_K, METRICS, aggregate
from metarec_spark.evaluation.ranks import SCHEMA
from metarec_spark.model.ranking import ndcg


def pair(rank: int, candidates: int = 10, **fields: object) -> tuple:
    """A row of ranks."""
    defaults = {
        "split": "test",
        "domain": "books",
        "scorer": "model",
        "loss": 1.0,
        "all": True,
        "first_time": True,
        "repeat": False,
        "few_events": False,
        "long_user": False,
        "cold_user": False,
        "cold_item": False,
    }
    shown = {"user_id": "u", "target": 0, "history": [], "score": 0.0, "best": 0.0, "top": [0, 1, 2], "top_scores": []}
    row = defaults | shown | {"rank": rank, "model_rank": rank, "candidates": candidates} | fields
    return tuple(row[name] for name in SCHEMA.names)


def values(spark, pairs: list[tuple], cutoffs=(2, 5), catalogue=None) -> dict:
    """(segment, metric, k) → value."""
    found = aggregate(spark.createDataFrame(pairs, SCHEMA), catalogue or {"books": 10, "films": 4}, list(cutoffs)).collect()
    return {(row["segment"], row["metric"], row["k"]): row["value"] for row in found if row["domain"] == "books"}


def of_vector(rank: int, candidates: int, k: int) -> dict[str, float]:
    """The metrics of one list, from its vector of relevances and the definitions for any number of relevant items."""
    relevance = np.zeros(candidates)
    relevance[rank - 1] = 1.0
    discount = 1 / np.log2(np.arange(2, candidates + 2))
    top, ideal = relevance[:k], np.sort(relevance)[::-1][:k]
    precision, recall = top.sum() / k, top.sum() / relevance.sum()
    first = np.flatnonzero(top)
    ahead = [
        float(relevance[i] > relevance[j])
        for i in range(candidates)
        for j in range(i + 1, candidates)
        if relevance[i] != relevance[j]
    ]
    return {
        "ndcg": (top * discount[: len(top)]).sum() / (ideal * discount[: len(ideal)]).sum(),
        "mrr": 1 / (first[0] + 1) if len(first) else 0.0,
        "precision": precision,
        "recall": recall,
        "hit_rate": float(top.any()),
        "f1": 2 * precision * recall / (precision + recall) if recall else 0.0,
        "auc": np.mean(ahead),
    }


def test_metrics_by_hand(spark):
    found = values(spark, [pair(1), pair(3), pair(8)])
    half = 1 / np.log2(4)
    expected = {
        ("ndcg", 2): 1 / 3,
        ("ndcg", 5): (1 + half) / 3,
        ("mrr", 5): (1 + 1 / 3) / 3,
        ("hit_rate", 5): 2 / 3,
        ("recall", 2): 1 / 3,
    }
    expected |= {
        ("precision", 2): 1 / 6,
        ("f1", 5): 2 / 3 / 3,
        ("accuracy", 0): 1 / 3,
        ("auc", 0): (1 + 7 / 9 + 2 / 9) / 3,
        ("loss", 0): 1.0,
    }
    expected |= {("coverage", 2): 0.2, ("coverage", 5): 0.3}
    for key, value in expected.items():
        assert found["all", *key] == pytest.approx(value), key


def test_metrics_are_their_definitions_on_relevance_vectors(spark):
    random = np.random.default_rng(0)
    candidates = random.integers(6, 40, 60)
    ranks = [int(random.integers(1, n + 1)) for n in candidates]
    found = values(spark, [pair(rank, int(n)) for rank, n in zip(ranks, candidates, strict=True)], cutoffs=[1, 5, 6])
    for k in (1, 5, 6):
        expected = [of_vector(rank, n, k) for rank, n in zip(ranks, candidates, strict=True)]
        for name in expected[0]:
            assert found["all", name, 0 if name == "auc" else k] == pytest.approx(np.mean([e[name] for e in expected])), (name, k)


def test_segments_count_their_own_pairs_and_what_is_unknown_is_left_out(spark):
    pairs = [
        pair(1, few_events=True, loss=None),
        pair(2, cold_user=True, cold_item=True, loss=3.0),
        pair(9, loss=None),
        pair(1, 1, few_events=True, loss=None),
    ]
    pairs += [pair(4, domain="films", top=[7])]
    rows = (
        aggregate(spark.createDataFrame(pairs, SCHEMA), {"books": 10, "films": 4}, [5])
        .where("metric IN ('ndcg', 'loss', 'auc')")
        .collect()
    )
    found = {(row["domain"], row["segment"], row["metric"]): (row["value"], row["users"]) for row in rows}
    assert {key[:2]: value[1] for key, value in found.items()} == {
        ("books", "all"): 4, ("books", "few_events"): 2, ("books", "cold_user"): 1, ("books", "cold_item"): 1, ("films", "all"): 1,
        ("books", "first_time"): 4, ("films", "first_time"): 1,
    }  # fmt: skip
    assert found["books", "all", "loss"][0] == 3.0
    assert ("books", "few_events", "loss") not in found
    assert found["books", "few_events", "auc"][0] == 1.0  # of two pairs, one has no other candidate


def test_the_report_knows_every_metric_and_a_target_behind_all_candidates_beats_none(spark):
    rows = aggregate(spark.createDataFrame([pair(1), pair(21, 10)], SCHEMA), {"books": 10}, [5]).where("segment = 'all'")
    found = {row["metric"]: row["value"] for row in rows.collect()}
    assert found.keys() == set(METRICS) and found["auc"] == 0.5


def test_the_order_of_the_rows_changes_no_bit(spark):
    random = np.random.default_rng(0)
    pairs = [
        pair(int(rank), 10, loss=float(loss))
        for rank, loss in zip(random.integers(1, 11, 300), random.exponential(size=300), strict=True)
    ]
    first = values(spark, pairs)
    for _ in range(3):
        random.shuffle(pairs)
        assert values(spark, pairs) == first


def test_the_column_ndcg_is_the_ndcg_by_which_training_tunes(spark):
    ranks = np.arange(1, 31)
    rows = spark.createDataFrame([(int(rank),) for rank in ranks], "rank int").orderBy("rank")
    for cutoff in (1, 10, 100):
        column = [row[0] for row in rows.select(AT_K["ndcg"](rows["rank"], cutoff)).collect()]
        np.testing.assert_allclose(column, ndcg(ranks, cutoff), rtol=1e-12)
