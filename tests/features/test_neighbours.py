"""The order of successors; their weights are tested in test_transitions."""

from __future__ import annotations

import numpy as np
import pytest

from metarec_spark.features.neighbours import heaviest_first


@pytest.mark.parametrize("count", [1, 100, 511, 512, 5_000])
@pytest.mark.parametrize("largest_place", [4_999, 2**31 - 1])
def test_the_heaviest_come_first_and_of_equals_the_smaller_place(count: int, largest_place: int):
    random = np.random.default_rng(count)
    places = random.choice(np.linspace(0, largest_place, 5_000).astype(np.int64), count, replace=False)
    weight = random.choice([0.0, 1e-30, 0.1, 0.5, 0.5000001, 3e7], count).astype(np.float32)
    assert heaviest_first(weight, places).tolist() == places[np.lexsort((places, -weight))].tolist()
