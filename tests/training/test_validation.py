"""How held-out events are measured."""

from __future__ import annotations

import numpy as np
from model.factories import contexts

from metarec_spark.training.validation import gain, placed


def test_gain_by_hand():
    assert gain(np.array([1, 3, 10, 11])).tolist() == [1, 0.5, 1 / np.log2(11), 0]


def test_targets_are_placed_among_what_their_contexts_lack_even_those_seen_before():
    place, (row, seen) = placed(contexts([[3, 8, 1], [4, 6, 4], [19]]), np.array([2, 4, 0]), np.arange(0, 20, 2))
    assert place.tolist() == [1, 2, 0]
    assert list(zip(row.tolist(), seen.tolist(), strict=True)) == [(0, 4), (1, 3)]
