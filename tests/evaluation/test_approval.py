"""Which models are approved, and what is said of platforms that are below the best baseline on the same pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metarec_spark.evaluation.approval import Headline, Headlines, best_baseline, judge, pooled


def headlines(**by_platform: tuple[float, float, float, float, int]) -> Headlines:
    """Platform → NDCG@10 of model, item neighbours and popularity, standard error of differences, and pairs."""
    return {
        (domain, scorer): Headline(ndcg, 0.0, pairs, model - ndcg, error)
        for domain, (model, neighbours, popularity, error, pairs) in by_platform.items()
        for scorer, ndcg in (("model", model), ("item_neighbours", neighbours), ("popularity", popularity))
    }


def test_a_model_above_every_baseline_is_approved():
    assert judge(headlines(books=(0.4, 0.3, 0.2, 0.01, 10))) == (
        "approved",
        "NDCG@10 0.4000 over all test pairs, not worse than popularity's 0.2000 (difference +0.2000 ± 0.0100); the best "
        "baseline's 0.3000 (difference +0.1000 ± 0.0100)",
        False,
    )


def test_a_platform_below_its_best_baseline_is_named_only_beyond_noise():
    within = judge(headlines(books=(0.29, 0.3, 0.2, 0.01, 10)))
    assert not within.weak and "below" not in within.reason
    beyond = judge(headlines(books=(0.28, 0.3, 0.2, 0.01, 10)))
    assert beyond.weak and beyond.status == "approved"
    assert beyond.reason.endswith("(difference -0.0200 ± 0.0100); below item_neighbours in books")


@pytest.mark.parametrize(
    ("model", "error", "pairs", "status"),
    [
        (0.2, 0.01, 10, "approved"),
        (0.19, 0.01, 10, "approved"),
        (0.18, 0.01, 10, "rejected"),
        (0.0, 0.0, 1, "approved"),  # a single pair says nothing
        (float("nan"), 0.01, 10, "rejected"),
    ],
)
def test_a_model_is_rejected_if_it_is_below_popularity_by_more_than_noise(model, error, pairs, status):
    decision = judge(headlines(books=(model, 0.1, 0.2, error, pairs)))
    assert decision.status == status
    rule = "no number that compares with" if math.isnan(model) else "worse by more than 1.645 standard errors than"
    assert (f", {rule} popularity's" in decision.reason) == (status == "rejected")


def test_platforms_count_by_their_pairs_and_weak_ones_are_named():
    good, bad = (0.4, 0.3, 0.2, 0.01), (0.1, 0.2, 0.05, 0.01)
    status, reason, _ = judge(headlines(books=(*good, 99), films=(*bad, 1)))
    assert status == "approved" and reason.endswith("; below item_neighbours in films")
    assert judge(headlines(books=(*good, 1), films=(0.04, 0.2, 0.08, 0.01, 99)))[0] == "rejected"


def test_each_platform_is_compared_with_its_own_best_baseline():
    found = headlines(books=(0.4, 0.3, 0.2, 0.01, 10), films=(0.4, 0.1, 0.3, 0.01, 10))
    assert [best_baseline(found, domain) for domain in ("books", "films")] == ["item_neighbours", "popularity"]
    assert "the best baseline's 0.3000 (difference +0.1000" in judge(found)[1]


def test_the_error_over_platforms_is_that_of_all_their_pairs_together():
    random = np.random.default_rng(0)
    parts = [random.normal(mean, 0.3, size) for mean, size in ((0.1, 40), (-0.2, 7), (0.0, 1))]
    rows = [
        Headline(0.0, 0.0, len(part), part.mean(), part.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else 0.0)
        for part in parts
    ]
    together = np.concatenate(parts)
    expected = together.mean(), together.std(ddof=1) / np.sqrt(len(together))
    assert pooled(rows) == pytest.approx(expected)
