"""What is ranked for a user: the items of a domain but those that the user has seen; and a target's rank among them.

Items are addressed by their place in the domain's ascending items. No Spark, no model. Shape suffixes: B users, I items.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

BLOCK_BYTES = 64 * 2**20
"""Of a block of float32 scores, at most, unless one user's alone are more."""
Seen = tuple[np.ndarray, np.ndarray]
"""Rows of users, and places of items in them, that are no candidates."""


def block_rows(items: int, most: int) -> int:
    """Users, at most ``most``, whose scores of so many items fit into ``BLOCK_BYTES``."""
    return int(np.clip(BLOCK_BYTES // (4 * max(1, items)), 1, most))


def places(items: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Place of each wanted item in ascending ``items``; -1 where it is not among them."""
    if not len(items):
        return np.full(len(wanted), -1)
    place = np.searchsorted(items, wanted, side="right") - 1  # the last item that is not above; -1 is the very last, which is
    return np.where(items[place] == wanted, place, -1)


def seen_places(items: np.ndarray, seen: np.ndarray, count_B: np.ndarray) -> Seen:
    """Rows and places of what users have seen; ``seen`` lists one user's items after the other's, ``count_B`` of each."""
    row, place = np.repeat(np.arange(len(count_B)), count_B), places(items, seen)
    return row[place >= 0], place[place >= 0]


def hide(scores_BI: Tensor, seen: Seen) -> Tensor:
    """Set the scores of seen items to -inf, in place, and return them all."""
    row, place = seen
    scores_BI[torch.from_numpy(row), torch.from_numpy(place)] = -torch.inf
    return scores_BI


def ranks(scores_BI: Tensor, target_B: np.ndarray) -> np.ndarray:
    """Rank of each target place, from 1, [B]: all that is not below it stands before it, so ties count against the target."""
    own_B1 = scores_BI[torch.arange(len(target_B)), torch.from_numpy(target_B)][:, None]
    return scores_BI.shape[1] - (scores_BI < own_B1).sum(1).numpy()


def sparse_ranks(scores_BI: sparse.csr_matrix, target_B: np.ndarray, seen: Seen) -> np.ndarray:
    """The same of sparse scores ≥ 0, seen items hidden; a target with score 0 stands behind every item, seen or not."""
    row_B, size = np.arange(len(target_B)), scores_BI.shape[1]
    own_B = np.asarray(scores_BI[row_B, target_B]).ravel()
    hidden = sparse.csr_matrix((np.ones(len(seen[0]), np.float32), seen), shape=scores_BI.shape) > 0
    left = scores_BI - scores_BI.multiply(hidden)
    row = np.repeat(row_B, np.diff(left.indptr))
    ahead_B = np.bincount(row[left.data >= own_B[row]], minlength=len(row_B))
    return np.where(own_B > 0, ahead_B, size)


def select(scores_BI: Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` largest of each row, by (score descending, index ascending): [B, n] places and scores."""
    if n == 0:
        return np.empty((len(scores_BI), 0), np.int64), np.empty((len(scores_BI), 0), np.float32)
    value, index = torch.topk(scores_BI, n, dim=1)
    value, index = value.numpy(), index.numpy()
    # topk breaks ties as it likes: order ties inside the list, then see whether one was cut at its end.
    order = np.lexsort((index, -value), axis=1)
    value, index = np.take_along_axis(value, order, 1), np.take_along_axis(index, order, 1)
    last = torch.from_numpy(value[:, -1:].copy())
    cut = ((scores_BI == last).sum(1) > torch.from_numpy((value == value[:, -1:]).sum(1))).numpy() & np.isfinite(value[:, -1])
    for row in np.flatnonzero(cut):
        all_scores = scores_BI[row].numpy()
        above = int((value[row] > value[row, -1]).sum())
        index[row, above:] = np.flatnonzero(all_scores == value[row, -1])[: n - above]
    return index, value
