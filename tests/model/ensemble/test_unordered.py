"""Signals that do not read the order of events, as terms of h."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.factories import as_recommended, catalogue, contexts, saved
from scipy import sparse

from metarec_spark.model import artifact
from metarec_spark.model.baselines import als_half_step, als_solution, ease
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.unordered import UnorderedSignals, UnorderedWeights, history
from metarec_spark.model.repeats import RepeatParams
from metarec_spark.model.scorer import Scorer

EVEN = np.arange(0, 20, 2)
USERS = [[2, 4, 2, 1], [3, 8], [6, 0, 6], [18]]


def matrix(seed: int = 0) -> sparse.csr_matrix:
    """Forty users of ten items."""
    return sparse.csr_matrix((np.random.default_rng(seed).random((40, 10)) < 0.3).astype(np.float32))


def scorer(folder, weights: UnorderedWeights, **more) -> Scorer:
    signals = [UnorderedSignals.fit(matrix(seed)) for seed in (0, 1)]
    return Scorer(artifact.load(saved(folder, unordered=weights, signals=signals, **more)))


def scores(made: Scorer, users) -> np.ndarray:
    return made.ensemble_scores(made.encoder_scores(made.hidden(users), 0), users, 0).numpy()


def test_a_history_is_the_different_items_of_the_domain():
    found = history(contexts(USERS), 0, EVEN).toarray()
    assert [np.flatnonzero(row).tolist() for row in found] == [[1, 2], [4], [0, 3], [9]] and found.max() == 1


def test_item_weights_are_those_of_ease_and_users_factors_solve_the_least_squares():
    signals, users = UnorderedSignals.fit(matrix()), history(contexts(USERS), 0, EVEN)
    np.testing.assert_allclose(signals.neighbours.toarray(), ease(matrix(), 100.0), rtol=1e-5)
    exact = als_solution(users, signals.factors)
    near = als_half_step(users, signals.factors)
    for _ in range(20):
        near = als_half_step(users, signals.factors, near)
    np.testing.assert_allclose(exact, near, atol=1e-4)
    alone = als_solution(users[[2]], signals.factors)
    assert (exact[2] == alone[0]).all(), "to the last bit: a user's lists do not depend on who is scored with the user"


@pytest.mark.parametrize("name", UnorderedWeights.model_fields)
def test_a_term_of_h_is_its_weight_times_its_signal(tmp_path, name):
    users, weights = contexts(USERS), UnorderedWeights(**{name: 3.0})
    none = scores(scorer(tmp_path / "none", UnorderedWeights()), users)
    made = scorer(tmp_path / "some", weights)
    signals, own = UnorderedSignals.fit(matrix()), history(users, 0, EVEN)
    expected = {
        "neighbours": (own @ signals.neighbours).toarray(),
        "factors": als_solution(own, signals.factors) @ signals.factors.T,
        "popularity": np.broadcast_to(np.log1p(EVEN), (4, 10)),
    }[name]
    np.testing.assert_allclose(scores(made, users) - none, 3 * expected, atol=1e-4)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("fusion", [Fusion(), Fusion(encoder=0.0, transitions=0.0)], ids=["fused", "terms alone"])
def test_lists_have_all_terms(tmp_path, fusion):
    weights = UnorderedWeights(neighbours=5.0, factors=4.0, popularity=0.5)
    made, users = scorer(tmp_path, weights, fusion=fusion, repeats=RepeatParams(weight=2.0)), contexts(USERS)
    np.testing.assert_allclose(as_recommended(made, users, made.hidden(users), 0), scores(made, users), rtol=1e-4, atol=1e-4)


def test_new_items_have_no_signals(tmp_path):
    made = scorer(tmp_path, UnorderedWeights(neighbours=5.0, factors=4.0))
    extended = Scorer(made.artifact.extended(catalogue(items=24)))
    users, with_new = contexts([[2, 4]]), contexts([[2, 22, 4]])
    terms = extended.artifact.terms[0]
    added = terms.added(torch.zeros(1, 12), users)
    np.testing.assert_allclose(added[:, :10], made.artifact.terms[0].added(torch.zeros(1, 10), users), rtol=1e-5)
    assert (added[:, 10:] == 0).all() and (terms.added(torch.zeros(1, 12), with_new) == added).all()
