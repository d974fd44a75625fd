"""What stands near the events of an item: windows cut out of sequences. Arrays, no Spark.

A window is int32: how many items stand before the event and how many after it, then these items in time order. A distance is thus
a position, and an item in a window costs four bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metarec_spark import columns as c
from metarec_spark.runtime.numba_cache import compiled

NEAR = "near"
_LARGEST = 1 << 22
"""Numbers in a batch of windows."""


def windows(sequences: pa.ListArray, max_gap: int) -> Iterator[pa.RecordBatch]:
    """(item_idx, near): of each item in the sequences, the windows around its events, one after another, as bytes.

    An event that nothing stands near has no window. An item is once in a batch; a batch has at most 16 MB, however long the
    sequences are, and one window at least.

    Parameters
    ----------
    sequences
        Lists of item indexes, in time order.
    max_gap
        Longest distance of an item in a window, in events.
    """
    length = pc.list_value_length(sequences).to_numpy()
    starts, item = np.append(0, np.cumsum(length, dtype=np.int64)), sequences.flatten().to_numpy()
    max_gap = min(max_gap, int(length.max(initial=0)))
    events = max(1, _LARGEST // (2 + 2 * max_gap))
    for first in range(0, len(item), events):
        ends, near = _windows(starts, item, first, min(first + events, len(item)), max_gap)
        found = np.flatnonzero(np.diff(ends))
        offsets = (np.append(ends[found], len(near)) * near.itemsize).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(near)]
        arrays = [pa.array(found, pa.int32()), pa.Array.from_buffers(pa.binary(), len(found), buffers)]
        yield pa.RecordBatch.from_arrays(arrays, [c.ITEM_IDX, NEAR])


@compiled
def _windows(starts, item, first, last, max_gap):
    """The windows of the events ``first`` to ``last - 1``, by item, and where those of each item begin; the end comes last."""
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
    near, place = np.empty(ends[-1], np.int32), ends.copy()
    for event in range(first, last):
        earlier, later = before[event - first], after[event - first]
        if earlier + later == 0:
            continue
        at = place[item[event]]
        near[at], near[at + 1] = earlier, later
        at += 2
        for other in range(event - earlier, event + later + 1):
            if other != event:
                near[at] = item[other]
                at += 1
        place[item[event]] = at
    return ends, near
