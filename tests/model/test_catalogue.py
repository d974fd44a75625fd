"""What a model knows of the items, in arrays."""

from __future__ import annotations

import numpy as np
from model.factories import catalogue

from metarec_spark.model.catalogue import Successors, pack_tokens, pack_vectors


def packed(*triples: tuple[int, int, float], items: int = 3, most: int = 8):
    item, hashes, weight = (np.array(column) for column in zip(*triples, strict=True)) if triples else (np.array([], int),) * 3
    return pack_tokens(item.astype(np.int64), hashes.astype(np.int64), weight.astype(np.float32), items, most)


def test_a_token_of_a_single_item_is_dropped_and_places_count_from_one():
    tokens, weights, hashes = packed((0, -7, 0.5), (0, 40, 0.25), (1, 40, 1.0), (1, 99, 2.0), (2, -7, 0.125))
    assert hashes.tolist() == [0, -7, 40]
    assert tokens.tolist() == [[1, 2], [2, 0], [1, 0]]
    assert weights.tolist() == [[0.5, 0.25], [1.0, 0.0], [0.125, 0.0]]


def test_the_heaviest_tokens_stay_and_ties_go_to_the_smaller_token():
    everywhere = [(item, token, weight) for item in (0, 1) for token, weight in ((5, 0.1), (6, 0.9), (8, 0.5), (7, 0.5))]
    tokens, weights, hashes = packed(*everywhere, most=2)
    assert hashes.tolist() == [0, 5, 6, 7, 8]
    assert tokens.tolist() == [[2, 3], [2, 3], [0, 0]]
    np.testing.assert_array_equal(weights, np.float32([[0.9, 0.5], [0.9, 0.5], [0, 0]]))


def test_the_order_of_the_triples_does_not_matter():
    triples = [(item, token, float(weight)) for item in range(3) for token, weight in ((5, 1), (6, 3), (8, 2))]
    for one, other in zip(packed(*triples), packed(*reversed(triples)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_items_without_content_have_one_column_of_padding():
    tokens, weights, hashes = packed()
    assert tokens.tolist() == [[0]] * 3
    assert weights.tolist() == [[0.0]] * 3
    assert hashes.tolist() == [0]


def test_given_vectors_get_length_one_and_each_width_its_own_columns():
    item, lengths = np.array([3, 0, 2, 1]), np.array([2, 3, 2, 3])
    numbers = np.float32([3, 4, 0, 0, 0, 1e30, 1e30, 2, 0, 0])
    half = np.sqrt(0.5)
    expected = [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [half, half, 0, 0, 0], [0.6, 0.8, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(pack_vectors(item, numbers, lengths, 5, [2, 3]), expected, rtol=1e-6)
    np.testing.assert_allclose(pack_vectors(item, numbers, lengths, 5, [3]), np.array(expected)[:, 2:], rtol=1e-6)
    assert pack_vectors(item, numbers, lengths, 5, []).shape == (5, 0)


def test_content_is_a_token_or_a_vector():
    of = catalogue(items=4, tokens=[(1, 5, 1.0), (2, 5, 1.0)], vectors=np.array([[0, 0], [0, 0], [1, 0], [0, -1]]))
    assert of.has_content.tolist() == [False, True, True, True]


def test_items_of_a_domain_are_ascending():
    assert [items.tolist() for items in catalogue(items=5).of_domain] == [[0, 2, 4], [1, 3]]


def test_some_successors_of_some_items_stay_as_they_are_and_the_others_go():
    item, other = np.array([2, 0, 3, 2, 0, 3]), np.array([1, 3, 0, 3, 1, 2])
    signals = np.random.default_rng(0).random((3, 6)).astype(np.float32)
    some = Successors.from_pairs(4, item, other, *signals).restricted(
        np.array([True, False, False, True]), np.array([True, True, False, True])
    )
    left = np.isin(item, [0, 3]) & np.isin(other, [0, 1, 3])
    expected = Successors.from_pairs(4, item[left], other[left], *signals[:, left])
    for name in ("indptr", "indices", "forward", "backward", "similarity"):
        np.testing.assert_array_equal(getattr(some, name), getattr(expected, name))
