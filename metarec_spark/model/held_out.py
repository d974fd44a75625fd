"""Held-out events, and the one loop that ranks their targets.

Shape suffixes: B events, I items of a domain, V score functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import Seen, block_rows, hide, local_indexes, ranks, seen_local_indexes

MAX_ROWS = 256
"""Most events whose scores are made at a time."""


@dataclass(frozen=True)
class HeldOutEvents:
    """Held-out events of one domain: the users' events before each, and the item that followed."""

    domain: int
    contexts: PackedSequences
    target: np.ndarray
    """[B] int64 item indexes."""
    pair: np.ndarray
    """[B] int64: number of the (user, domain) pair in the snapshot, from 1."""

    def take(self, rows: np.ndarray) -> HeldOutEvents:
        """Some of the events, by their positions."""
        return HeldOutEvents(self.domain, self.contexts.take(torch.from_numpy(rows)), self.target[rows], self.pair[rows])


Scores = Callable[[PackedSequences, Tensor], Iterable[Tensor]]
"""(contexts, their positions among all events) → for each of V score functions the scores of all items, [B, I]. Each is
overwritten before the next one is asked for."""


def local_targets(contexts: PackedSequences, target: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, Seen]:
    """Local indexes of the targets in ascending ``items``, and of the contexts' own items except a target."""
    index = local_indexes(items, target)
    row, seen = seen_local_indexes(items, contexts.item.numpy(), contexts.length.numpy())
    other = seen != index[row]
    return index, (row[other], seen[other])


def rank_blocks(held_out: HeldOutEvents, items: np.ndarray, scores: Scores, rows: int = MAX_ROWS) -> Iterator[np.ndarray]:
    """As :func:`rank`, block by block: [V, b] ranks of at most ``rows`` events at a time."""
    for block in torch.arange(len(held_out.target)).split(block_rows(len(items), rows)):
        contexts = held_out.contexts.take(block)
        target, seen = local_targets(contexts, held_out.target[block.numpy()], items)
        yield np.array([ranks(hide(scores_BI, seen), target) for scores_BI in scores(contexts, block)])


def rank(held_out: HeldOutEvents, items: np.ndarray, scores: Scores, rows: int = MAX_ROWS) -> np.ndarray:
    """Rank of each target among the items of its domain that are not in its context, from 1, [V, B]; ties count against it.

    Parameters
    ----------
    items
        Ascending item indexes of the domain, [I].
    scores
        The score functions.
    rows
        Most events whose scores are made at a time.
    """
    return np.concatenate(list(rank_blocks(held_out, items, scores, rows)), 1)
