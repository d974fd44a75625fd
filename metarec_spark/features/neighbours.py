"""The top-k neighbours of each item, by summed context windows and content similarity. Arrays, no Spark.

Shape suffixes: I items of all domains, V content tokens. An item's *row* is its position in the arrays of :class:`Items`; its
index is what the tables hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.config.sections import Transitions
from metarec_spark.features.windows import WINDOWS
from metarec_spark.runtime.numba_cache import compiled
from metarec_spark.warehouse.storage import local_copy

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
FORWARD, BACKWARD, SIMILARITY, WEIGHT = "forward", "backward", "similarity", "weight"
EVENTS, TOKENS, WEIGHTS = "events", "tokens", "weights"
_STEPS = 1 << 24
_CHUNK = 1000
_FEW, _BITS = 512, 11  # by measurement: fewer numbers are sorted faster by comparison; bits of a radix sort's digit
_DIGITS, _DIGIT, _ROW = 1 << _BITS, np.uint64((1 << _BITS) - 1), np.uint64((1 << 32) - 1)
_EMPTY = np.frombuffer(bytes(4), np.int32, 0)  # read-only, as Arrow's buffers are: one type, one compilation


@dataclass(frozen=True)
class Items:
    """Domain, event count and content tokens of all items. Memory: 100 bytes for each item, 16 for each of its tokens."""

    index: np.ndarray
    """[I] int32: item index, ascending."""
    domain: pa.DictionaryArray
    """[I] names."""
    events: np.ndarray
    """[I] float64: training events, at least 1."""
    tokens: sparse.csr_matrix
    """[I, V] float32: weights of the tokens that several items share."""
    items_by_token: sparse.csr_matrix
    """[V, I] float32: ``tokens``, transposed."""

    @classmethod
    def from_parquet(cls, file: Path, common_items: int) -> Items:
        """Read (item_idx, domain, events, tokens, weights), a row an item; ``tokens`` are hashes. Tokens of more than
        ``common_items`` items are left out."""
        table = pq.read_table(file).sort_by(c.ITEM_IDX).combine_chunks()
        tokens = table[TOKENS].combine_chunks()
        item = np.repeat(np.arange(len(table)), np.diff(tokens.offsets.to_numpy()))
        hashes, weights = tokens.flatten().to_numpy(), table[WEIGHTS].combine_chunks().flatten().to_numpy()
        names, token, count = np.unique(hashes, return_inverse=True, return_counts=True)
        shared = (count[token] >= 2) & (count[token] <= common_items)
        entries = weights[shared], (item[shared], token[shared])
        matrix = sparse.csr_matrix(entries, (len(table), len(names)), np.float32)
        domain = pc.dictionary_encode(table[c.DOMAIN].combine_chunks())
        events = np.maximum(pc.fill_null(table[EVENTS], 1).to_numpy(), 1).astype(np.float64)
        return cls(table[c.ITEM_IDX].to_numpy(), domain, events, matrix, matrix.T.tocsr())

    def neighbours(self, batches: Iterable[pa.RecordBatch], settings: Transitions) -> Iterator[pa.RecordBatch]:
        """Rows (item_idx, domain, successors) of the table ``item_transitions``, for the items that have a neighbour.

        Parameters
        ----------
        batches
            Rows of :func:`metarec_spark.features.windows.windows`, ordered by item; ``windows`` may be empty.
            An item may have many rows, in several batches: they are summed as they come.
        """
        size, item, count = len(self.index), -1, 0
        sums = np.zeros((size, 3)), np.zeros(size, np.bool_), np.empty(size, np.int64)
        row_of_index = np.full(self.index[-1] + 1, -1)
        row_of_index[self.index] = np.arange(size)
        known = (
            (self.tokens.indptr, self.tokens.indices, self.tokens.data),
            (self.items_by_token.indptr, self.items_by_token.indices, self.items_by_token.data),
            self.domain.indices.to_numpy().astype(np.int64),
            self.events**-settings.popularity_damping,
            self.events**-settings.source_damping,
        )
        joined = settings.backward, settings.similarity, settings.successors
        for rows, starts, numbers in _chunks(batches, row_of_index):
            weight = distance_weights(min(settings.max_gap, len(numbers)), settings.gap_decay)
            item, count, *top = _sum_and_select(rows, starts, numbers, row_of_index, weight, item, count, sums, known, joined)
            yield self._record_batch(*top)

    def _record_batch(self, item: np.ndarray, length: np.ndarray, neighbour: np.ndarray, signals: np.ndarray) -> pa.RecordBatch:
        names = (c.ITEM_IDX, c.DOMAIN, WEIGHT, FORWARD, BACKWARD, SIMILARITY)
        arrays = [pa.array(self.index[neighbour], pa.int32()), self.domain.take(pa.array(neighbour)).dictionary_decode()]
        arrays += [pa.array(signal) for signal in signals.T]
        with_neighbours = length > 0
        offsets = pa.array(np.append(0, np.cumsum(length[with_neighbours])), pa.int32())
        successors = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, names))
        domain = self.domain.take(pa.array(item[with_neighbours])).dictionary_decode()
        index = pa.array(self.index[item[with_neighbours]], pa.int32())
        return pa.RecordBatch.from_arrays([index, domain, successors], [c.ITEM_IDX, c.DOMAIN, "successors"])


@lru_cache(maxsize=1)
def items(folder: str, common_items: int) -> Items:
    """:meth:`Items.from_parquet`, once per process."""
    return Items.from_parquet(local_copy(folder), common_items)


def distance_weights(longest: int, decay: float) -> np.ndarray:
    """[longest + 1] float64: ``distance ** -decay`` by distance, rounded to multiples of 2 ** -24; 0 at distance 0.

    Sums of such numbers are exact below 2 ** 29, and so do not depend on the order of the terms.
    """
    weight = np.arange(longest + 1, dtype=np.float64)
    weight[1:] **= -decay
    return np.round(weight * _STEPS) / _STEPS


def _chunks(batches: Iterable[pa.RecordBatch], row_of_index: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(item rows, offsets of their windows, numbers of the windows), at most a thousand rows at a time.

    The last row is -1, no item: it closes the last item.
    """
    for batch in batches:
        windows = batch[WINDOWS]
        _, offsets, buffer = windows.buffers()
        starts = np.frombuffer(offsets, np.int32, len(windows) + 1, 4 * windows.offset) // 4
        numbers = np.frombuffer(buffer, np.int32, starts[-1]) if starts[-1] else _EMPTY
        rows = row_of_index[batch[c.ITEM_IDX].to_numpy()]
        for first in range(0, len(rows), _CHUNK):
            yield rows[first : first + _CHUNK], starts[first : first + _CHUNK + 1], numbers
    yield np.array([-1]), np.zeros(2, np.int32), _EMPTY


@compiled
def _sum_and_select(
    rows: np.ndarray,
    starts: np.ndarray,
    numbers: np.ndarray,
    row_of_index: np.ndarray,
    distance_weight: np.ndarray,
    item: int,
    count: int,
    sums: Arrays,
    known: tuple[Arrays, Arrays, np.ndarray, np.ndarray, np.ndarray],
    joined: tuple[float, float, int],
) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Add the windows of these rows to the sums of the current item; when an item ends, select its top-k neighbours per domain.

    ``item`` and ``count`` are the state carried between batches: the current item, and the number of neighbours so far. An item
    ends at the first row of another one.

    Returns (item, count, ended, length, neighbour, signals): the new state; by row, the item that ended there or -1, and the
    number of its neighbours; their rows, one ended item after another, heaviest first, ties by the smaller row; and their
    [weight, forward, backward, similarity].
    """
    signals, touched, others = sums
    tokens, items_by_token, domain, damped, source_damped = known
    back, similarity_weight, most = joined
    ended, length = np.full(len(rows), -1), np.zeros(len(rows), np.int64)
    weight, taken = np.empty(len(domain), np.float32), np.zeros(domain.max() + 1, np.int64)
    end, room = 0, 1024
    neighbour, values = np.empty(room, np.int64), np.empty((room, 4), np.float32)
    for row in range(len(rows)):
        if rows[row] != item and item >= 0:
            count = _add_similarity(item, tokens, items_by_token, signals, touched, others, count)
            for at in others[:count]:
                followed = (signals[at, 0] + signals[at, 1] * back) * damped[at] * source_damped[item]
                weight[at] = np.float32(followed + signals[at, 2] * similarity_weight)
            for at in heaviest_first(weight[others[:count]], others[:count]):
                if weight[at] > 0 and taken[domain[at]] < most:
                    taken[domain[at]] += 1
                    if end == room:
                        room *= 2
                        neighbour = np.append(neighbour, np.empty(room - end, np.int64))
                        values = np.concatenate((values, np.empty((room - end, 4), np.float32)))
                    neighbour[end] = at
                    values[end, 0] = weight[at]
                    for signal in range(3):
                        values[end, signal + 1] = np.float32(signals[at, signal])
                    length[row] += 1
                    end += 1
            ended[row] = item
            taken[:] = 0
            for at in others[:count]:
                touched[at] = False
                signals[at] = 0
            count = 0
        item = rows[row]
        windows = numbers[starts[row] : starts[row + 1]]
        count = _add_windows(item, windows, row_of_index, distance_weight, signals, touched, others, count)
    return item, count, ended, length, neighbour[:end], values[:end]


@compiled
def heaviest_first(weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows, ordered by weight (float32, none negative), heaviest first; ties by the smaller row."""
    keys = ((~weight.view(np.uint32)).astype(np.uint64) << np.uint64(32)) | rows.astype(np.uint64)
    if len(keys) < _FEW:
        return (np.sort(keys) & _ROW).astype(np.int64)
    # Radix sort: by the lowest digit first.
    spare, starts = np.empty_like(keys), np.empty(_DIGITS, np.int64)
    for shift in range(0, 64, _BITS):
        starts[:] = 0
        for key in keys:
            starts[(key >> np.uint64(shift)) & _DIGIT] += 1
        end = 0
        for digit in range(_DIGITS):
            starts[digit], end = end, end + starts[digit]
        for key in keys:
            digit = (key >> np.uint64(shift)) & _DIGIT
            spare[starts[digit]] = key
            starts[digit] += 1
        keys, spare = spare, keys
    return (keys & _ROW).astype(np.int64)


@compiled
def _add_windows(
    item: int,
    windows: np.ndarray,
    row_of_index: np.ndarray,
    distance_weight: np.ndarray,
    signals: np.ndarray,
    touched: np.ndarray,
    others: np.ndarray,
    count: int,
) -> int:
    """Add the distance weights of the items in the windows to their forward and backward signals; returns the new count.

    A negative number in a window is an event whose item does not count.
    """
    at = 0
    while at < len(windows):
        before, after = windows[at], windows[at + 1]
        at += 2
        for number in range(before + after):
            index = windows[at + number]
            other = row_of_index[index] if index >= 0 else item
            if other == item:
                continue
            if not touched[other]:
                touched[other] = True
                others[count] = other
                count += 1
            if number < before:
                signals[other, 1] += distance_weight[before - number]
            else:
                signals[other, 0] += distance_weight[number - before + 1]
        at += before + after
    return count


@compiled
def _add_similarity(
    item: int,
    tokens: Arrays,
    items_by_token: Arrays,
    signals: np.ndarray,
    touched: np.ndarray,
    others: np.ndarray,
    count: int,
) -> int:
    """Add the scalar products with the items that share a token to their similarity signals; returns the new count."""
    token_starts, token, token_weight = tokens
    item_starts, items, item_weight = items_by_token
    for entry in range(token_starts[item], token_starts[item + 1]):
        for link in range(item_starts[token[entry]], item_starts[token[entry] + 1]):
            other = items[link]
            if other == item:
                continue
            if not touched[other]:
                touched[other] = True
                others[count] = other
                count += 1
            signals[other, 2] += np.float64(token_weight[entry] * item_weight[link])
    return count
