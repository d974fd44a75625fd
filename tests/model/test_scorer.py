"""Scores of all items of a domain."""

from __future__ import annotations

import numpy as np
import torch
from model.factories import catalogue, contexts, saved

from metarec_spark.model import bundle
from metarec_spark.model.scorer import Scorer


def scorer(folder, **fields) -> Scorer:
    return Scorer(bundle.load(saved(folder, catalogue(**fields))))


def test_newer_events_vote_more_and_older_than_the_history_not_at_all(tmp_path):
    follows = np.zeros((20, 20))
    follows[1, 0], follows[1, 3] = 8.0, 4.0
    follows[2, 0], follows[2, 4] = 1.0, 2.0
    follows[5, 0] = 100.0
    made = scorer(tmp_path, transitions=follows)  # history 2, decay 0.5
    even, odd = (made.transitions(contexts([[5, 1, 2], [1], []], width=4), domain) for domain in (0, 1))
    expected = np.zeros((3, 10), np.float32)
    expected[0, 0], expected[0, 2] = 1.0 + 8.0 / 2, 2.0
    expected[1, 0] = 8.0
    np.testing.assert_array_equal(even, expected)
    np.testing.assert_array_equal(odd[:, 1], [2.0, 4.0, 0.0])
    assert odd.sum() == 6.0


def test_popularity_is_the_training_events_of_the_domains_items(tmp_path):
    assert scorer(tmp_path, items=5).popularity(1).tolist() == [1.0, 3.0]


def test_user_vector_times_item_vectors_is_the_cosine(tmp_path):
    made = scorer(tmp_path)
    user = contexts([[3, 8, 1], [2], [4, 4, 4, 9]])
    scores = made.user_vectors(made.hidden(user, block=2), 1) @ made.vectors[1].T
    direct = made.bundle.model.encode(user, torch.ones(3, dtype=torch.int64)).detach().numpy() @ made.bundle.item_vectors[1::2].T
    np.testing.assert_allclose(scores, direct, atol=1e-5)
    assert np.abs(scores).max() <= 1 + 1e-6


def test_an_empty_sequence_has_a_finite_state(tmp_path):
    assert torch.isfinite(scorer(tmp_path).hidden(contexts([[], [2]], width=1))).all()
