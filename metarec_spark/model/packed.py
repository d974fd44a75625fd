"""Users' sequences as the network and the item transition model read them: packed, so that nothing is padded.

Shape suffixes: B sequences, N events in a flat list, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedSequences:
    """B sequences of N events in all, one after another, each with its oldest event first."""

    item: Tensor
    """[N] int64 item indexes."""
    domain: Tensor
    """[N] int64."""
    event_type: Tensor
    """[N] int64 numbers of the types, inverted (~) for an event that is context alone: it is read, and never predicted."""
    gap: Tensor
    """[N] int64 log-bucketed seconds since the event before."""
    length: Tensor
    """[B] int64 events of each sequence; their sum is N."""

    @property
    def is_target(self) -> Tensor:
        """[N] bool: whether an event is more than context."""
        return self.event_type >= 0

    @property
    def plain_event_type(self) -> Tensor:
        """[N] int64 numbers of the types, whatever the events are."""
        return torch.where(self.is_target, self.event_type, ~self.event_type)

    @property
    def starts(self) -> Tensor:
        """[B] int64: position of each sequence's first event among all."""
        return self.length.cumsum(0) - self.length

    @property
    def position(self) -> Tensor:
        """[N] int64: position of each event in its sequence, from 0."""
        return torch.arange(len(self.item)) - self.starts.repeat_interleave(self.length)

    def where(self, events: Tensor, length: Tensor) -> PackedSequences:
        """Some events, by a mask or by positions; ``length`` is the number of them in each sequence, [B]."""
        return PackedSequences(self.item[events], self.domain[events], self.event_type[events], self.gap[events], length)

    def take(self, rows: Tensor) -> PackedSequences:
        """Some sequences, by their positions."""
        length = self.length[rows]
        first = self.starts[rows] - (length.cumsum(0) - length)
        return self.where(torch.arange(int(length.sum())) + first.repeat_interleave(length), length)

    def newest(self, domain: int, min_gap: int = 0) -> Tensor:
        """Position of each sequence's newest event in a domain with a gap of at least ``min_gap``, [B] int64; -1 without one.

        Events that are context alone do not count.
        """
        row = torch.arange(len(self.length)).repeat_interleave(self.length)
        inside = torch.where((self.domain == domain) & (self.gap >= min_gap) & self.is_target, self.position, -1)
        return torch.full_like(self.length, -1).scatter_reduce(0, row, inside, "amax")

    def without(self, position_B: Tensor) -> PackedSequences:
        """All events except the one at a position of each sequence; -1: none is left out."""
        left = self.position != position_B.repeat_interleave(self.length)
        return self.where(left, self.length - (position_B >= 0).long())

    @classmethod
    def from_padded(cls, arrays: list[np.ndarray], length: np.ndarray) -> PackedSequences:
        """From item, domain, event type and gap as padded arrays, [B, L], whose first ``length`` [B] entries of a row count."""
        events = np.arange(arrays[0].shape[1]) < length[:, None]
        item, domain, event_type, gap = (torch.from_numpy(array[events].astype(np.int64)) for array in arrays)
        return cls(item, domain, event_type, gap, torch.from_numpy(length.astype(np.int64)))
