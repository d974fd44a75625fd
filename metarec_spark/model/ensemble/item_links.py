"""What items say of others, as sparse signals; and their sums over a user's events.

Shape suffixes: B users, I items of all domains, D items of one domain, S signals, W weights of an event, n pairs of a user and
an item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.transitions import HistoryWeights
from metarec_spark.runtime.numba_cache import compiled

BLOCK_LINKS = 500_000
"""Links of the users whose sums are made at once, about: memory is some hundred bytes for each."""


@dataclass(frozen=True)
class ItemLinks:
    """Signals from the items of all domains to those of one, an entry for each pair of items that has any."""

    indptr: np.ndarray
    """[I + 1] int64: where each item's links start."""
    place: np.ndarray
    """[links] int64: places of the linked items in the domain."""
    signals: np.ndarray
    """[links, S] float32."""
    size: int
    """Items D of the domain."""

    @classmethod
    def of(cls, row: np.ndarray, place: np.ndarray, signals: np.ndarray, shape: tuple[int, int]) -> ItemLinks:
        """From entries in order of their rows; ``shape`` is (I, D)."""
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))])
        return cls(indptr, place.astype(np.int64), signals.astype(np.float32), shape[1])

    @classmethod
    def joined(cls, matrices: Sequence[sparse.csr_matrix], rows: np.ndarray, items: int) -> ItemLinks:
        """From one matrix a signal, [rows, D], where ``rows`` are some of all ``items``, ascending; the others have no links."""
        shape = items, matrices[0].shape[1]
        entries = [matrix.tocoo() for matrix in matrices]
        keys = [rows[entry.row] * shape[1] + entry.col for entry in entries]
        known, at = np.unique(np.concatenate(keys), return_inverse=True)
        signals = np.zeros((len(known), len(matrices)), np.float32)
        number = np.repeat(np.arange(len(keys)), [len(key) for key in keys])
        signals[at, number] = np.concatenate([entry.data for entry in entries])
        return cls.of(*np.divmod(known, shape[1]), signals, shape)

    def blocks(self, contexts: PackedSequences) -> Iterator[Tensor]:
        """Rows of users, in order, so many at a time as have ``BLOCK_LINKS`` links; at least one."""
        length = contexts.length.numpy()
        user = np.repeat(np.arange(len(length)), length)
        links = np.bincount(user, np.diff(self.indptr)[contexts.item.numpy()], len(length))
        block = np.cumsum(links) // BLOCK_LINKS
        yield from map(torch.from_numpy, np.split(np.arange(len(length)), np.flatnonzero(np.diff(block)) + 1))

    def sums(self, history_weights: HistoryWeights, weights: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows, places, sums [n, W · S] float32 and numbers of linking events, for the items that a user's events link.

        Parameters
        ----------
        weights
            [ballots, W]: the signals of an event are summed with each of them.
        """
        starts = np.searchsorted(
            history_weights.user, np.arange(history_weights.user[-1] + 2 if len(history_weights.user) else 1)
        )
        row, place, sums, numbers = _sums(self.indptr, self.place, self.signals, starts, history_weights.item, weights, self.size)
        return tuple(map(torch.from_numpy, (row, place, sums, numbers)))


@compiled
def _sums(indptr, place, signals, starts, item, weights, size):
    """As :meth:`ItemLinks.sums` gives them; ``starts`` are where each user's events begin, and the end."""
    links = 0
    for event in range(len(item)):
        links += indptr[item[event] + 1] - indptr[item[event]]
    number = signals.shape[1]
    where, user, linked = np.full(size, -1, np.int64), np.empty(links, np.int64), np.empty(links, np.int64)
    sums, counts, end = np.empty((links, weights.shape[1] * number), np.float32), np.empty(links, np.float32), 0
    total = np.empty((size, sums.shape[1]))
    for of in range(len(starts) - 1):
        first = end
        for event in range(starts[of], starts[of + 1]):
            for link in range(indptr[item[event]], indptr[item[event] + 1]):
                at = place[link]
                if where[at] < 0:
                    where[at] = 0
                    linked[end] = at
                    total[at] = 0
                    end += 1
                where[at] += 1
                for weight in range(weights.shape[1]):
                    for signal in range(number):
                        total[at, weight * number + signal] += weights[event, weight] * signals[link, signal]
        linked[first:end].sort()
        for pair in range(first, end):
            at = linked[pair]
            user[pair], counts[pair], sums[pair] = of, where[at], total[at].astype(np.float32)
            where[at] = -1
    return user[:end], linked[:end], sums[:end], counts[:end]
