"""Blocks of one shape: what a row gets does not depend, to the last bit, on the rows that it is computed with.

Products of matrices of other shapes may add in another order; and, where widths are no multiples of ``WIDTHS``, those of rows in
other places. Shape suffixes: B sequences, N rows, L events of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

import torch
from torch import Tensor

from metarec_spark.model.packed import PackedSequences

EVENTS = 2048
"""Of a block of sequences, about."""
WIDTHS = 4
"""What the widths of a model must be multiples of, for its rows not to depend on their places, as measured."""


def in_fixed_blocks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """A function of rows [N, …] → [N, …], for ``size`` rows at a time; zeros fill the last block."""
    padding = (0, 0) * (rows.ndim - 1) + (0, -len(rows) % size)
    return torch.cat([function(block) for block in torch.nn.functional.pad(rows, padding).split(size)])[: len(rows)]


def of_one_length(contexts: PackedSequences, longest: int) -> Iterator[tuple[Tensor, PackedSequences, Tensor]]:
    """All sequences that hold events, in blocks of one shape for each length, rounded up.

    Yields
    ------
    rows
        Places of the sequences among all.
    padded
        Sequences of L events each, filled with events of item 0 after their own, which no event before them looks at; a few of
        them may be made of such events alone, after the others.
    last
        Place of each sequence's newest event among the block's; of those after the others, any.
    """
    steps = sorted(
        {min(longest, round(of)) for power in range(longest.bit_length()) for of in (2**power, 1.5 * 2**power)} | {longest}
    )
    of_step = torch.bucketize(contexts.length, torch.tensor(steps))
    of_step[contexts.length == 0] = -1
    for step in of_step.unique().tolist():
        if step < 0:
            continue
        length = steps[step]
        size = max(1, EVENTS // length)
        for rows in (of_step == step).nonzero().squeeze(1).split(size):
            own = contexts.take(rows)
            at = torch.arange(len(rows)).repeat_interleave(own.length) * length + own.position
            parts = []
            for field in fields(PackedSequences)[:-1]:
                part = torch.zeros(size * length, dtype=torch.int64)
                part[at] = getattr(own, field.name)
                parts.append(part)
            last = torch.arange(size) * length
            last[: len(rows)] += own.length - 1
            yield rows, PackedSequences(*parts, torch.full((size,), length)), last
