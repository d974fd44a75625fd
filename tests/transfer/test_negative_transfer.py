"""The guard, on gains written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from metarec_spark.transfer.negative_transfer import judge, standard_error

PLAIN = {"untrained", "scratch"}


def pairs(mean: float, seeds: int = 2, spread: float = 0.1, count: int = 100, seed: int = 0) -> np.ndarray:
    """[seeds, count] gains about a mean; those of one ``seed`` have the same noise."""
    return mean + spread * np.random.default_rng(seed).standard_normal(count) + np.zeros((seeds, 1))


def test_a_transfer_that_is_better_on_every_pair_is_used():
    found = judge({"untrained": pairs(0.10), "scratch": pairs(0.12), "pooled": pairs(0.13)}, PLAIN, margin=1.0)
    assert (found.used, found.winner, found.plain, found.refused) == ("pooled", "pooled", "scratch", False)
    assert found.gain == pytest.approx(0.01)
    assert found.noise == pytest.approx(0.0, abs=1e-9)


def test_a_transfer_within_noise_is_refused_and_the_best_plain_model_used():
    found = judge(
        {"untrained": pairs(0.10, seed=1), "scratch": pairs(0.08), "frozen": pairs(0.1, seed=2) + 0.005}, PLAIN, margin=1.0
    )
    assert (found.used, found.winner, found.refused) == ("untrained", "frozen", True)
    assert "less than 1 standard errors: untrained is used" in found.reason


def test_a_transfer_within_noise_of_any_plain_model_is_refused():
    close, other = (of - of.mean() + mean for of, mean in ((pairs(0.0), 0.10), (pairs(0.0, seed=1), 0.099)))
    found = judge({"untrained": other, "scratch": close, "frozen": close + 0.005}, PLAIN, margin=1.0)
    assert (found.used, found.winner, found.plain) == ("scratch", "frozen", "untrained")
    assert "over untrained, less than 1 standard errors: scratch is used" in found.reason
    assert judge({"scratch": close, "frozen": close + 0.005}, PLAIN, margin=1.0).used == "frozen"


def test_a_plain_model_that_measures_best_is_no_refusal():
    found = judge({"untrained": pairs(0.1), "scratch": pairs(0.2), "frozen": pairs(0.2)}, PLAIN, margin=1.0)
    assert (found.used, found.refused, found.gain) == ("scratch", False, 0.0)


def test_the_standard_error_is_that_of_pairs_and_of_seeds():
    one, other = np.array([[0.0, 1.0], [0.2, 1.2]]), np.array([[0.0, 0.0], [0.0, 0.0]])
    over_pairs = np.var([0.1, 1.1], ddof=1) / 2
    over_seeds = np.var([0.5, 0.7], ddof=1) / 2
    assert standard_error(one, other) == pytest.approx(np.sqrt(over_pairs + over_seeds))


def test_one_pair_is_no_evidence():
    found = judge({"untrained": np.array([[0.0]]), "frozen": np.array([[1.0]])}, PLAIN, margin=1.0)
    assert found.refused
