"""The negative-transfer test, on NDCG values written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from metarec_spark.transfer.negative_transfer import SEED_RANGE, Decision, decide, standard_error

BASELINES = {"heuristic", "from_scratch"}


def pairs(mean: float, seeds: int = 2, spread: float = 0.1, count: int = 100, seed: int = 0) -> np.ndarray:
    """[seeds, count] values about a mean; those of one ``seed`` have the same noise."""
    return mean + spread * np.random.default_rng(seed).standard_normal(count) + np.zeros((seeds, 1))


def test_a_transfer_that_is_better_on_every_pair_is_used():
    decision = decide({"heuristic": pairs(0.10), "from_scratch": pairs(0.12), "joint": pairs(0.13)}, BASELINES, margin=1.0)
    assert (decision.used, decision.winner, decision.baseline, decision.rejected) == ("joint", "joint", "from_scratch", False)
    assert decision.lead == pytest.approx(0.01)
    assert decision.error == pytest.approx(0.0, abs=1e-9)


def test_a_transfer_within_noise_is_rejected_and_the_best_baseline_used():
    ndcg = {"heuristic": pairs(0.10, seed=1), "from_scratch": pairs(0.08), "frozen_encoder": pairs(0.1, seed=2) + 0.005}
    decision = decide(ndcg, BASELINES, margin=1.0)
    assert (decision.used, decision.winner, decision.rejected) == ("heuristic", "frozen_encoder", True)
    assert "less than 1 standard errors: heuristic is used" in decision.reason


def test_a_transfer_within_noise_of_any_baseline_is_rejected():
    near, far = (values - values.mean() + mean for values, mean in ((pairs(0.0), 0.10), (pairs(0.0, seed=1), 0.099)))
    decision = decide({"heuristic": far, "from_scratch": near, "frozen_encoder": near + 0.005}, BASELINES, margin=1.0)
    assert (decision.used, decision.winner, decision.baseline) == ("from_scratch", "frozen_encoder", "heuristic")
    assert "over heuristic, less than 1 standard errors: from_scratch is used" in decision.reason
    assert decide({"from_scratch": near, "frozen_encoder": near + 0.005}, BASELINES, margin=1.0).used == "frozen_encoder"


def test_a_baseline_that_measures_best_rejects_nothing():
    ndcg = {"heuristic": pairs(0.1), "from_scratch": pairs(0.2), "frozen_encoder": pairs(0.2)}
    decision = decide(ndcg, BASELINES, margin=1.0)
    assert (decision.used, decision.rejected, decision.close, decision.lead) == ("from_scratch", False, False, 0.0)


def test_the_standard_error_is_that_of_pairs_and_of_seeds():
    first, second = np.array([[0.0, 1.0], [0.2, 1.2]]), np.array([[0.0, 0.0], [0.0, 0.0]])
    over_pairs = np.var([0.1, 1.1], ddof=1) / 2
    over_seeds = np.var([0.5, 0.7], ddof=1) / 2
    assert standard_error(first, second) == pytest.approx(np.sqrt(over_pairs + over_seeds))


def test_one_pair_is_no_evidence():
    decision = decide({"heuristic": np.array([[0.0]]), "frozen_encoder": np.array([[1.0]])}, BASELINES, margin=1.0)
    assert decision.rejected and not decision.close


@pytest.mark.parametrize(("errors", "close"), [(0.5, False), (0.7, True), (1.6, True), (2.6, True), (2.7, False)])
def test_a_decision_is_close_if_the_gain_is_near_the_margin(errors, close):
    assert SEED_RANGE == 1.0
    decision = Decision("heuristic", "joint", "heuristic", lead=errors * 0.01, error=0.01, margin=1.645)
    assert decision.close is close
