"""Signals fitted to a snapshot's sequences."""

from __future__ import annotations

import numpy as np
import pytest
from model.factories import catalogue
from training.factories import rows, shard, written
from training.ranks import as_threads

from metarec_spark.model.ensemble.unordered import UnorderedSignals
from metarec_spark.training import user_items
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.user_items import _user_items, fitted_signals

SEQUENCES = [[0, 2, 0, 1], [2, 4], [3, 5], [1, 3, 5, 6]]


@pytest.fixture()
def sequences(tmp_path):
    return written(tmp_path / "sequences", rows(SEQUENCES), files=2)


def test_every_user_counts_once_with_each_item_of_each_domain(sequences):
    books, films = (matrix.toarray() for matrix in _user_items(shard(sequences), catalogue(), whole=True))
    assert books[:, :4].tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert films[:, :3].tolist() == [[1, 0, 0], [0, 1, 1], [1, 1, 1]]


def test_a_row_of_an_episode_counts_for_the_domain_it_ends_in(sequences):
    books, films = (matrix.toarray() for matrix in _user_items(shard(sequences), catalogue(), whole=False))
    assert (len(books), len(films)) == (2, 2), "0 2 0 1 and 3 5 end with films, 2 4 and 1 3 5 6 with books"


def test_of_a_long_log_every_nth_sequence_counts(sequences, monkeypatch):
    monkeypatch.setattr(user_items, "_MOST_EVENTS", 50)  # of 90 and 100 training events
    books, _ = _user_items(shard(sequences), catalogue(), whole=True)
    assert books.shape[0] == 1


def test_all_ranks_get_what_one_process_gets(sequences):
    alone = fitted_signals(str(sequences), catalogue(), SingleProcess(), whole=True)
    found: list[list[UnorderedSignals]] = [[], []]

    def work(ranks) -> None:
        found[ranks.rank] = fitted_signals(str(sequences), catalogue(), ranks, whole=True)

    as_threads(2, work)
    for expected, *parts in zip(alone, *found, strict=True):
        assert np.abs(expected.factors).sum() > 0 and expected.neighbours.nnz
        for part in parts:
            assert (part.factors == expected.factors).all()
            assert (part.neighbours != expected.neighbours).nnz == 0
