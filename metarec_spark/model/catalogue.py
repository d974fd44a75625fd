"""What a model knows of the items: domain, training events, content, successors. NumPy arrays, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Successors:
    """The items that follow, precede or resemble each item, in the rows of a sparse matrix; [I, I] with n entries."""

    indptr: np.ndarray
    """[I + 1] int64: start of each item's row."""
    indices: np.ndarray
    """[n] int32: successors, ascending in a row."""
    forward: np.ndarray
    """[n] float32: decayed count of pairs in which the successor came later."""
    backward: np.ndarray
    """[n] float32: the same, of pairs in which it came earlier."""
    similarity: np.ndarray
    """[n] float32: dot product of the shared content."""

    @classmethod
    def from_pairs(cls, size: int, item: np.ndarray, successor: np.ndarray, *signals: np.ndarray) -> Successors:
        """From arrays item, successor, forward, backward and similarity, [n] in any order, each pair at most once."""
        order = np.lexsort((successor, item))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=size))]).astype(np.int64)
        return cls(indptr, successor[order].astype(np.int32), *[signal[order].astype(np.float32) for signal in signals])

    def restricted(self, item: np.ndarray, successor: np.ndarray) -> Successors:
        """Only the pairs of items and successors in two masks, [I] bool each."""
        left = np.repeat(item, np.diff(self.indptr)) & successor[self.indices]
        indptr = np.append(0, np.cumsum(left))[self.indptr]
        return Successors(indptr, self.indices[left], self.forward[left], self.backward[left], self.similarity[left])

    def extended(self, size: int, item: np.ndarray, other: np.ndarray, similarity: np.ndarray) -> Successors:
        """Add items after these, which resemble others and have no transitions.

        Parameters
        ----------
        size
            Number of items afterwards.
        item, other, similarity
            [n] pairs of which at least one is an added item, in any order; each counts in both directions, once.
        """
        before = len(self.indptr) - 1
        row, column = np.concatenate([item, other]).astype(np.int64), np.concatenate([other, item])
        _, once = np.unique(row * size + column, return_index=True)  # and in order of row and column
        row, column, similarity = row[once], column[once].astype(np.int32), np.tile(similarity, 2)[once]
        # An added item belongs at the end of an earlier item's row; the rows of added items belong at the end of all rows.
        at = self.indptr[np.minimum(row + 1, before)]
        indptr = np.concatenate([self.indptr, np.full(size - before, self.indptr[-1])])
        indptr[1:] += np.cumsum(np.bincount(row, minlength=size))
        forward, backward = np.insert(self.forward, at, 0), np.insert(self.backward, at, 0)
        return Successors(
            indptr, np.insert(self.indices, at, column), forward, backward, np.insert(self.similarity, at, similarity)
        )


@dataclass(frozen=True)
class Catalogue:
    """Items 0 … I-1 over all domains."""

    domain: np.ndarray
    """[I] int32: position of the item's domain in the model's list of domains."""
    events: np.ndarray
    """[I] int64: training events of the item; its popularity."""
    tokens: np.ndarray
    """[I, A] int32: content tokens, padded with 0; token 0 means none."""
    weights: np.ndarray
    """[I, A] float32: weights of the tokens, 0 for padding."""
    token_hashes: np.ndarray
    """[V] int64: hash of each token; position 0 is the padding's and unused."""
    vectors: np.ndarray
    """[I, W] float32: given content vectors, of length 1; zeros for an item without one. W is 0 if no item has one."""
    successors: Successors

    @property
    def size(self) -> int:
        """Number of items I."""
        return len(self.domain)

    @property
    def has_content(self) -> np.ndarray:
        """[I] bool: whether an item has a token or a given vector."""
        return self.weights.any(1) | self.vectors.any(1)

    @cached_property
    def of_domain(self) -> list[np.ndarray]:
        """The ascending indexes of each domain's items, [I_d] int64 each; an item's position there is its local index."""
        return [np.flatnonzero(self.domain == d) for d in range(int(self.domain.max(initial=-1)) + 1)]

    def links(self, domain: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs whose successor is in a domain: items and local indexes of successors, [n] each, and the mask of these pairs.

        Computed once for each domain.
        """
        if domain not in self._links:
            pairs, items = self.successors, self.of_domain[domain]
            inside = self.domain[pairs.indices] == domain
            local_index = np.empty(self.size, np.int32)
            local_index[items] = np.arange(len(items), dtype=np.int32)
            item = np.repeat(np.arange(self.size, dtype=np.int32), np.diff(pairs.indptr))[inside]
            self._links[domain] = item, local_index[pairs.indices[inside]], inside
        return self._links[domain]

    @cached_property
    def _links(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return {}


def pack_tokens(
    item_idx: np.ndarray, hashes: np.ndarray, weights: np.ndarray, items: int, max_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring (item, token hash, weight) triples to the padded form of :class:`Catalogue`.

    Tokens of a single item distinguish it from no other and are left out. An item with more than ``max_tokens`` tokens keeps the
    heaviest; ties go to the smaller token.

    Parameters
    ----------
    item_idx, hashes, weights
        [n] int, [n] int64, [n] float32.
    items
        Number of items I.
    max_tokens
        Largest width A.

    Returns
    -------
    tokens, weights, token_hashes
        As in :class:`Catalogue`.
    """
    known, inverse, count = np.unique(hashes, return_inverse=True, return_counts=True)
    shared = count[inverse] > 1
    vocabulary = known[count > 1]
    token = np.cumsum(count > 1)[inverse]  # from 1; 0 is padding
    item_idx, token, weights = item_idx[shared], token[shared], weights[shared]
    width = max(1, min(max_tokens, int(np.bincount(item_idx).max(initial=0))))
    tokens, padded = pad_tokens(item_idx, token, weights, items, width)
    return tokens, padded, np.concatenate([[0], vocabulary]).astype(np.int64)


def pad_tokens(
    item_idx: np.ndarray, token: np.ndarray, weights: np.ndarray, items: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and their weights as :class:`Catalogue` has them, [items, width] each; an item's heaviest tokens stay.

    Parameters
    ----------
    item_idx, token, weights
        [n] items, numbers of their tokens in the model's vocabulary, and weights, in any order.
    """
    order = np.lexsort((token, -weights, item_idx))
    item_idx, token, weights = item_idx[order], token[order], weights[order]
    per_item = np.bincount(item_idx, minlength=items)
    slot = np.arange(len(item_idx)) - np.repeat(np.cumsum(per_item) - per_item, per_item)
    fits = slot < width
    tokens = np.zeros((items, width), np.int32)
    padded = np.zeros((items, width), np.float32)
    tokens[item_idx[fits], slot[fits]] = token[fits]
    padded[item_idx[fits], slot[fits]] = weights[fits]
    return tokens, padded


def pack_vectors(item_idx: np.ndarray, numbers: np.ndarray, lengths: np.ndarray, items: int, widths: Sequence[int]) -> np.ndarray:
    """Bring given content vectors to the form of :class:`Catalogue`.

    Vectors of one width are assumed to come from one encoder, whatever their domain: each width has columns of its own. Their
    scale carries no information: each vector is normalised to length 1.

    Parameters
    ----------
    item_idx, lengths
        [n] int: item and width of each vector; an item at most once.
    numbers
        The finite float32 numbers of all vectors, one vector after another.
    items
        Number of items I.
    widths
        The widths to take, in the order of their columns.

    Returns
    -------
    [I, sum of widths] float32.
    """
    packed = np.zeros((items, sum(widths)), np.float32)
    first = 0
    for width in widths:
        chosen = lengths == width
        part = numbers[np.repeat(chosen, lengths)].reshape(-1, width)
        norm = np.sqrt(np.einsum("nw,nw->n", part, part, dtype=np.float64))  # in float32, large numbers would overflow
        packed[item_idx[chosen], first : first + width] = part / np.where(norm > 0, norm, 1.0)[:, None]
        first += width
    return packed


def read_vectors(part: Path, items: range, widths: Sequence[int]) -> np.ndarray:
    """Read the given content vectors of a range of items as :class:`Catalogue` has them, [items, sum of widths]."""
    table = pq.read_table(part).filter(pc.field("item_idx") < items.stop)
    vector = table["vector"].combine_chunks()
    index, lengths = table["item_idx"].to_numpy() - items.start, pc.list_value_length(vector).to_numpy()
    return pack_vectors(index, vector.flatten().to_numpy(), lengths, len(items), widths)
