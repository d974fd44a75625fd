"""Baselines, each against its definition in dense arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from model.factories import contexts
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.model import baselines
from metarec_spark.model.baselines import Baselines, als, als_half_step, cosine_neighbours, ease

ITEMS = np.arange(0, 20, 2)


@pytest.fixture(scope="module")
def users() -> sparse.csr_matrix:
    random = np.random.default_rng(0)
    return sparse.csr_matrix((random.random((60, 10)) < 0.3).astype(np.float32))


def test_neighbours_are_the_largest_cosines_of_the_items_columns(users, monkeypatch):
    monkeypatch.setattr(baselines, "_ROWS", 4)
    dense = users.toarray()
    length = np.linalg.norm(dense, axis=0)
    cosine = dense.T @ dense / np.outer(length, length)
    np.fill_diagonal(cosine, 0)
    np.testing.assert_allclose(cosine_neighbours(users, 10).toarray(), cosine, rtol=1e-5)
    few = cosine_neighbours(users, 3).toarray()
    for row, full in zip(few, cosine, strict=True):
        assert (row > 0).sum() == 3 and row.sum() == pytest.approx(np.sort(full)[-3:].sum(), rel=1e-5)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others(users):
    dense, weights = users.toarray().astype(np.float64), ease(users, 7.0)
    for item in range(10):
        others = np.delete(np.arange(10), item)
        x = dense[:, others]
        expected = np.linalg.solve(x.T @ x + 7.0 * np.eye(9), x.T @ dense[:, item])
        np.testing.assert_allclose(weights[others, item], expected, rtol=1e-4, atol=1e-6)
        assert weights[item, item] == 0


def test_a_half_step_of_als_comes_to_the_weighted_ridge_regression(users, monkeypatch):
    monkeypatch.setattr(baselines, "_CG_STEPS", 50)
    items = np.random.default_rng(1).standard_normal((10, 4)).astype(np.float32)
    confidence, regularisation = baselines._ALS_CONFIDENCE, baselines._ALS_REGULARISATION
    for row, found in zip(users.toarray(), als_half_step(users, items), strict=True):
        weight = 1 + confidence * row
        expected = np.linalg.solve((items.T * weight) @ items + regularisation * np.eye(4), items.T @ (weight * row))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_als_finds_the_two_groups_of_users():
    block = np.kron(np.eye(2), np.ones((20, 5))) * (np.random.default_rng(0).random((40, 10)) < 0.7)
    users = sparse.csr_matrix(block.astype(np.float32))
    scores = als_half_step(users, items := als(users, 2)) @ items.T
    assert scores[:20, :5].min() > scores[:20, 5:].max() and scores[20:, 5:].min() > scores[20:, :5].max()


def test_users_without_an_event_on_the_platform_get_the_popularity(users):
    popularity = np.arange(10)
    fitted = Baselines.fit(users, popularity)
    scores = fitted.scores(contexts([[3], [2, 4]]), 0, ITEMS)
    assert set(scores) == {c.POPULARITY, c.OWN_ITEMS, c.ITEM_NEIGHBOURS, c.ALS, c.EASE}
    for name, rows in scores.items():
        assert np.argsort(-rows[0], kind="stable").tolist() == list(range(9, -1, -1)), name
    assert np.argsort(-scores[c.OWN_ITEMS][1], kind="stable").tolist() == [2, 1, 9, 8, 7, 6, 5, 4, 3, 0]
    np.testing.assert_allclose(scores[c.EASE][1], fitted.ease[[1, 2]].sum(0), rtol=1e-5)


@pytest.mark.parametrize("most", [5, 10])
def test_a_large_platform_has_no_ease_and_what_is_written_is_read_again(users, monkeypatch, tmp_path, most):
    monkeypatch.setattr(baselines, "EASE_ITEMS", most)
    empty = sparse.csr_matrix((0, 0), dtype=np.float32)
    fitted = [Baselines.fit(users, np.ones(10)), Baselines.fit(empty, np.ones(0))]
    baselines.save(fitted, tmp_path / "file")
    again = baselines.load(tmp_path / "file")
    assert len(again) == 2 and (again[0].ease is None) == (most == 5)
    some = contexts([[2, 4, 6]])
    for name, scores in fitted[0].scores(some, 0, ITEMS).items():
        np.testing.assert_array_equal(again[0].scores(some, 0, ITEMS)[name], scores)
    assert all(rows.shape == (1, 0) for rows in again[1].scores(some, 1, ITEMS[:0]).values())
