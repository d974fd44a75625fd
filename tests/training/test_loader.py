"""Batches of a snapshot: every row once, within the budget, as many as were counted."""

from __future__ import annotations

import functools
import itertools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.factories import rows, shard, walks, written

from metarec_spark.errors import TrainingError
from metarec_spark.training import loader

SOME_LENGTHS = st.lists(st.integers(1, 60), max_size=60)


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "sequences", rows(walks(30)), files=4)


def read_items(batches) -> list[tuple[int, ...]]:
    return sorted(tuple(item[:n].tolist()) for b in batches for item, n in zip(b.item, b.length.tolist(), strict=True))


@given(SOME_LENGTHS, st.integers(1, 100))
def test_cuts_cover_all_rows_within_the_budget(lengths, tokens):
    lengths = np.sort(np.array(lengths, np.int32))
    bounds = loader.cuts(lengths, tokens)
    assert (bounds[0], bounds[-1]) == (0, len(lengths))
    assert (np.diff(bounds) > 0).all()
    for start, end in itertools.pairwise(bounds[:-1]):
        assert end - start == 1 or (end - start) * lengths[end - 1] <= tokens


@given(SOME_LENGTHS, st.integers(1, 100))
def test_no_batch_could_take_the_next_row(lengths, tokens):
    lengths = np.sort(np.array(lengths, np.int32))
    bounds = loader.cuts(lengths, tokens)
    for start, end in itertools.pairwise(bounds[:-1]):
        assert (end - start + 1) * lengths[end] > tokens


def test_cuts_by_hand():
    assert loader.cuts(np.array([1, 1, 2, 2, 5, 9]), 6).tolist() == [0, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_row_is_read_once_over_all_shards(folder, size):
    read = [read_items(loader.batches(shard(folder, rank, size), tokens=24, seed=5)) for rank in range(size)]
    assert sorted(functools.reduce(operator.iadd, read, [])) == sorted(map(tuple, walks(30)))
    assert all(read)


def test_a_process_pool_reads_every_row_once(folder):
    read = [read_items(loader.batches(shard(folder, rank, 2, "process"), tokens=24, seed=5)) for rank in range(2)]
    assert sorted(functools.reduce(operator.iadd, read, [])) == sorted(map(tuple, walks(30)))


@pytest.mark.parametrize("seed", [0, 1])
def test_there_are_as_many_batches_as_were_counted(folder, seed):
    for rank in range(2):
        batches = list(loader.batches(shard(folder, rank, 2), tokens=24, seed=seed))
        assert len(batches) == loader.count_batches(shard(folder, rank, 2), tokens=24)
        assert all(b.item.numel() <= 24 and b.item.shape[1] == b.length.max() for b in batches)


def test_the_seed_alone_decides_the_order(folder):
    def order(seed):
        return [batch.item.tolist() for batch in loader.batches(shard(folder), tokens=24, seed=seed)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_padding_is_zero_and_rows_keep_their_columns_together(folder):
    for batch in loader.batches(shard(folder), tokens=24, seed=0):
        counts = np.arange(batch.item.shape[1]) < batch.length.numpy()[:, None]
        assert (batch.item.numpy()[~counts] == 0).all()
        np.testing.assert_array_equal(batch.domain.numpy()[counts], batch.item.numpy()[counts] % 2)


def test_fewer_row_groups_than_ranks_is_an_error(folder):
    with pytest.raises(TrainingError, match=r"rank 4 of 5: .* has fewer row groups than ranks; lower train.processes"):
        list(loader.read(shard(folder, 4, 5), ["length"]))


def test_rows_are_counted_from_the_footers(folder):
    assert loader.count_rows(folder) == 30


@pytest.mark.parametrize("pool", ["dummy", "process"])
def test_reading_leaves_standard_output_to_the_commands_result(folder, capfd, pool):
    loader.count_batches(shard(folder, pool=pool), tokens=24)
    assert capfd.readouterr().out == ""
