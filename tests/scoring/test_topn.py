"""The exact top-N, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from metarec_spark.scoring import topn
from metarec_spark.scoring.topn import ExactIndex, exact_integers


def rows_of(lists, size) -> sparse.csr_matrix:
    row = np.repeat(np.arange(len(lists)), [len(of) for of in lists])
    column = np.concatenate([np.asarray(of, np.int64) for of in lists]) if len(lists) else np.empty(0, np.int64)
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), (len(lists), size))


def brute_force(users, items, seen, n, additions=None) -> tuple[np.ndarray, np.ndarray]:
    """Indexes by (float64 score descending, index ascending), seen left out, padded with -1; and scores."""
    scores = users.astype(np.float64) @ items.astype(np.float64).T + (0 if additions is None else additions.toarray())
    index, score = np.full((len(users), n), -1), np.full((len(users), n), -np.inf)
    for row, hidden in enumerate(seen):
        order = [i for i in np.lexsort((np.arange(len(items)), -scores[row])) if i not in set(np.asarray(hidden).tolist())][:n]
        index[row, : len(order)], score[row, : len(order)] = order, scores[row, order]
    return index, score


def check(users, items, seen=None, n=3, additions=None):
    users, items = np.asarray(users, np.float32), np.asarray(items, np.float32)
    seen = [[]] * len(users) if seen is None else seen
    index, score = ExactIndex(items).search(users, n, rows_of(seen, len(items)), additions)
    expected_index, expected_score = brute_force(users, items, seen, n, additions)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_array_equal(score, expected_score.astype(np.float32))
    assert index.dtype == np.int64 and score.dtype == np.float32
    return index


@pytest.fixture(params=[True, False], ids=["integers", "float32"])
def first_pass(request, monkeypatch):
    """With the first pass of this processor, and of one whose integer products are not exact."""
    monkeypatch.setattr(topn, "exact_integers", lambda: request.param and exact_integers())


@st.composite
def problems(draw):
    """Small whole numbers, whose products are exact, so that ties are many and real; additions of either sign."""
    users, size, dim = draw(st.integers(0, 5)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = [random.integers(-2, 3, (rows, dim)) for rows in (users, size)]
    seen = [random.permutation(size)[: random.integers(0, size + 1)] for _ in range(users)]
    added = sparse.random(
        users, size, draw(st.sampled_from([0.0, 0.5])), "csr", np.float32, random, lambda n: random.integers(-2, 3, n)
    )
    return *values, seen, draw(st.integers(1, 15)), added


@given(problems())
@settings(max_examples=200, deadline=None)
def test_it_is_the_full_sort(problem):
    check(*problem)


@pytest.mark.parametrize("n", [1, 10, 100, 2000])
def test_many_vectors_of_many_lengths_in_several_blocks_and_tiles(first_pass, monkeypatch, n):
    monkeypatch.setattr(topn, "ROWS", 16)
    monkeypatch.setattr(topn, "TILE", 512)
    random = np.random.default_rng(0)
    users, items = (
        random.standard_normal((50, 17)),
        random.standard_normal((1700, 17)) * np.exp(random.standard_normal((1700, 1))),
    )
    seen = [random.permutation(1700)[: random.integers(0, 1000)] for _ in range(50)]
    added = sparse.random(50, 1700, 0.1, "csr", np.float32, random, lambda n: 5 * random.standard_normal(n))
    check(users, items, seen, n)
    check(users, items, seen, n, added)


@pytest.mark.parametrize("case", ["one far longer than the others", "tiny", "huge", "nearly equal", "opposite"])
def test_vectors_that_a_rough_product_cannot_tell_apart(first_pass, case):
    random = np.random.default_rng(2)
    users, items = random.standard_normal((8, 9)), random.standard_normal((700, 9))
    if case == "one far longer than the others":
        items[300] *= 1e6
    elif case == "tiny":
        users, items = users * 1e-25, items * 1e-15
    elif case == "huge":
        users, items = users * 1e15, items * 1e20
    elif case == "nearly equal":
        items = items[:1] + 1e-6 * items
    else:
        items = np.concatenate([items, -items])
    check(users, items, n=10)


def test_an_addition_lifts_the_last_item_to_the_first_place_and_takes_the_first_away():
    items = np.arange(300, 0, -1.0)[:, None]
    added = sparse.csr_matrix(([1000.0, -1000.0], ([0, 0], [299, 0])), (1, 300), np.float32)
    assert check([[1.0]], items, n=2, additions=added).tolist() == [[299, 1]]
    assert check([[1.0]], items, seen=[[299]], n=2, additions=added).tolist() == [[1, 2]], "seen, whatever is added"


@pytest.mark.parametrize("n", [1, 3, 10, 99])
def test_ties_go_to_the_smaller_index(first_pass, n):
    assert check([[1.0]], [[1.0]] * 10, n=n)[0, :n].tolist() == (list(range(10)) + [-1] * 99)[:n]
    assert check([[0.0, 0.0]], np.eye(2), n=1).tolist() == [[0]]
    check([[1.0]], [[2.0], [1.0], [2.0], [1.0], [1.0]], n=n)
    check([[1.0]], [[1.0]] * 5000, n=n)


def test_negative_scores_are_ranked_and_not_taken_for_missing():
    assert check([[-1.0]], [[3.0], [1.0], [2.0]], n=3).tolist() == [[1, 2, 0]]


def test_seen_items_are_left_out_even_where_nothing_remains(first_pass):
    assert check([[1.0], [1.0]], [[3.0], [2.0], [1.0]], seen=[[0, 1, 2], [1]], n=2).tolist() == [[-1, -1], [0, 2]]


def test_one_item_and_no_item():
    assert check([[1.0]], [[1.0]], n=2).tolist() == [[0, -1]]
    index, score = ExactIndex(np.empty((0, 1), np.float32)).search(np.ones((1, 1), np.float32), 2)
    assert (index.tolist(), score.tolist()) == ([[-1, -1]], [[-np.inf, -np.inf]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error(value):
    good, bad = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    bad[1, 0] = value
    with pytest.raises(ValueError, match="items must be finite"):
        ExactIndex(bad)
    with pytest.raises(ValueError, match="items must be finite"):
        ExactIndex(np.full((1, 1), 1e39))
    with pytest.raises(ValueError, match="users must be finite"):
        ExactIndex(good).search(bad, 1)
    with pytest.raises(ValueError, match="additions must be finite"):
        ExactIndex(good).search(good, 1, additions=sparse.csr_matrix(([value], ([0], [0])), (3, 3), np.float32))


def test_a_users_scores_do_not_depend_on_who_shares_the_block(monkeypatch):
    monkeypatch.setattr(topn, "ROWS", 8)
    random = np.random.default_rng(1)
    users, items = random.standard_normal((40, 64)).astype(np.float32), random.standard_normal((300, 64)).astype(np.float32)
    index, score = ExactIndex(items).search(users, 10)
    for threads in (2, 3):
        for one, other in zip(ExactIndex(items).search(users, 10, threads=threads), (index, score), strict=True):
            np.testing.assert_array_equal(one, other)
    order = random.permutation(40)
    for rows in (order, order[:1], order[:7]):
        other_index, other_score = ExactIndex(items).search(users[rows], 10)
        np.testing.assert_array_equal(other_index, index[rows])
        np.testing.assert_array_equal(other_score, score[rows])


def test_shapes_that_do_not_fit_are_an_error_and_so_are_products_beyond_float32(first_pass):
    index, users = ExactIndex(np.ones((4, 5), np.float32)), np.ones((2, 5), np.float32)
    with pytest.raises(ValueError, match=r"users must be \[U, 5\]"):
        index.search(np.ones((2, 8), np.float32), 1)
    for name in ("seen", "additions"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            index.search(users, 1, **{name: sparse.csr_matrix((1, 4), dtype=np.float32)})
    with pytest.raises(ValueError, match="beyond float32"):
        ExactIndex(np.full((4, 5), 1e20, np.float32)).search(users * 1e20, 1)


def test_every_item_of_a_full_tile_is_a_candidate_and_the_last_is_added_to(first_pass, monkeypatch):
    monkeypatch.setattr(topn, "TILE", 256)
    added = sparse.csr_matrix(([0.5], ([0], [511])), (1, 512), np.float32)
    assert check([[1.0]], np.ones((512, 1)), n=5, additions=added).tolist() == [[511, 0, 1, 2, 3]]


def test_integer_products_that_clip_are_found_out(monkeypatch):

    def clipped(one, other, out=None):
        """Bytes made unsigned, pairs of products summed in 16 bits."""
        pairs = ((one[:, None, :].int() + 128) * other.T[None].int()).view(len(one), other.shape[1], -1, 2).sum(3)
        return pairs.clamp(-(2**15), 2**15 - 1).sum(2).int() - 128 * other.int().sum(0)

    monkeypatch.setattr(torch, "_int_mm", clipped)
    assert not exact_integers.__wrapped__()
