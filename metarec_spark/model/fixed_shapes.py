"""Batch-invariant computation: a row's result is bit-identical in any batch, because all batches have one of a few shapes.

Matrix products of other shapes may add in another order; so may those of rows at other positions if a width is no multiple of
``WIDTHS``. Shape suffixes: B sequences, N rows, L events of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

import torch
from torch import Tensor

from metarec_spark.model.packed import PackedSequences

EVENTS = 2048
"""Events of a block of sequences, about."""
WIDTHS = 4
"""A model's widths must be multiples of this for its rows not to depend on their positions, as measured."""


def in_fixed_blocks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """Apply a function of rows, [N, …] → [N, …], to ``size`` rows at a time; the last block is filled with zeros."""
    padding = (0, 0) * (rows.ndim - 1) + (0, -len(rows) % size)
    return torch.cat([function(block) for block in torch.nn.functional.pad(rows, padding).split(size)])[: len(rows)]


def by_length(contexts: PackedSequences, longest: int) -> Iterator[tuple[Tensor, PackedSequences, Tensor]]:
    """Yield all sequences with events in blocks of sequences of one padded length, each length with one block size.

    Parameters
    ----------
    longest
        Most events of a sequence.

    Yields
    ------
    rows
        Positions of the block's sequences among all.
    padded
        Sequences of L events each. A sequence's own events come first; events of item 0 after them fill it up, which no event
        before them attends to. Sequences of such events alone fill up the block.
    last
        Position of each sequence's newest own event among the block's events; any position for a filling sequence.
    """
    powers = range(longest.bit_length())
    steps = sorted({min(longest, round(size)) for power in powers for size in (2**power, 1.5 * 2**power)} | {longest})
    step_B = torch.bucketize(contexts.length, torch.tensor(steps))
    step_B[contexts.length == 0] = -1
    for step in step_B.unique().tolist():
        if step < 0:
            continue
        length = steps[step]
        size = max(1, EVENTS // length)
        for rows in (step_B == step).nonzero().squeeze(1).split(size):
            own = contexts.take(rows)
            position = torch.arange(len(rows)).repeat_interleave(own.length) * length + own.position
            parts = []
            for field in fields(PackedSequences)[:-1]:
                part = torch.zeros(size * length, dtype=torch.int64)
                part[position] = getattr(own, field.name)
                parts.append(part)
            last = torch.arange(size) * length
            last[: len(rows)] += own.length - 1
            item, domain, event_type, gap = parts
            yield rows, PackedSequences(item, domain, event_type, gap, torch.full((size,), length)), last
