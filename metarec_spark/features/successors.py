"""The strongest successors of some items, from who was followed by whom and what is known of all items. Arrays, no Spark.

Shape suffixes: I items of all domains, R items whose successors are asked for, V content tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.compiled import compiled
from metarec_spark.sections import Transitions

FORWARD, BACKWARD, SIMILARITY, WEIGHT = "forward", "backward", "similarity", "weight"
EVENTS, TOKENS, WEIGHTS = "events", "tokens", "weights"


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

    def successors(self, rows: pa.RecordBatch, settings: Transitions) -> pa.RecordBatch:
        """(item_idx, domain, successors) as ``item_transitions`` has them, of those that have any.

        Parameters
        ----------
        rows
            (item_idx, followed): a list of (item_idx, forward, backward) of others, each at most once.
        """
        place = np.searchsorted(self.index, rows[c.ITEM_IDX].to_numpy())
        followed = rows["followed"]
        length = pc.fill_null(pc.list_value_length(followed), 0).to_numpy()
        other, forward, backward = (part.to_numpy() for part in followed.flatten().flatten())
        length, number, *signals = _strongest(
            place,
            np.append(0, np.cumsum(length)),
            np.searchsorted(self.index, other),
            forward.astype(np.float64),
            backward.astype(np.float64),
            *(self.tokens.indptr, self.tokens.indices, self.tokens.data),
            *(self.having.indptr, self.having.indices, self.having.data),
            self.domain.indices.to_numpy().astype(np.int64),
            self.events**-settings.popularity_damping,
            self.events**-settings.source_damping,
            settings.backward,
            settings.similarity,
            settings.successors,
        )
        found = length > 0
        names = (c.ITEM_IDX, c.DOMAIN, WEIGHT, FORWARD, BACKWARD, SIMILARITY)
        arrays = [pa.array(self.index[number], pa.int32()), self.domain.take(pa.array(number)).dictionary_decode()]
        arrays += [pa.array(signal) for signal in signals]
        offsets = pa.array(np.append(0, np.cumsum(length[found])), pa.int32())
        successors = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, names))
        item = pa.array(self.index[place[found]], pa.int32())
        domain = self.domain.take(pa.array(place[found])).dictionary_decode()
        return pa.RecordBatch.from_arrays([item, domain, successors], [c.ITEM_IDX, c.DOMAIN, "successors"])


@lru_cache(maxsize=1)
def items(file: str, common_items: int) -> Items:
    """Read once per process."""
    return Items.read(Path(file), common_items)


@compiled
def _strongest(
    rows,
    starts,
    other,
    forward,
    backward,
    token_starts,
    token,
    token_weight,
    item_starts,
    item,
    item_weight,
    domain,
    damped,
    source_damped,
    back,
    alike,
    most,
):
    """Of each row's item the ``most`` heaviest others of each domain, heaviest first, and of equals the one with the smaller
    place: how many, then their places, weights and three signals."""
    size = len(domain)
    touched, known = np.empty(size, np.int64), np.zeros(size, np.bool_)
    signals, weight, taken = np.zeros((size, 3)), np.empty(size, np.float32), np.zeros(domain.max() + 1, np.int64)
    length, end, room = np.zeros(len(rows), np.int64), 0, 1024
    place, found = np.empty(room, np.int64), np.empty((room, 4), np.float32)
    for row in range(len(rows)):
        mine, count = rows[row], 0
        for link in range(starts[row], starts[row + 1]):
            at = other[link]
            known[at] = True
            touched[count] = at
            count += 1
            signals[at, 0], signals[at, 1] = forward[link], backward[link]
        for of in range(token_starts[mine], token_starts[mine + 1]):
            for link in range(item_starts[token[of]], item_starts[token[of] + 1]):
                at = item[link]
                if at == mine:
                    continue
                if not known[at]:
                    known[at] = True
                    touched[count] = at
                    count += 1
                signals[at, 2] += np.float64(token_weight[of] * item_weight[link])
        near = np.sort(touched[:count])
        for at in near:
            followed = (signals[at, 0] + signals[at, 1] * back) * damped[at] * source_damped[mine]
            weight[at] = np.float32(followed + signals[at, 2] * alike)
        for at in near[np.argsort(-weight[near], kind="mergesort")]:
            if weight[at] > 0 and taken[domain[at]] < most:
                taken[domain[at]] += 1
                if end == room:
                    room *= 2
                    place = np.append(place, np.empty(room - end, np.int64))
                    found = np.concatenate((found, np.empty((room - end, 4), np.float32)))
                place[end] = at
                found[end, 0] = weight[at]
                for signal in range(3):
                    found[end, signal + 1] = np.float32(signals[at, signal])
                length[row] += 1
                end += 1
        taken[:] = 0
        for at in near:
            known[at] = False
            signals[at] = 0
    return length, place[:end], found[:end, 0].copy(), found[:end, 1].copy(), found[:end, 2].copy(), found[:end, 3].copy()
