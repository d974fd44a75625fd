"""The exact top-N, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_spark.scoring import topn
from metarec_spark.scoring.topn import top_n

NONE = np.empty(0, np.int64)


def brute_force(users, items, seen, n) -> np.ndarray:
    """Indexes by (float64 score descending, index ascending), seen left out, padded with -1."""
    scores = users.astype(np.float64) @ items.astype(np.float64).T
    result = np.full((len(users), n), -1)
    for row, hidden in enumerate(seen):
        order = [i for i in np.lexsort((np.arange(len(items)), -scores[row])) if i not in set(hidden.tolist())][:n]
        result[row, : len(order)] = order
    return result


def check(users, items, seen=None, n=3):
    users, items = np.asarray(users, np.float32), np.asarray(items, np.float32)
    seen = [NONE] * len(users) if seen is None else [np.asarray(hidden, np.int64) for hidden in seen]
    index, score = top_n(users, items, seen, n)
    np.testing.assert_array_equal(index, brute_force(users, items, seen, n))
    filled = index >= 0
    assert (score[~filled] == -np.inf).all()
    expected = np.einsum("ud,und->un", users.astype(np.float64), items.astype(np.float64)[index])
    np.testing.assert_allclose(score[filled], expected[filled], rtol=1e-5, atol=1e-5)
    assert index.dtype == np.int64 and score.dtype == np.float32
    return index


@st.composite
def problems(draw):
    """Small whole numbers, whose products are exact in float32, so that ties are many and real."""
    users, size, dim = draw(st.integers(0, 5)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = [random.integers(-2, 3, (rows, dim)) for rows in (users, size)]
    seen = [random.permutation(size)[: random.integers(0, size + 1)] for _ in range(users)]
    return *values, seen, draw(st.integers(1, 15))


@given(problems())
@settings(max_examples=200, deadline=None)
def test_it_is_the_full_sort(problem):
    check(*problem)


def test_random_vectors_of_many_users_in_several_blocks(monkeypatch):
    monkeypatch.setattr(topn, "MOST_ROWS", 16)
    random = np.random.default_rng(0)
    seen = [random.permutation(200)[:20] for _ in range(50)]
    check(random.standard_normal((50, 8)), random.standard_normal((200, 8)), seen, n=25)


@pytest.mark.parametrize("n", [1, 3, 10, 99])
def test_ties_go_to_the_smaller_index(n):
    assert check([[1.0]], [[1.0]] * 10, n=n)[0, :n].tolist() == (list(range(10)) + [-1] * 99)[:n]
    assert check([[0.0, 0.0]], np.eye(2), n=1).tolist() == [[0]]
    check([[1.0]], [[2.0], [1.0], [2.0], [1.0], [1.0]], n=n)


def test_negative_scores_are_ranked_and_not_taken_for_missing():
    assert check([[-1.0]], [[3.0], [1.0], [2.0]], n=3).tolist() == [[1, 2, 0]]


def test_seen_items_are_left_out_even_where_nothing_remains():
    assert check([[1.0], [1.0]], [[3.0], [2.0], [1.0]], seen=[[0, 1, 2], [1]], n=2).tolist() == [[-1, -1], [0, 2]]


def test_one_item_and_no_item():
    assert check([[1.0]], [[1.0]], n=2).tolist() == [[0, -1]]
    index, score = top_n(np.ones((1, 1), np.float32), np.empty((0, 1), np.float32), [NONE], 2)
    assert (index.tolist(), score.tolist()) == ([[-1, -1]], [[-np.inf, -np.inf]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_vectors_that_are_not_finite_are_an_error(value, side):
    vectors = [np.ones((2, 2), np.float32), np.ones((3, 2), np.float32)]
    vectors[side][1, 0] = value
    with pytest.raises(ValueError, match="must be finite"):
        top_n(*vectors, [NONE] * 2, 1)


def test_a_users_scores_do_not_depend_on_who_shares_the_block():
    random = np.random.default_rng(1)
    users, items = random.standard_normal((40, 64)).astype(np.float32), random.standard_normal((300, 64)).astype(np.float32)
    index, score = top_n(users, items, [NONE] * 40, 10)
    order = random.permutation(40)
    for rows in (order, order[:1], order[:7]):
        other_index, other_score = top_n(users[rows], items, [NONE] * len(rows), 10)
        np.testing.assert_array_equal(other_index, index[rows])
        np.testing.assert_array_equal(other_score, score[rows])
