"""Ranks of target items among the items of a domain, and the NDCG of a rank. No Spark, no model.

An item is addressed by its local index: its position in the domain's ascending item indexes. Shape suffixes: B users, I items of
the domain.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

CUTOFF = 10
"""List length of the NDCG by which models are tuned and judged; `metarec adapt` chooses by a longer one."""
BLOCK_BYTES = 64 * 2**20
"""Most bytes of a block of float32 scores, unless one user's scores alone take more."""
Seen = tuple[np.ndarray, np.ndarray]
"""Rows of users, and local indexes of items that are hidden from them."""


def block_rows(items: int, most: int) -> int:
    """Number of users, at most ``most``, whose scores of ``items`` items fit into ``BLOCK_BYTES``."""
    return int(np.clip(BLOCK_BYTES // (4 * max(1, items)), 1, most))


def local_indexes(items: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Local index of each wanted item in ascending ``items``; -1 if it is not among them."""
    if not len(items):
        return np.full(len(wanted), -1)
    index = np.searchsorted(items, wanted, side="right") - 1  # the last item that is not above; -1 is the very last, which is
    return np.where(items[index] == wanted, index, -1)


def seen_local_indexes(items: np.ndarray, seen: np.ndarray, count_B: np.ndarray) -> Seen:
    """Rows and local indexes of the items that users have seen.

    Parameters
    ----------
    seen
        Item indexes, one user's after another's; items of other domains are left out.
    count_B
        Number of them by user.
    """
    row, index = np.repeat(np.arange(len(count_B)), count_B), local_indexes(items, seen)
    return row[index >= 0], index[index >= 0]


def hide(scores_BI: Tensor, seen: Seen) -> Tensor:
    """Set the scores of seen items to -inf, in place, and return all scores."""
    row, index = seen
    scores_BI[torch.from_numpy(row), torch.from_numpy(index)] = -torch.inf
    return scores_BI


def ranks(scores_BI: Tensor, target_B: np.ndarray) -> np.ndarray:
    """Rank of each target, from 1, [B]. Items with the target's score rank before it: ties count against the target."""
    own_B1 = scores_BI[torch.arange(len(target_B)), torch.from_numpy(target_B)][:, None]
    return scores_BI.shape[1] - _count(scores_BI < own_B1)


def _count(of_BI: Tensor) -> np.ndarray:
    """How many are true in each row, [B]; a sum of PyTorch's takes several times as long."""
    return np.asarray(np.count_nonzero(of_BI.numpy(), axis=1))


def sparse_ranks(scores_BI: sparse.csr_matrix, target_B: np.ndarray, seen: Seen) -> np.ndarray:
    """As :func:`ranks`, of sparse scores ≥ 0 with seen items hidden; a target with score 0 ranks last, behind seen items too."""
    row_B, size = np.arange(len(target_B)), scores_BI.shape[1]
    own_B = np.asarray(scores_BI[row_B, target_B]).ravel()
    hidden = sparse.csr_matrix((np.ones(len(seen[0]), np.float32), seen), shape=scores_BI.shape) > 0
    left = scores_BI - scores_BI.multiply(hidden)
    row = np.repeat(row_B, np.diff(left.indptr))
    ahead_B = np.bincount(row[left.data >= own_B[row]], minlength=len(row_B))
    return np.where(own_B > 0, ahead_B, size)


def ndcg(rank: np.ndarray, cutoff: int = CUTOFF) -> np.ndarray:
    """NDCG@cutoff of each rank, from 1: 1 / log2(rank + 1) up to the cutoff, else 0 (Järvelin & Kekäläinen, 2002).

    There is one relevant item, so the ideal DCG is 1.
    """
    return np.where(rank <= cutoff, 1 / np.log2(rank + 1.0), 0.0)


def select(scores_BI: Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Local indexes and scores of the ``n`` largest scores of each row, by (score descending, index ascending), [B, n]."""
    if n == 0:
        return np.empty((len(scores_BI), 0), np.int64), np.empty((len(scores_BI), 0), np.float32)
    top_value, top_index = torch.topk(scores_BI, n, dim=1)
    value, index = top_value.numpy(), top_index.numpy()
    # topk breaks ties as it likes: order ties inside the list, then see whether one was cut at its end.
    order = np.lexsort((index, -value), axis=1)
    value, index = np.take_along_axis(value, order, 1), np.take_along_axis(index, order, 1)
    last = torch.from_numpy(value[:, -1:].copy())
    cut = (_count(scores_BI == last) > (value == value[:, -1:]).sum(1)) & np.isfinite(value[:, -1])
    for row in np.flatnonzero(cut):
        all_scores = scores_BI[row].numpy()
        above = int((value[row] > value[row, -1]).sum())
        index[row, above:] = np.flatnonzero(all_scores == value[row, -1])[: n - above]
    return index, value
