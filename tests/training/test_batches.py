"""Batches of a snapshot: every row once, within the budget, as many as were counted."""

from __future__ import annotations

import functools
import itertools
import operator
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.factories import rows, shard, walks, written

from metarec_spark.errors import TrainingError
from metarec_spark.training.batches import _cut, batch_bounds, batches, count_batches, episodes, read_ahead, read_held_out

SOME_LENGTHS = st.lists(st.integers(1, 60), max_size=60)


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "sequences", rows(walks(30)), files=4)


def sequences(batch) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in batch.item.split(batch.length.tolist())]


def predicted(batch) -> int:
    """Events of a batch that are to be predicted."""
    return int((batch.length - 1).sum())


def read_items(found) -> list[tuple[int, ...]]:
    return sorted(sequence for batch in found for sequence in sequences(batch))


@given(SOME_LENGTHS, st.integers(1, 100))
def test_cuts_cover_all_rows_within_the_budget_in_as_few_and_as_even_batches_as_can_be(lengths, tokens):
    lengths = np.array(lengths, np.int32)
    bounds = batch_bounds(lengths, tokens)
    assert (bounds[0], bounds[-1]) == (0, len(lengths))
    assert (np.diff(bounds) > 0).all()
    sums = [lengths[start:end].sum() for start, end in itertools.pairwise(bounds) if end - start > 1]
    assert all(total <= tokens for total in sums)
    assert len(bounds) - 1 == filled(lengths, tokens)
    if sums and max(sums) > 1:
        assert filled(lengths, max(sums) - 1) > len(bounds) - 1, "a smaller largest batch needs more of them"


def filled(lengths, most: int) -> int:
    """How many batches it takes to fill one after the other."""
    batches, room = 0, -1
    for length in lengths:
        if batches and length <= room:
            room -= length
        else:
            batches, room = batches + 1, most - length
    return batches


def test_cuts_by_hand():
    assert batch_bounds(np.array([1, 1, 2, 2, 5, 9]), 6).tolist() == [0, 4, 5, 6]
    assert batch_bounds(np.ones(9, np.int64), 8).tolist() == [0, 5, 9]


def test_context_costs_nothing_and_what_is_behind_the_end_of_a_row_does_not_count():
    types = np.array([[1, ~2, 1, ~2, ~2]] * 4)
    group = {"domain": np.zeros((4, 5), int), "event_type": types, "length": np.array([3, 3, 3, 5])}
    ((rows_of_domain, bounds),) = _cut(group, 2)
    assert (rows_of_domain.tolist(), bounds.tolist()) == ([0, 1, 2, 3], [0, 2, 4]), "one event to predict in each row"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_row_is_read_once_over_all_shards(folder, size):
    read = [read_items(batches(shard(folder, rank, size), tokens=24, seed=5)) for rank in range(size)]
    assert sorted(functools.reduce(operator.iadd, read, [])) == sorted(map(tuple, walks(30)))
    assert all(read)


@pytest.mark.parametrize("seed", [0, 1])
def test_there_are_as_many_batches_as_were_counted(folder, seed):
    for rank in range(2):
        found = list(batches(shard(folder, rank, 2), tokens=24, seed=seed))
        assert len(found) == count_batches(shard(folder, rank, 2), tokens=24)
        assert all(len(b.item) == b.length.sum() for b in found)
        assert all(predicted(b) <= 24 for b in found)


def test_batches_have_the_same_number_of_events_to_predict_however_long_their_sequences_are(tmp_path):
    folder = written(tmp_path / "sequences", rows([[1, 0]] * 48 + [[1, 3, 5, 7, 0]] * 12), files=1)
    assert [predicted(batch) for batch in batches(shard(folder), tokens=12, seed=1)] == [12] * 8


def test_the_seed_alone_decides_the_order(folder):
    def order(seed):
        return [batch.item.tolist() for batch in batches(shard(folder), tokens=24, seed=seed)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_nothing_is_padded_and_rows_keep_their_columns_together(folder):
    for batch in batches(shard(folder), tokens=24, seed=0):
        assert (batch.domain == batch.item % 2).all()
        assert set(batch.gap.tolist()) == {3} and set(batch.event_type.tolist()) == {1}


def test_a_batch_holds_users_of_one_newest_domain(folder):
    for batch in batches(shard(folder), tokens=24, seed=0):
        assert len({sequence[-1] % 2 for sequence in sequences(batch)}) == 1


@pytest.fixture
def halved(tmp_path):
    table = rows(walks(30), half=[user % 3 % 2 for user in range(30)])
    return written(tmp_path / "episodes", table, files=4)


def halves(folder, epoch, seed=1) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Supports and queries of all episodes."""
    found = list(episodes(shard(folder), tokens=24, seed=seed, epoch=epoch))
    return read_items(episode.support for episode in found), read_items(episode.query for episode in found)


def test_every_user_is_in_one_half_and_the_halves_change_places_each_epoch(halved):
    asked = [tuple(walk) for user, walk in enumerate(walks(30)) if user % 3 == 1]
    support, query = halves(halved, epoch=0)
    assert (len(support), query) == (20, sorted(asked))
    assert halves(halved, epoch=1, seed=2) == (query, support)
    assert halves(halved, epoch=2, seed=3) == (support, query)


def test_an_episode_is_a_batch_of_one_domain(halved):
    for seed in (1, 2):  # to petastorm, 0 is none
        found = list(episodes(shard(halved), tokens=24, seed=seed, epoch=0))
        for episode, batch in zip(found, batches(shard(halved), tokens=24, seed=seed), strict=True):
            both = sequences(episode.support) + sequences(episode.query)
            assert sorted(both) == sorted(sequences(batch))
            assert {sequence[-1] % 2 for sequence in both} == {episode.domain}
            assert episode.length.tolist() == [len(sequence) for sequence in both]


def test_reading_ahead_gives_the_same_batches_and_passes_errors_on(folder):
    def broken():
        yield 1
        raise TrainingError("no more")

    plain = [batch.item.tolist() for batch in batches(shard(folder), tokens=24, seed=1)]
    assert [batch.item.tolist() for batch in read_ahead(batches(shard(folder), tokens=24, seed=1), depth=1)] == plain
    with pytest.raises(TrainingError, match="no more"):
        list(read_ahead(broken()))


def test_reading_ahead_ends_with_its_reader():
    made = []
    reader = read_ahead((made.append(n) or n for n in itertools.count()), depth=2)
    assert next(reader) == 0
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
    assert len(made) <= 5


@pytest.fixture
def pairs(tmp_path):
    targets = list(range(12))
    table = rows(
        [[(t + k) % 20 for k in range(1 + t % 5)] for t in targets],
        target=targets,
        target_domain=[t % 2 for t in targets],
        pair=targets,
    )
    return written(tmp_path / "validation", table)


def targets_of(held) -> list[int]:
    return sorted(target for part in held for target in part.target.tolist())


def test_held_out_events_are_shared_by_domain_and_rank(pairs):
    (one,) = [part for part in read_held_out(shard(pairs)) if part.domain == 1]
    assert sorted(one.target.tolist()) == [1, 3, 5, 7, 9, 11]
    assert [s[0] for s in sequences(one.contexts)] == one.target.tolist()
    assert one.contexts.length.tolist() == sorted(one.contexts.length.tolist())
    assert targets_of(read_held_out(shard(pairs, 0, 2)) + read_held_out(shard(pairs, 1, 2))) == list(range(12))


def test_held_out_events_can_be_thinned_and_may_be_fewer_than_ranks(pairs):
    assert len(targets_of(read_held_out(shard(pairs), most=4))) == 4
    assert targets_of(read_held_out(shard(pairs, 0, 9))) == list(range(12))
    assert read_held_out(shard(pairs, 1, 9)) == []
    assert read_held_out(shard(pairs / "nothing")) == []
