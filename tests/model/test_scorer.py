"""Scores of all items of a domain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.factories import as_recommended, catalogue, contexts, saved

from metarec_spark.model import artifact
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.model.ensemble.stacking import Stacking
from metarec_spark.model.scorer import Scorer

USERS = [[3, 8, 1], [2], [4, 4, 4, 9]]


def drawn(kind: type) -> torch.nn.Module:
    torch.manual_seed(0)
    network = kind()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def scorer(folder, fusion=None, **fields) -> Scorer:
    return Scorer(artifact.load(saved(folder, catalogue(**fields), fusion)))


def test_popularity_is_the_training_events_of_the_domains_items(tmp_path):
    assert scorer(tmp_path, items=5).popularity(1).tolist() == [1.0, 3.0]


def test_base_is_the_scaled_cosine(tmp_path):
    made, user = scorer(tmp_path), contexts(USERS)
    direct = (
        made.artifact.model.user_vectors(made.artifact.model.encode(user), 1).detach().numpy()
        @ made.artifact.item_vectors[1::2].T
    )
    np.testing.assert_allclose(made.encoder_scores(made.hidden(user), 1), 16 * direct, atol=1e-4)
    assert np.abs(direct).max() <= 1 + 1e-6


@pytest.mark.parametrize(
    "fusion", [Fusion(transitions=2.0, sharpness=3.0), Fusion(encoder=0.0, transitions=1.0), Fusion(transitions=0.0)]
)
def test_h_is_the_weighted_base_plus_the_weighted_logarithm_of_what_is_lent(tmp_path, fusion):
    follows = np.random.default_rng(0).random((20, 20))
    made, user = scorer(tmp_path, fusion, transitions=follows), contexts(USERS)
    base, lent = made.encoder_scores(made.hidden(user), 0), made.transition_scores(user, 0).numpy()
    expected = fusion.encoder * base.numpy() + fusion.transitions * np.log1p(fusion.sharpness * lent)
    np.testing.assert_allclose(made.ensemble_scores(base, user, 0), expected, rtol=1e-5, atol=1e-5)
    # And as recommend computes it.
    np.testing.assert_allclose(as_recommended(made, user, made.hidden(user), 0), expected, rtol=1e-4, atol=1e-4)


def test_an_empty_sequence_has_a_finite_state_and_nothing_is_lent_to_it(tmp_path):
    made = scorer(tmp_path, transitions=np.ones((20, 20)))
    for user in (contexts([[], [2]], width=1), contexts([[]], width=1)):
        assert torch.isfinite(made.hidden(user)).all()
        assert made.transition_scores(user, 0)[0].sum() == 0


@pytest.mark.parametrize("how", ["fused", "stacked", "weighed", "given vectors"])
def test_what_a_user_gets_does_not_depend_on_the_others_to_the_last_bit(tmp_path, how):
    random = np.random.default_rng(0)
    users = [random.integers(0, 20, random.integers(0, 7)).tolist() for _ in range(700)]
    vectors = random.standard_normal((20, 5)) if how == "given vectors" else None
    known = catalogue(transitions=random.random((20, 20)), vectors=vectors)
    network = {"stacked": {"stacking": drawn(Stacking)}, "weighed": {"pair_ranker": drawn(PairRanker)}}.get(how, {})
    folder = saved(tmp_path, known, **network, dim=64, heads=2, adapter=8)

    def found(of: list[list[int]]) -> list[np.ndarray]:
        made, given = Scorer(artifact.load(folder)), contexts(of, width=6)
        torch.manual_seed(0)
        torch.nn.init.normal_(made.artifact.model.adapter_out)
        hidden = made.hidden(given)
        return [hidden.numpy(), made.user_vectors(given, hidden, 0).numpy(), made.additions(given, hidden, 0).toarray()]

    of_all = found(users)
    for some in (random.permutation(700)[:300], np.arange(1), np.array([3, 5]), np.arange(700)[::-1].copy()):
        for one, all_of_them in zip(found([users[row] for row in some]), of_all, strict=True):
            np.testing.assert_array_equal(one, all_of_them[some])
