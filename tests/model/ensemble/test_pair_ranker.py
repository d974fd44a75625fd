"""The weigher's signals, by hand, and its scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.factories import as_recommended, catalogue, contexts, saved
from scipy import sparse

from metarec_spark.model import artifact
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.pair_ranker import (
    DECAYS,
    POPULARITIES,
    SIGNALS,
    PairRanker,
    PairSignals,
    content_similarity,
    largest_entries,
)
from metarec_spark.model.scorer import Scorer

# Items 0 and 4 (books) and 1 (films) share a rare token; 40 of 120 items share a usual one.
TOKENS = [(0, 7, 0.6), (4, 7, 0.5), (1, 7, 0.8)] + [(item, 8, 0.1) for item in range(40)]


def dense(signals: PairSignals) -> np.ndarray:
    """[S, I, D]."""
    links = signals.links
    found = np.zeros((links.signals.shape[1], len(links.indptr) - 1, links.size))
    found[:, np.repeat(np.arange(found.shape[1]), np.diff(links.indptr)), links.target] = links.signals.T
    return found


def drawn(seed: int = 0) -> PairRanker:
    torch.manual_seed(seed)
    pair_ranker = PairRanker()
    torch.nn.init.normal_(pair_ranker.out.weight)
    return pair_ranker.eval()


def test_likeness_is_kept_apart_by_how_rare_the_shared_token_is():
    rare, usual, frequent = (of.toarray() for of in content_similarity(catalogue(120, tokens=TOKENS), 0).bands)
    assert rare.shape == (120, 60)
    assert rare[0, 2] == rare[4, 0] / 1.0 == pytest.approx(0.6 * 0.5)
    assert rare[1, 0] == pytest.approx(0.8 * 0.6), "an item of another domain is like those of this one"
    assert (rare[0, 0], rare[6, 2], np.count_nonzero(frequent)) == (0.0, 0.0, 0), "no item is like itself"
    assert usual[6, 2] == pytest.approx(0.01)


def test_signals_and_two_hops_by_hand():
    follows = np.zeros((120, 120))
    follows[2, 4] = 3.0  # 4 follows 2, and 0 is like 4
    of = catalogue(120, tokens=TOKENS, transitions=follows)
    signals = PairSignals.from_catalogue(of, 0)
    damped = 3.0 * 2**-0.1 * 4**-0.3
    named = dense(signals)
    assert len(named) == SIGNALS
    assert named[0][2, 2] == pytest.approx(damped)
    assert named[1][4, 1] == pytest.approx(3.0 * 4**-0.1 * 2**-0.3), "what precedes, the other way round"
    near = content_similarity(of, 0).nearest.toarray()
    assert named[5][2, 0] == pytest.approx(damped * near[4, 0]), "what is like the item that follows"
    assert signals.popularity.shape == (60, POPULARITIES)
    assert signals.popularity[2, 0] == pytest.approx(np.log1p(4))


def test_features_sum_the_signals_of_a_users_events_with_each_decay():
    follows = np.zeros((20, 20))
    follows[2, 6], follows[4, 6] = 5.0, 1.0
    of = catalogue(transitions=follows, tokens=[])
    signals = PairSignals.from_catalogue(of, 0)
    row, place, features = signals.features(contexts([[2, 4], []]), 0)
    (found,) = features[(row == 0) & (place == 3)].numpy()
    forward = dense(signals)[0]
    expected = [*(forward[4, 3] + decay * forward[2, 3] for decay in DECAYS), 0.0]
    np.testing.assert_allclose(found.reshape(-1, SIGNALS)[:, 0], expected, rtol=1e-6)
    assert not (row == 1).any(), "a user without events is linked to nothing"


def test_what_is_said_by_events_elsewhere_is_summed_apart():
    follows = np.zeros((20, 20))
    follows[1, 6], follows[3, 6], follows[4, 6] = 5.0, 2.0, 1.0
    signals = PairSignals.from_catalogue(catalogue(transitions=follows, tokens=[]), 0)
    row, place, features = signals.features(contexts([[1, 4, 3], [3]]), 0)
    found = features.numpy().reshape(len(row), -1, SIGNALS)[place == 3, :, 0]
    forward = dense(signals)[0][:, 3]
    np.testing.assert_allclose(found[0], [*[forward[4]] * len(DECAYS), forward[3] + DECAYS[-1] * forward[1]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [*[0.0] * len(DECAYS), forward[3]], rtol=1e-6)


def test_items_that_nothing_links_get_the_score_of_their_popularity():
    follows = np.zeros((20, 20))
    follows[2, 6] = 5.0
    of, pair_ranker = catalogue(transitions=follows, tokens=[]), drawn()
    signals = PairSignals.from_catalogue(of, 0)
    with torch.no_grad():
        scores, everywhere = pair_ranker.scores(signals, contexts([[2], [8]]), 0), pair_ranker.item_bias(signals)
    np.testing.assert_array_equal(scores[1], everywhere)
    assert (scores[0] != everywhere).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("base", [0.0, 1.5])
def test_a_saved_weigher_gives_the_same_lists_by_sparse_additions_as_by_dense_scores(tmp_path, base):
    follows = np.random.default_rng(0).random((20, 20)) * (np.random.default_rng(1).random((20, 20)) < 0.2)
    saved(tmp_path, catalogue(transitions=follows), Fusion(encoder=base, transitions=0.7), pair_ranker=drawn())
    scorer = Scorer(artifact.load(tmp_path))
    users = contexts([[5, 3, 1, 2], [1], [4, 4, 6]])
    hidden = scorer.hidden(users)
    for domain in (0, 1):
        fused = scorer.ensemble_scores(scorer.encoder_scores(hidden, domain), users, domain)
        torch.testing.assert_close(as_recommended(scorer, users, hidden, domain), fused, rtol=1e-5, atol=1e-5)


def test_the_strongest_entries_of_a_row_stay_and_ties_go_to_the_smaller_column():
    matrix = np.array([[3.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 0.0]])
    np.testing.assert_array_equal(largest_entries(sparse.csr_matrix(matrix), 2).toarray(), [[3, 0, 3, 0], [0, 0, 2, 0]])


def test_users_are_taken_in_blocks_that_fit(monkeypatch):
    follows = np.zeros((20, 20))
    follows[2, [4, 6, 8]] = 1.0
    links = PairSignals.from_catalogue(catalogue(transitions=follows, tokens=[]), 0).links
    monkeypatch.setattr("metarec_spark.model.ensemble.item_links.BLOCK_LINKS", 7)
    assert [rows.tolist() for rows in links.blocks(contexts([[2], [2], [2], [1], [2, 2, 2]]))] == [[0, 1], [2, 3], [4]]


def test_a_users_scores_do_not_depend_on_who_shares_the_block(monkeypatch):
    follows = np.random.default_rng(0).random((20, 20)) * (np.random.default_rng(1).random((20, 20)) < 0.2)
    signals, users, pair_ranker = (
        PairSignals.from_catalogue(catalogue(transitions=follows), 0),
        [[5, 3, 1, 2], [1], [4, 4, 6], []],
        drawn(),
    )
    monkeypatch.setattr("metarec_spark.model.ensemble.item_links.BLOCK_LINKS", 10)
    with torch.no_grad():
        together = pair_ranker.scores(signals, contexts(users), 0)
        alone = torch.cat([pair_ranker.scores(signals, contexts([user]), 0) for user in users])
    assert torch.equal(together, alone)
