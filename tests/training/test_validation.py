"""Ranks of held-out events, dense and sparse."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from model.factories import contexts
from scipy import sparse

from metarec_spark.training.validation import gain, hidden_items, ranks, sparse_ranks

NONE = np.array([], int), np.array([], int)


def test_ranks_leave_out_the_context_and_ties_count_against_the_target():
    scores = torch.tensor([[1.0, 0.9, 0.8, 0.5, 0.5]])

    def rank(target: int, *hidden: int) -> int:
        return int(ranks(scores.clone(), np.array([target]), (np.zeros(len(hidden), int), np.array(hidden, int)))[0])

    assert [rank(0), rank(2), rank(2, 0, 1), rank(3, 0, 1), rank(2, 2)] == [1, 3, 1, 3, 3]


def test_gain_by_hand():
    assert gain(np.array([1, 3, 10, 11])).tolist() == [1, 0.5, 1 / np.log2(11), 0]


def test_hidden_items_are_the_contexts_places_in_the_domain():
    row, place = hidden_items(contexts([[3, 8, 1], [4], [19]]), np.arange(0, 20, 2))
    assert list(zip(row.tolist(), place.tolist(), strict=True)) == [(0, 4), (1, 2)]


@given(arrays(np.float32, (4, 7), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5])), st.data())
def test_sparse_ranks_are_the_dense_ones_where_the_target_scores(scores, data):
    target = np.array([data.draw(st.integers(0, 6)) for _ in range(4)])
    hide = sorted({(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 6))) for _ in range(3)})
    hidden = np.array([row for row, _ in hide]), np.array([place for _, place in hide])
    dense = ranks(torch.from_numpy(scores.copy()), target, hidden)
    found = sparse_ranks(sparse.csr_matrix(scores), target, hidden)
    scored = scores[np.arange(4), target] > 0
    np.testing.assert_array_equal(found[scored], dense[scored])
    assert (found[~scored] == 7).all()
