"""Users' events as the network and the transfer model read them: packed, so that nothing is padded.

Shape suffixes: B sequences, N events in a flat list, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedSequences:
    """B packed sequences of N events in all; those of a sequence lie together, oldest first."""

    item: Tensor
    """[N] int64 item indexes."""
    domain: Tensor
    """[N] int64."""
    event_type: Tensor
    """[N] int64."""
    gap: Tensor
    """[N] int64 log-bucketed seconds since the event before."""
    length: Tensor
    """[B] int64 events of each sequence; their sum is N."""

    @property
    def starts(self) -> Tensor:
        """[B] int64: where each sequence begins."""
        return self.length.cumsum(0) - self.length

    @property
    def position(self) -> Tensor:
        """[N] int64: place of each event in its sequence, from 0."""
        return torch.arange(len(self.item)) - self.starts.repeat_interleave(self.length)

    def where(self, kept: Tensor, length: Tensor) -> PackedSequences:
        """The events of a mask or of places; ``length`` says how many of each sequence they are."""
        return PackedSequences(self.item[kept], self.domain[kept], self.event_type[kept], self.gap[kept], length)

    def take(self, rows: Tensor) -> PackedSequences:
        """Some of the sequences, by their places."""
        length = self.length[rows]
        first = self.starts[rows] - (length.cumsum(0) - length)
        at = torch.arange(int(length.sum())) + first.repeat_interleave(length)
        return self.where(at, length)

    def newest(self, domain: int, pause: int = 0) -> Tensor:
        """[B] int64: place of each sequence's newest event in a domain; -1 where there is none. With a ``pause``, of those whose
        gap is at least that."""
        row = torch.arange(len(self.length)).repeat_interleave(self.length)
        inside = torch.where((self.domain == domain) & (self.gap >= pause), self.position, -1)
        return torch.full_like(self.length, -1).scatter_reduce(0, row, inside, "amax")

    def without(self, place_B: Tensor) -> PackedSequences:
        """Without the event at a place of each sequence; -1: with all."""
        kept = self.position != place_B.repeat_interleave(self.length)
        return self.where(kept, self.length - (place_B >= 0).long())

    @classmethod
    def packed(cls, arrays: list[np.ndarray], length: np.ndarray) -> PackedSequences:
        """From item, domain, event type and gap as padded [B, L] arrays, of which the first ``length`` [B] of a row count."""
        counts = np.arange(arrays[0].shape[1]) < length[:, None]
        flat = [torch.from_numpy(array[counts].astype(np.int64)) for array in arrays]
        return cls(*flat, torch.from_numpy(length.astype(np.int64)))
