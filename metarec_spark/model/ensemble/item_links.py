"""Sparse item-to-item features, and their sums over a user's events.

Shape suffixes: B users, I items of all domains, D items of one domain, S signals, W weightings of events, n pairs of a user and
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
"""Links of the users whose sums are made at a time, about; they take some hundred bytes of memory each."""


@dataclass(frozen=True)
class ItemLinks:
    """S signals from items of all domains to items of one domain, an entry for each pair of items that has any."""

    indptr: np.ndarray
    """[I + 1] int64: start of each item's links."""
    target: np.ndarray
    """[links] int64: local indexes of the linked items."""
    signals: np.ndarray
    """[links, S] float32."""
    size: int
    """Number of items D of the domain."""

    @classmethod
    def from_entries(cls, item: np.ndarray, target: np.ndarray, signals: np.ndarray, shape: tuple[int, int]) -> ItemLinks:
        """From entries in ascending order of their items; ``shape`` is (I, D)."""
        indptr = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=shape[0]))])
        return cls(indptr, target.astype(np.int64), signals.astype(np.float32), shape[1])

    @classmethod
    def from_matrices(cls, matrices: Sequence[sparse.csr_matrix], items: np.ndarray, size: int) -> ItemLinks:
        """From one matrix per signal, [len(items), D]; ``items`` are ascending, and the others of all ``size`` have no links."""
        shape = size, matrices[0].shape[1]
        entries = [matrix.tocoo() for matrix in matrices]
        keys = [items[entry.row] * shape[1] + entry.col for entry in entries]
        known, position = np.unique(np.concatenate(keys), return_inverse=True)
        signals = np.zeros((len(known), len(matrices)), np.float32)
        number = np.repeat(np.arange(len(keys)), [len(key) for key in keys])
        signals[position, number] = np.concatenate([entry.data for entry in entries])
        item, target = np.divmod(known, shape[1])
        return cls.from_entries(item, target, signals, shape)

    def blocks(self, contexts: PackedSequences) -> Iterator[Tensor]:
        """Yield rows of users, in order, so many at a time as have ``BLOCK_LINKS`` links; at least one block."""
        length = contexts.length.numpy()
        user = np.repeat(np.arange(len(length)), length)
        links = np.bincount(user, np.diff(self.indptr)[contexts.item.numpy()], len(length))
        block = np.cumsum(links) // BLOCK_LINKS
        yield from map(torch.from_numpy, np.split(np.arange(len(length)), np.flatnonzero(np.diff(block)) + 1))

    def sums(self, events: HistoryWeights, weights: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sum the signals over each user's events.

        Parameters
        ----------
        weights
            [events, W]: the signals are summed with each of these weightings of the events.

        Returns
        -------
        row, target, sums, count
            Of the n pairs of a user and an item that an event links: row of the user, local index of the item, sums [n, W · S]
            float32, number of linking events [n] float32.
        """
        starts = np.searchsorted(events.user, np.arange(events.user[-1] + 2 if len(events.user) else 1))
        row, target, sums, count = _sums(self.indptr, self.target, self.signals, starts, events.item, weights, self.size)
        return torch.from_numpy(row), torch.from_numpy(target), torch.from_numpy(sums), torch.from_numpy(count)


@compiled
def _sums(
    indptr: np.ndarray,
    target: np.ndarray,
    signals: np.ndarray,
    starts: np.ndarray,
    item: np.ndarray,
    weights: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As :meth:`ItemLinks.sums`; ``starts`` are the positions of each user's first event, and the end."""
    links = 0
    for event in range(len(item)):
        links += indptr[item[event] + 1] - indptr[item[event]]
    number = signals.shape[1]
    linking, row, linked = np.full(size, -1, np.int64), np.empty(links, np.int64), np.empty(links, np.int64)
    sums, counts, end = np.empty((links, weights.shape[1] * number), np.float32), np.empty(links, np.float32), 0
    total = np.empty((size, sums.shape[1]))
    for user in range(len(starts) - 1):
        first = end
        for event in range(starts[user], starts[user + 1]):
            for link in range(indptr[item[event]], indptr[item[event] + 1]):
                to = target[link]
                if linking[to] < 0:
                    linking[to] = 0
                    linked[end] = to
                    total[to] = 0
                    end += 1
                linking[to] += 1
                for weight in range(weights.shape[1]):
                    for signal in range(number):
                        total[to, weight * number + signal] += weights[event, weight] * signals[link, signal]
        linked[first:end].sort()
        for pair in range(first, end):
            to = linked[pair]
            row[pair], counts[pair], sums[pair] = user, linking[to], total[to].astype(np.float32)
            linking[to] = -1
    return row[:end], linked[:end], sums[:end], counts[:end]
