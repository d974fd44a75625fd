"""The strongest successors of some items, from who was followed by whom and what is known of all items. Arrays, no Spark.

Shape suffixes: I items of all domains, R items whose successors are asked for, V content tokens.
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
from metarec_spark.features.windows import NEAR
from metarec_spark.runtime.numba_cache import compiled

FORWARD, BACKWARD, SIMILARITY, WEIGHT = "forward", "backward", "similarity", "weight"
EVENTS, TOKENS, WEIGHTS = "events", "tokens", "weights"
_STEPS = 1 << 24
_ROWS = 1000
_FEW, _BITS = 512, 11  # by measurement: numbers that a radix sort is not worth it for, and bits of its digits
_DIGITS, _DIGIT, _PLACE = 1 << _BITS, np.uint64((1 << _BITS) - 1), np.uint64((1 << 32) - 1)
_NOTHING = np.frombuffer(bytes(4), np.int32, 0)  # not to be written to, as what Arrow brings: one type, one compilation


@dataclass(frozen=True)
class Items:
    """What is known of all items; memory grows with them, and by 16 bytes with each content token of an item."""

    index: np.ndarray
    """[I] int32: item index, ascending."""
    domain: pa.DictionaryArray
    """[I] names."""
    events: np.ndarray
    """[I] float64: training events, at least 1."""
    tokens: sparse.csr_matrix
    """[I, V] float32: weights of the tokens that make items alike."""
    having: sparse.csr_matrix
    """[V, I] the same."""

    @classmethod
    def read(cls, file: Path, common_items: int) -> Items:
        """From (item_idx, domain, events, tokens, weights), a row an item; ``tokens`` are hashes."""
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

    def successors(self, batches: Iterable[pa.RecordBatch], settings: Transitions) -> Iterator[pa.RecordBatch]:
        """(item_idx, domain, successors) as ``item_transitions`` has them, of those that have any.

        Parameters
        ----------
        batches
            (item_idx, near), ordered by item; ``near`` holds windows of :func:`metarec_spark.features.windows.windows`, or
            nothing. Those of an item may come in many rows, and in several batches: they are summed as they come.
        """
        size, item, count = len(self.index), -1, 0
        sums = np.zeros((size, 3)), np.zeros(size, np.bool_), np.empty(size, np.int64)
        place = np.full(self.index[-1] + 1, -1)
        place[self.index] = np.arange(size)
        known = (
            (self.tokens.indptr, self.tokens.indices, self.tokens.data),
            (self.having.indptr, self.having.indices, self.having.data),
            self.domain.indices.to_numpy().astype(np.int64),
            self.events**-settings.popularity_damping,
            self.events**-settings.source_damping,
        )
        joined = settings.backward, settings.similarity, settings.successors
        for rows, starts, near in _parts(batches, place):
            weight = distance_weights(min(settings.max_gap, len(near)), settings.gap_decay)
            item, count, *found = _strongest(rows, starts, near, place, weight, item, count, sums, known, joined)
            yield self._named(*found)

    def _named(self, item: np.ndarray, length: np.ndarray, successor: np.ndarray, signals: np.ndarray) -> pa.RecordBatch:
        names = (c.ITEM_IDX, c.DOMAIN, WEIGHT, FORWARD, BACKWARD, SIMILARITY)
        arrays = [pa.array(self.index[successor], pa.int32()), self.domain.take(pa.array(successor)).dictionary_decode()]
        arrays += [pa.array(signal) for signal in signals.T]
        found = length > 0
        offsets = pa.array(np.append(0, np.cumsum(length[found])), pa.int32())
        successors = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, names))
        domain = self.domain.take(pa.array(item[found])).dictionary_decode()
        index = pa.array(self.index[item[found]], pa.int32())
        return pa.RecordBatch.from_arrays([index, domain, successors], [c.ITEM_IDX, c.DOMAIN, "successors"])


@lru_cache(maxsize=1)
def items(file: str, common_items: int) -> Items:
    """Read once per process."""
    return Items.read(Path(file), common_items)


def distance_weights(longest: int, decay: float) -> np.ndarray:
    """[longest + 1] float64: ``distance ** -decay`` by distance, in steps of 2 ** -24; no item is at distance 0.

    Sums of such numbers are exact below 2 ** 29, and so the same in whatever order.
    """
    weight = np.arange(longest + 1, dtype=np.float64)
    weight[1:] **= -decay
    return np.round(weight * _STEPS) / _STEPS


def _parts(batches: Iterable[pa.RecordBatch], place: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of a thousand at most: the items' places, and where their windows begin and end among the numbers that come third.
    The last row is of no item, and so ends the last item."""
    for batch in batches:
        windows = batch[NEAR]
        _, offsets, numbers = windows.buffers()
        starts = np.frombuffer(offsets, np.int32, len(windows) + 1, 4 * windows.offset) // 4
        near = np.frombuffer(numbers, np.int32, starts[-1]) if starts[-1] else _NOTHING
        rows = place[batch[c.ITEM_IDX].to_numpy()]
        for first in range(0, len(rows), _ROWS):
            yield rows[first : first + _ROWS], starts[first : first + _ROWS + 1], near
    yield np.array([-1]), np.zeros(2, np.int32), _NOTHING


@compiled
def _strongest(rows, starts, near, place, distance_weight, item, count, sums, known, joined):
    """Sum the windows of the rows on top of what came before: ``item`` is open, and ``count`` others were near it.

    An item ends where another one begins. Returns the item that is open now and its count; by row, the item that ended, or -1,
    and how many others it has: the heaviest of each domain, heaviest first, and of equals the one with the smaller place. And of
    these others, one item after another, the places, and the weights and three signals.
    """
    signals, touched, others = sums
    tokens, having, domain, damped, source_damped = known
    back, alike, most = joined
    ended, length = np.full(len(rows), -1), np.zeros(len(rows), np.int64)
    weight, taken = np.empty(len(domain), np.float32), np.zeros(domain.max() + 1, np.int64)
    end, room = 0, 1024
    other, found = np.empty(room, np.int64), np.empty((room, 4), np.float32)
    for row in range(len(rows)):
        if rows[row] != item and item >= 0:
            count = _resembling(item, tokens, having, signals, touched, others, count)
            for at in others[:count]:
                followed = (signals[at, 0] + signals[at, 1] * back) * damped[at] * source_damped[item]
                weight[at] = np.float32(followed + signals[at, 2] * alike)
            for at in heaviest_first(weight[others[:count]], others[:count]):
                if weight[at] > 0 and taken[domain[at]] < most:
                    taken[domain[at]] += 1
                    if end == room:
                        room *= 2
                        other = np.append(other, np.empty(room - end, np.int64))
                        found = np.concatenate((found, np.empty((room - end, 4), np.float32)))
                    other[end] = at
                    found[end, 0] = weight[at]
                    for signal in range(3):
                        found[end, signal + 1] = np.float32(signals[at, signal])
                    length[row] += 1
                    end += 1
            ended[row] = item
            taken[:] = 0
            for at in others[:count]:
                touched[at] = False
                signals[at] = 0
            count = 0
        item = rows[row]
        windows = near[starts[row] : starts[row + 1]]
        count = _following(item, windows, place, distance_weight, signals, touched, others, count)
    return item, count, ended, length, other[:end], found[:end]


@compiled
def heaviest_first(weight, places):
    """The places in order of their weights, none of which is negative; of equals the smaller place comes first."""
    keys = ((~weight.view(np.uint32)).astype(np.uint64) << np.uint64(32)) | places.astype(np.uint64)
    if len(keys) < _FEW:
        return (np.sort(keys) & _PLACE).astype(np.int64)
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
    return (keys & _PLACE).astype(np.int64)


@compiled
def _following(item, windows, place, distance_weight, signals, touched, others, count):
    at = 0
    while at < len(windows):
        before, after = windows[at], windows[at + 1]
        at += 2
        for number in range(before + after):
            other = place[windows[at + number]]
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
def _resembling(item, tokens, having, signals, touched, others, count):
    token_starts, token, token_weight = tokens
    item_starts, items, item_weight = having
    for of in range(token_starts[item], token_starts[item + 1]):
        for link in range(item_starts[token[of]], item_starts[token[of] + 1]):
            other = items[link]
            if other == item:
                continue
            if not touched[other]:
                touched[other] = True
                others[count] = other
                count += 1
            signals[other, 2] += np.float64(token_weight[of] * item_weight[link])
    return count
