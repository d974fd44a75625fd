"""Who is ranked, and ranks of targets, dense and sparse."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from metarec_spark.model.ranking import hide, local_indexes, ndcg, ranks, seen_local_indexes, select, sparse_ranks

EVEN = np.arange(2, 20, 2)


def pairs(found: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int]]:
    return list(zip(*(part.tolist() for part in found), strict=True))


def test_a_local_index_is_the_position_in_the_domain_and_other_items_have_none():
    assert local_indexes(EVEN, np.array([2, 18, 8, 0, 7, 99])).tolist() == [0, 8, 3, -1, -1, -1]
    assert local_indexes(np.array([5]), np.array([4, 5, 6])).tolist() == [-1, 0, -1]


def test_what_users_have_seen_is_found_row_by_row_in_the_domain_alone():
    assert pairs(seen_local_indexes(EVEN, np.array([4, 8, 1, 4, 19, 18]), np.array([3, 0, 2, 1]))) == [
        (0, 1),
        (0, 3),
        (2, 1),
        (3, 8),
    ]
    assert pairs(seen_local_indexes(EVEN, np.array([], int), np.array([0, 0]))) == []


def test_seen_items_are_hidden_and_ties_count_against_the_target():
    def rank(target: int, *seen: int) -> int:
        scores = hide(torch.tensor([[1.0, 0.9, 0.8, 0.5, 0.5]]), (np.zeros(len(seen), int), np.array(seen, int)))
        return int(ranks(scores, np.array([target]))[0])

    assert [rank(0), rank(2), rank(2, 0, 1), rank(3), rank(3, 0, 1), rank(4, 3)] == [1, 3, 1, 5, 3, 4]


def test_a_score_that_is_not_a_number_ranks_last():
    assert ranks(torch.tensor([[1.0, torch.nan, 0.5]]), np.array([1])).tolist() == [3]


def test_ndcg_by_hand():
    assert ndcg(np.array([1, 3, 10, 11])).tolist() == [1, 0.5, 1 / np.log2(11), 0]
    assert ndcg(np.array([2, 3]), cutoff=2).tolist() == [1 / np.log2(3), 0]


@given(arrays(np.float32, (4, 7), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5])), st.data())
def test_sparse_ranks_are_the_dense_ones_where_the_target_scores(scores, data):
    target = np.array([data.draw(st.integers(0, 6)) for _ in range(4)])
    drawn = [(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 6))) for _ in range(3)]
    drawn = [(row, place) for row, place in drawn if place != target[row]]
    seen = np.array([row for row, _ in drawn], int), np.array([place for _, place in drawn], int)
    found = sparse_ranks(sparse.csr_matrix(scores), target, seen)
    dense = ranks(hide(torch.from_numpy(scores.copy()), seen), target)
    scored = scores[np.arange(4), target] > 0
    np.testing.assert_array_equal(found[scored], dense[scored])
    assert (found[~scored] == 7).all()


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_the_largest_of_a_block_come_in_order_and_ties_by_their_places(seed, rows, n):
    scores = np.random.default_rng(seed).integers(-2, 3, (rows, 12)).astype(np.float32)
    index, score = select(torch.from_numpy(scores), n)
    expected = np.stack([np.lexsort((np.arange(12), -row))[:n] for row in scores])
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(score, np.take_along_axis(scores, expected, 1))
