"""What a model knows of the items: domain, training events, content tokens, transitions. Plain NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse


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
    transitions: sparse.csr_matrix
    """[I, I] float32: successors' weights of each item."""

    @property
    def size(self) -> int:
        """Number of items I."""
        return len(self.domain)

    @cached_property
    def of_domain(self) -> list[np.ndarray]:
        """For each domain, the indexes of its items, ascending; [I_d] int64."""
        return [np.flatnonzero(self.domain == d) for d in range(int(self.domain.max(initial=-1)) + 1)]


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
    order = np.lexsort((place, -weights, item_idx))
    item_idx, place, weights = item_idx[order], place[order], weights[order]
    per_item = np.bincount(item_idx, minlength=items)
    slot = np.arange(len(item_idx)) - np.repeat(np.cumsum(per_item) - per_item, per_item)
    width = max(1, min(most, int(per_item.max(initial=0))))
    kept = slot < width
    tokens = np.zeros((items, width), np.int32)
    padded = np.zeros((items, width), np.float32)
    tokens[item_idx[kept], slot[kept]] = place[kept]
    padded[item_idx[kept], slot[kept]] = weights[kept]
    return tokens, padded, np.concatenate([[0], vocabulary]).astype(np.int64)
