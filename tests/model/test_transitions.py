"""g: what is lent, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.factories import PLAIN, catalogue, contexts

from metarec_spark.model import transitions
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.transitions import TransitionParams


def params(**fields: float) -> TransitionParams:
    return TransitionParams(**(PLAIN | fields))


def with_successors(of: Catalogue, *entries: tuple[int, int, float, float, float]) -> Catalogue:
    """The catalogue with (item, successor, forward, backward, similarity) entries."""
    columns = [np.array(column) for column in zip(*entries, strict=True)]
    return Catalogue(
        of.domain, of.events, of.tokens, of.weights, of.token_hashes, of.vectors, Successors.from_pairs(of.size, *columns)
    )


def test_the_weight_joins_the_three_signals():
    # catalogue(): item i has i events; domain 0 holds the even items.
    of = with_successors(catalogue(), (9, 4, 3.0, 2.0, 0.5), (9, 7, 100.0, 0.0, 0.0), (0, 16, 1.0, 0.0, 0.0))
    lent = transitions.weights(of, 0, params(backward=0.5, popularity_damping=0.5, source_damping=1.0, similarity=2.0)).toarray()
    assert lent.shape == (20, 10)
    assert lent[9, 2] == pytest.approx((3 + 0.5 * 2) / 4**0.5 / 9 + 2 * 0.5)
    assert lent[0, 8] == pytest.approx(1 / 4)  # an item without events counts as one with one
    assert np.count_nonzero(lent) == 2, "the other domain's successor is not lent to this one"


def test_newer_events_vote_more_and_older_than_the_history_not_at_all():
    follows = np.zeros((20, 20))
    follows[1, 0], follows[1, 3] = 8.0, 4.0
    follows[2, 0], follows[2, 4] = 1.0, 2.0
    follows[5, 0] = 100.0
    follows[3, 0] = 16.0
    of, users = catalogue(transitions=follows), contexts([[5, 3, 1, 2], [1], []], width=4)
    even, odd = (transitions.scores(users, d, transitions.weights(of, d, params()), params()).toarray() for d in (0, 1))
    expected = np.zeros((3, 10), np.float32)
    expected[0, 0], expected[0, 2] = 1.0 + 8.0 + 16.0 / 2, 2.0  # history 2, decay 0.5, in the domain and elsewhere
    expected[1, 0] = 8.0
    np.testing.assert_array_equal(even, expected)
    np.testing.assert_array_equal(odd[:, 1], [4.0, 4.0, 0.0])
    assert odd.sum() == 8.0


@given(
    st.lists(st.lists(st.integers(0, 19), max_size=6), min_size=1, max_size=8),
    st.integers(1, 6),
    st.floats(0.1, 1.0),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_scores_equal_a_loop_over_events(sequences, history, decay, across):
    follows = np.random.default_rng(0).random((20, 20)) * (np.random.default_rng(1).random((20, 20)) < 0.3)
    of, how = catalogue(transitions=follows), params(history=history, history_decay=decay, across_domains=across)
    found = transitions.scores(contexts(sequences, width=6), 0, transitions.weights(of, 0, how), how).toarray()
    for row, sequence in enumerate(sequences):
        home, away = ([item for item in sequence[::-1] if item % 2 == odd] for odd in (0, 1))
        expected = np.zeros(10)
        for share, items in ((1.0, home), (across if home else 1.0, away)):
            expected += sum((share * decay**k * follows[item, ::2] for k, item in enumerate(items[:history])), np.zeros(10))
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-6)
