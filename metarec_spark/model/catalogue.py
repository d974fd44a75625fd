"""What a model knows of the items: domain, training events, content, successors. Plain NumPy arrays."""

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
    """For each item, the items that follow, precede or resemble it, in the rows of a sparse matrix; [I, I] with n entries."""

    indptr: np.ndarray
    """[I + 1] int64: where each item's row starts."""
    indices: np.ndarray
    """[n] int32: successors, ascending in a row."""
    forward: np.ndarray
    """[n] float32: decayed count of pairs in which the successor came later."""
    backward: np.ndarray
    """[n] float32: the same where it came earlier."""
    similarity: np.ndarray
    """[n] float32: scalar product of the shared content."""

    @classmethod
    def of(cls, size: int, item: np.ndarray, successor: np.ndarray, *signals: np.ndarray) -> Successors:
        """From (item, successor, forward, backward, similarity) entries in any order, each pair at most once."""
        order = np.lexsort((successor, item))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=size))]).astype(np.int64)
        return cls(indptr, successor[order].astype(np.int32), *[signal[order].astype(np.float32) for signal in signals])

    def only(self, item: np.ndarray, successor: np.ndarray) -> Successors:
        """Those of some items that are some items, [I] bool each."""
        into = np.repeat(item, np.diff(self.indptr)) & successor[self.indices]
        indptr = np.append(0, np.cumsum(into))[self.indptr]
        return Successors(indptr, self.indices[into], self.forward[into], self.backward[into], self.similarity[into])

    def extended(self, size: int, item: np.ndarray, other: np.ndarray, similarity: np.ndarray) -> Successors:
        """With items after these, which resemble others and follow none.

        Parameters
        ----------
        size
            Number of items then.
        item, other, similarity
            [n] pairs of which one at least is a later item, in any order; each counts in both directions, once.
        """
        before = len(self.indptr) - 1
        row, column = np.concatenate([item, other]).astype(np.int64), np.concatenate([other, item])
        _, once = np.unique(row * size + column, return_index=True)  # and in order of row and column
        row, column, alike = row[once], column[once].astype(np.int32), np.tile(similarity, 2)[once]
        # A later item stands at the end of an earlier one's row; the rows of later items stand at the end of all.
        at = self.indptr[np.minimum(row + 1, before)]
        indptr = np.concatenate([self.indptr, np.full(size - before, self.indptr[-1])])
        indptr[1:] += np.cumsum(np.bincount(row, minlength=size))
        forward, backward = np.insert(self.forward, at, 0), np.insert(self.backward, at, 0)
        return Successors(indptr, np.insert(self.indices, at, column), forward, backward, np.insert(self.similarity, at, alike))


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
    """[I, W] float32: given content vectors, of length 1; zeros where there is none. W is 0 where no item has one."""
    successors: Successors
    """What each item lends to others."""

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
        """For each domain, the indexes of its items, ascending; [I_d] int64."""
        return [np.flatnonzero(self.domain == d) for d in range(int(self.domain.max(initial=-1)) + 1)]

    def links(self, domain: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the successors, those in one domain: items, and the successors' places in ``of_domain[domain]``, [n] each; and the
        mask that takes their signals. Made once."""
        if domain not in self._links:
            part, items = self.successors, self.of_domain[domain]
            into = self.domain[part.indices] == domain
            place = np.empty(self.size, np.int32)
            place[items] = np.arange(len(items), dtype=np.int32)
            row = np.repeat(np.arange(self.size, dtype=np.int32), np.diff(part.indptr))[into]
            self._links[domain] = row, place[part.indices[into]], into
        return self._links[domain]

    @cached_property
    def _links(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return {}


def pack_tokens(
    item_idx: np.ndarray, hashes: np.ndarray, weights: np.ndarray, items: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring (item, token hash, weight) triples to the padded form of :class:`Catalogue`.

    Tokens of a single item tell it from no other and are left out. Of an item with more than ``most`` tokens the heaviest
    stay; ties go to the smaller token.

    Parameters
    ----------
    item_idx, hashes, weights
        [n] int, [n] int64, [n] float32.
    items
        Number of items I.
    most
        Width A, at most.

    Returns
    -------
    tokens, weights, token_hashes
        As in :class:`Catalogue`.
    """
    known, inverse, count = np.unique(hashes, return_inverse=True, return_counts=True)
    shared = count[inverse] > 1
    vocabulary = known[count > 1]
    place = np.cumsum(count > 1)[inverse]  # from 1; 0 is padding
    item_idx, place, weights = item_idx[shared], place[shared], weights[shared]
    width = max(1, min(most, int(np.bincount(item_idx).max(initial=0))))
    tokens, padded = pad_tokens(item_idx, place, weights, items, width)
    return tokens, padded, np.concatenate([[0], vocabulary]).astype(np.int64)


def pad_tokens(
    item_idx: np.ndarray, place: np.ndarray, weights: np.ndarray, items: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens by place, and their weights, as :class:`Catalogue` has them, [items, width] each; of more, the heaviest stay."""
    order = np.lexsort((place, -weights, item_idx))
    item_idx, place, weights = item_idx[order], place[order], weights[order]
    per_item = np.bincount(item_idx, minlength=items)
    slot = np.arange(len(item_idx)) - np.repeat(np.cumsum(per_item) - per_item, per_item)
    kept = slot < width
    tokens = np.zeros((items, width), np.int32)
    padded = np.zeros((items, width), np.float32)
    tokens[item_idx[kept], slot[kept]] = place[kept]
    padded[item_idx[kept], slot[kept]] = weights[kept]
    return tokens, padded


def pack_vectors(item_idx: np.ndarray, numbers: np.ndarray, lengths: np.ndarray, items: int, widths: Sequence[int]) -> np.ndarray:
    """Bring given vectors to the form of :class:`Catalogue`.

    Vectors of one width are taken to come from one encoder, whatever their domain: each width has columns of its own. Their
    scale says nothing: each vector gets length 1.

    Parameters
    ----------
    item_idx, lengths
        [n] int: item and width of each vector; an item at most once.
    numbers
        The finite float32 numbers of all of them, one after the other.
    items
        Number of items I.
    widths
        The widths that count, in the order of their columns.

    Returns
    -------
    [I, sum of widths] float32.
    """
    packed = np.zeros((items, sum(widths)), np.float32)
    first = 0
    for width in widths:
        of_width = lengths == width
        part = numbers[np.repeat(of_width, lengths)].reshape(-1, width)
        norm = np.sqrt(np.einsum("nw,nw->n", part, part, dtype=np.float64))  # in float32, large numbers would overflow
        packed[item_idx[of_width], first : first + width] = part / np.where(norm > 0, norm, 1.0)[:, None]
        first += width
    return packed


def read_vectors(part: Path, items: range, widths: Sequence[int]) -> np.ndarray:
    """Given vectors of a range of items, [items, sum of widths], as :class:`Catalogue` has them."""
    table = pq.read_table(part).filter(pc.field("item_idx") < items.stop)
    vector = table["vector"].combine_chunks()
    index, lengths = table["item_idx"].to_numpy() - items.start, pc.list_value_length(vector).to_numpy()
    return pack_vectors(index, vector.flatten().to_numpy(), lengths, len(items), widths)
