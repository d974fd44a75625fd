"""The loop that ranks held-out events."""

from __future__ import annotations

import numpy as np
import torch
from model.factories import contexts

from metarec_spark.model.held_out import HeldOutEvents, local_targets, rank, rank_blocks

EVEN = np.arange(0, 20, 2)


def test_targets_are_ranked_among_the_items_that_their_contexts_lack_and_seen_targets_too():
    target, (row, seen) = local_targets(contexts([[3, 8, 1], [4, 6, 4], [19]]), np.array([2, 4, 0]), EVEN)
    assert target.tolist() == [1, 2, 0]
    assert list(zip(row.tolist(), seen.tolist(), strict=True)) == [(0, 4), (1, 3)]


def test_each_score_function_ranks_each_event_with_its_seen_items_hidden():
    held_out = HeldOutEvents(0, contexts([[18], [4, 6], [1]]), np.array([16, 0, 10]), np.arange(1, 4))
    positions = []

    def scores(some, rows):
        positions.append(rows.tolist())
        ascending = torch.arange(10.0).expand(len(some.length), -1)
        yield ascending.clone()
        yield -ascending

    ranks = rank(held_out, EVEN, scores, rows=2)
    assert ranks.tolist() == [[1, 8, 5], [9, 1, 6]]
    assert positions == [[0, 1], [2]], "two at a time, in order"
    assert [block.shape for block in rank_blocks(held_out, EVEN, scores, rows=2)] == [(2, 2), (2, 1)]


def test_targets_that_lists_may_not_hold_are_left_out_and_nothing_is_hidden_where_seen_items_are_allowed():
    held_out = HeldOutEvents(0, contexts([[4, 6], [18], [2, 8]]), np.array([6, 16, 8]), np.array([1, 2, 3]))
    assert held_out.repeat.tolist() == [True, False, True]
    assert held_out.listable(seen_allowed=False).pair.tolist() == [2]
    allowed = held_out.listable(seen_allowed=True)
    assert allowed.pair.tolist() == [1, 2, 3]

    def scores(some, _):
        yield torch.arange(10.0).expand(len(some.length), -1).clone()

    assert rank(held_out, EVEN, scores).tolist() == [[7, 1, 6]], "18 is hidden from the second user"
    assert rank(allowed, EVEN, scores).tolist() == [[7, 2, 6]]
    assert allowed.take(np.array([1])).seen_allowed


def test_no_events_have_no_ranks():
    none = HeldOutEvents(0, contexts([], width=1), np.array([], np.int64), np.array([], np.int64))
    assert rank(none, EVEN, lambda some, _: [torch.zeros(len(some.length), 10)] * 3).shape == (3, 0)


def test_some_events_are_taken_with_all_that_belongs_to_them():
    some = HeldOutEvents(1, contexts([[3], [5, 7], [9]]), np.array([1, 3, 5]), np.array([4, 5, 6])).take(np.array([2, 1]))
    assert (some.domain, some.target.tolist(), some.pair.tolist()) == (1, [5, 3], [6, 5])
    assert some.contexts.item.tolist() == [9, 5, 7]
