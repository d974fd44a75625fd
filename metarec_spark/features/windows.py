"""Context windows: the items before and after each event of a sequence. Arrays, no Spark.

A window is a run of int32: the number of items before the event, the number of items after it, then these items in time order.
An item's distance to the event is its position in the window, so an item in a window costs four bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metarec_spark import columns as c
from metarec_spark.runtime.numba_cache import compiled

WINDOWS = "windows"
_MAX_NUMBERS = 1 << 22
"""Largest batch of windows, in int32 numbers."""


def windows(sequences: pa.ListArray, max_gap: int, around: pa.ListArray | None = None) -> Iterator[pa.RecordBatch]:
    """Cut the context windows around all events, and group them by item.

    Parameters
    ----------
    sequences
        Item indexes (int32) of each sequence, in time order.
    max_gap
        Longest distance between an event and an item in its window, in events.
    around
        What stands for each event in the windows of the others; None: its item.

    Yields
    ------
    RecordBatch
        (item_idx int32, windows binary): the windows around the item's events, one after another. A batch has one row an item
        and at most 16 MB (at least one window), however long the sequences are. An event that is alone in its sequence has no
        window.
    """
    length = pc.list_value_length(sequences).to_numpy()
    starts, item = np.append(0, np.cumsum(length, dtype=np.int64)), sequences.flatten().to_numpy()
    other = item if around is None else around.flatten().to_numpy()
    max_gap = min(max_gap, int(length.max(initial=0)))
    events = max(1, _MAX_NUMBERS // (2 + 2 * max_gap))
    for first in range(0, len(item), events):
        ends, numbers = _windows(starts, item, other, first, min(first + events, len(item)), max_gap)
        with_windows = np.flatnonzero(np.diff(ends))
        offsets = (np.append(ends[with_windows], len(numbers)) * numbers.itemsize).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(numbers)]
        arrays = [pa.array(with_windows, pa.int32()), pa.Array.from_buffers(pa.binary(), len(with_windows), buffers)]
        yield pa.RecordBatch.from_arrays(arrays, [c.ITEM_IDX, WINDOWS])


@compiled
def _windows(
    starts: np.ndarray, item: np.ndarray, around: np.ndarray, first: int, last: int, max_gap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of the events ``first`` to ``last - 1``, sorted by item.

    Returns (offsets [largest item + 2], numbers): the windows of item i are ``numbers[offsets[i]:offsets[i + 1]]``.
    """
    before, after = np.empty(last - first, np.int32), np.empty(last - first, np.int32)
    ends = np.zeros(item[first:last].max() + 2, np.int64)
    row = np.searchsorted(starts, first, side="right") - 1
    for event in range(first, last):
        while event >= starts[row + 1]:
            row += 1
        before[event - first] = min(max_gap, event - starts[row])
        after[event - first] = min(max_gap, starts[row + 1] - 1 - event)
        others = before[event - first] + after[event - first]
        ends[item[event] + 1] += others + 2 if others else 0
    ends = np.cumsum(ends)
    numbers, free = np.empty(ends[-1], np.int32), ends.copy()
    for event in range(first, last):
        earlier, later = before[event - first], after[event - first]
        if earlier + later == 0:
            continue
        at = free[item[event]]
        numbers[at], numbers[at + 1] = earlier, later
        at += 2
        for other in range(event - earlier, event + later + 1):
            if other != event:
                numbers[at] = around[other]
                at += 1
        free[item[event]] = at
    return ends, numbers
