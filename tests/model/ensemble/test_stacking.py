"""What g links, taken apart and put together again; and scores of a stacking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.factories import PLAIN, as_recommended, catalogue, contexts, saved

from metarec_spark.model import artifact, transitions
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.stacking import LinkFeatures, Stacking
from metarec_spark.model.scorer import Scorer
from metarec_spark.model.transitions import TransitionParams

PARAMS, FUSION = TransitionParams(**PLAIN | {"history_decay": 0.5}), Fusion(transitions=2.0, sharpness=3.0)
USERS = [[5, 3, 1, 2], [1], [4, 4, 6], []]


def drawn() -> Stacking:
    torch.manual_seed(0)
    stacking = Stacking()
    for parameter in stacking.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return stacking.eval()


def walked(share: float = 0.2):
    follows = np.random.default_rng(0).random((20, 20)) * (np.random.default_rng(1).random((20, 20)) < share)
    return catalogue(transitions=follows)


def test_sums_of_a_users_events_by_hand():
    follows = np.zeros((20, 20))
    follows[2, 6], follows[4, 6] = 5.0, 1.0
    of = catalogue(transitions=follows, tokens=[])
    linked = LinkFeatures.from_catalogue(of, 0, PARAMS, FUSION)
    row, place, sums = linked.features(contexts([[2, 4], [], [4, 2]]))
    forward = transitions.weights(of, 0, PARAMS).toarray()[:, 3]
    expected = [forward[4] + decay * forward[2] for decay in (0.0, 0.5, 0.9)]
    (found,) = sums[(row == 0) & (place == 3)].numpy()
    np.testing.assert_allclose(found[[0, 3, 6]], expected, rtol=1e-6)
    assert found[9] == pytest.approx(0.2), "a tenth of the two events that link it"
    assert not (row == 1).any(), "a user without events is linked to nothing"
    assert linked.popularity[3, 0] == pytest.approx(np.log1p(of.events[6]))


def test_the_sums_give_g_and_its_part_of_the_plain_fusion():
    of, users = walked(), contexts(USERS)
    for domain in (0, 1):
        linked = LinkFeatures.from_catalogue(of, domain, PARAMS, FUSION)
        row, place, sums = linked.features(users)
        dense = torch.zeros(len(USERS), 10).index_put((row, place), linked.phi_part(sums))
        g = transitions.scores(users, domain, transitions.weights(of, domain, PARAMS), PARAMS).toarray()
        torch.testing.assert_close(dense, FUSION.phi_part(torch.from_numpy(g)), rtol=1e-5, atol=1e-6)


def test_a_stacking_that_learnt_nothing_is_the_plain_fusion(tmp_path):
    of, users = walked(), contexts(USERS)
    plain, stacked = (Scorer(artifact.load(saved(tmp_path / str(s), of, stacking=s))) for s in (None, Stacking()))
    hidden = plain.hidden(users)
    for domain in (0, 1):
        scores = [scorer.ensemble_scores(scorer.encoder_scores(hidden, domain), users, domain) for scorer in (plain, stacked)]
        torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("base", [0.0, 1.5])
def test_a_saved_stacking_gives_the_same_lists_by_sparse_additions_as_by_dense_scores(tmp_path, monkeypatch, base):
    monkeypatch.setattr("metarec_spark.model.ensemble.item_links.BLOCK_LINKS", 10)
    scorer = Scorer(artifact.load(saved(tmp_path, walked(), Fusion(encoder=base, transitions=0.7), stacking=drawn())))
    users = contexts(USERS)
    hidden = scorer.hidden(users)
    for domain in (0, 1):
        fused = scorer.ensemble_scores(scorer.encoder_scores(hidden, domain), users, domain)
        torch.testing.assert_close(as_recommended(scorer, users, hidden, domain), fused, rtol=1e-5, atol=1e-5)
        assert not fused.requires_grad
        assert (fused[3] - fused[3].mean()).abs().max() > 0.01, "popularity tells items apart where nothing is linked"


def test_a_users_scores_do_not_depend_on_who_shares_the_block(tmp_path):
    scorer = Scorer(artifact.load(saved(tmp_path, walked(0.9), stacking=drawn())))
    users = [[int(item) for item in np.random.default_rng(user).permutation(20)[:6]] for user in range(70)]
    hidden = scorer.hidden(contexts(users))
    together = scorer.additions(contexts(users), hidden, 0).toarray()
    for user in (0, 31, 32, 69):
        alone = scorer.additions(contexts(users[user : user + 1]), hidden[user : user + 1], 0).toarray()
        np.testing.assert_array_equal(alone[0], together[user])
