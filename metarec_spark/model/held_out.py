"""Held-out events, and the one loop that ranks their targets.

Shape suffixes: B events, I items of a domain, V score functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

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
    seen_allowed: bool = False
    """Whether the domain's lists may hold items that the user has seen."""

    @property
    def repeat(self) -> np.ndarray:
        """[B] bool: whether an event before the target, one that is more than context, has its item."""
        row = np.repeat(np.arange(len(self.target)), self.contexts.length.numpy())
        same = (self.contexts.item.numpy() == self.target[row]) & self.contexts.is_target.numpy()
        return np.bincount(row[same], minlength=len(self.target)) > 0

    def take(self, rows: np.ndarray) -> HeldOutEvents:
        """Some of the events, by their positions."""
        return replace(self, contexts=self.contexts.take(torch.from_numpy(rows)), target=self.target[rows], pair=self.pair[rows])

    def listable(self, seen_allowed: bool) -> HeldOutEvents:
        """The events whose items a list may hold, as lists of the domain are made from now on."""
        part = self if seen_allowed else self.take(np.flatnonzero(~self.repeat))
        return replace(part, seen_allowed=seen_allowed)

    def local(self, items: np.ndarray) -> tuple[np.ndarray, Seen]:
        """Local indexes of the targets in ascending ``items``, and what is hidden: see :func:`local_targets`."""
        return local_targets(self.contexts, self.target, items, seen_allowed=self.seen_allowed)


Scores = Callable[[PackedSequences, Tensor], Iterable[Tensor]]
"""(contexts, their positions among all events) → for each of V score functions the scores of all items, [B, I]. Each is
overwritten before the next one is asked for."""


def local_targets(
    contexts: PackedSequences, target: np.ndarray, items: np.ndarray, *, seen_allowed: bool = False
) -> tuple[np.ndarray, Seen]:
    """Local indexes of the targets in ascending ``items``, and of the contexts' own items except a target; none if allowed.

    An item of events that are context alone is not one's own.
    """
    index = local_indexes(items, target)
    if seen_allowed:
        return index, (np.empty(0, np.int64), np.empty(0, np.int64))
    user = torch.arange(len(contexts.length)).repeat_interleave(contexts.length)[contexts.is_target]
    count = user.bincount(minlength=len(contexts.length))
    row, seen = seen_local_indexes(items, contexts.item[contexts.is_target].numpy(), count.numpy())
    other = seen != index[row]
    return index, (row[other], seen[other])


def rank_blocks(held_out: HeldOutEvents, items: np.ndarray, scores: Scores, rows: int = MAX_ROWS) -> Iterator[np.ndarray]:
    """As :func:`rank`, block by block: [V, b] ranks of at most ``rows`` events at a time."""
    for block in torch.arange(len(held_out.target)).split(block_rows(len(items), rows)):
        part = held_out.take(block.numpy())
        target, seen = part.local(items)
        yield np.array([ranks(hide(scores_BI, seen), target) for scores_BI in scores(part.contexts, block)])


def rank(held_out: HeldOutEvents, items: np.ndarray, scores: Scores, rows: int = MAX_ROWS) -> np.ndarray:
    """Rank of each target among the items of its domain that a list may hold, from 1, [V, B]; ties count against it.

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
