"""The spectral start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from model.factories import catalogue

from metarec_spark.model.spectral_init import LENGTH, _leading, spectral_init, token_init


def two_groups() -> np.ndarray:
    """Even items 0 … 8 follow each other, and so do even items 10 … 16; 18 and the odd ones follow none."""
    follows = np.zeros((20, 20))
    for group in (range(0, 10, 2), range(10, 18, 2)):
        follows[np.ix_(group, group)] = 1 - np.eye(len(group))
    return follows


def test_items_that_are_followed_by_the_same_items_lie_close():
    noise = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    start = spectral_init(catalogue(transitions=two_groups()), noise * 0, seed=0)
    unit = start[:18:2] / np.linalg.norm(start[:18:2], axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = np.equal.outer(np.arange(9) < 5, np.arange(9) < 5)
    assert cosine[same].min() > 0.9 and cosine[~same].max() < 0.1
    np.testing.assert_allclose(np.linalg.norm(start[:18:2], axis=1), LENGTH, rtol=1e-5)


def test_items_without_transitions_keep_the_noise_and_the_seed_decides():
    noise = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    of = catalogue(transitions=two_groups())
    start = spectral_init(of, noise, seed=0)
    np.testing.assert_array_equal(start[[18, *range(1, 20, 2)]], noise[[18, *range(1, 20, 2)]])
    np.testing.assert_array_equal(start, spectral_init(of, noise, seed=0))
    assert np.isfinite(start).all()


def test_tokens_of_the_same_items_lie_close_whether_the_items_have_events_or_not():
    tokens = [(item, 100 + group, 1.0) for item in range(20) for group in ((0, 1) if item < 10 else (2, 3))]
    of = catalogue(tokens=tokens)
    noise = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    start = token_init(of, noise * 0, seed=0)
    unit = start[1:] / np.linalg.norm(start[1:], axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, np.kron(np.eye(2), np.ones((2, 2))), atol=1e-3)
    np.testing.assert_array_equal(token_init(of, noise, seed=0)[0], noise[0], "padding is no token")
    silent = replace(of, events=np.zeros(20, np.int64))
    np.testing.assert_array_equal(token_init(silent, noise, seed=0), token_init(of, noise, seed=0))


def test_the_strongest_part_of_a_symmetric_matrix():
    random = np.random.default_rng(1)
    basis, _ = np.linalg.qr(random.normal(size=(40, 40)))
    value = np.concatenate([[5.0, 3.0, 2.0, -4.0], np.full(36, 0.01)])
    found = _leading((basis * value @ basis.T).astype(np.float32), 3, random)
    expected = (basis[:, :3] * value[:3]) @ basis[:, :3].T
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-3)


def test_more_columns_than_items_are_zero():
    found = _leading(np.eye(3, dtype=np.float32), 8, np.random.default_rng(0))
    assert found.shape == (3, 8) and not found[:, 3:].any()
