"""The exact top-N: a blocked matrix product and a selection. No Spark, no model.

A users × items matrix never exists: one block of scores does; see :func:`metarec_spark.scoring.ranking.block_rows`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from metarec_spark.scoring.ranking import Seen, block_rows, hide

MOST_ROWS = 512


def top_n(
    users: np.ndarray, items: np.ndarray, seen: list[np.ndarray], n: int, additions: sparse.csr_matrix | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` items with the highest score for each user, seen items left out, ties to the smaller index.

    The score is the scalar product of the vectors, plus what is added for single items.

    Parameters
    ----------
    users
        [U, D] float32.
    items
        [I, D] float32.
    seen
        U int64 arrays of item indexes to leave out.
    n
        Items wanted.
    additions
        [U, I] float32, finite.

    Returns
    -------
    index
        [U, n] int64, best first; -1 where a user has fewer than ``n`` items left.
    score
        [U, n] float32; -inf there.

    Raises
    ------
    ValueError
        Where a vector is not finite.

    Notes
    -----
    Every block has the same number of rows, padded with zeros, so that a user's scores do not depend on who shares the block.
    Memory: ``ranking.BLOCK_BYTES`` for scores, and U × n for the result.
    """
    if not all(np.isfinite(numbers).all() for numbers in (users, items, *([] if additions is None else [additions.data]))):
        raise ValueError("vectors and additions must be finite: got NaN or infinity")
    rows = block_rows(len(items), MOST_ROWS)
    index = np.full((len(users), n), -1, np.int64)
    score = np.full((len(users), n), -np.inf, np.float32)
    kept = min(n, len(items))
    transposed = torch.from_numpy(np.ascontiguousarray(items)).T
    for start in range(0, len(users), rows):
        part = users[start : start + rows]
        block = torch.zeros(rows, users.shape[1])
        block[: len(part)] = torch.from_numpy(part)
        scores = (block @ transposed)[: len(part)]
        if additions is not None:
            added = additions[start : start + rows].tocoo()
            scores[torch.from_numpy(added.row.astype(np.int64)), torch.from_numpy(added.col.astype(np.int64))] += (
                torch.from_numpy(added.data)
            )
        hide(scores, _flat(seen[start : start + rows]))
        index[start : start + rows, :kept], score[start : start + rows, :kept] = select(scores, kept)
    index[score == -np.inf] = -1
    return index, score


def _flat(seen: list[np.ndarray]) -> Seen:
    return np.repeat(np.arange(len(seen)), [len(items) for items in seen]), np.concatenate(seen)


def select(scores: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` largest of each row, by (score descending, index ascending): [rows, n] indexes and scores."""
    if n == 0:
        return np.empty((len(scores), 0), np.int64), np.empty((len(scores), 0), np.float32)
    value, index = torch.topk(scores, n, dim=1)
    value, index = value.numpy(), index.numpy()
    # topk breaks ties as it likes: order ties inside the list, then see whether one was cut at its end.
    order = np.lexsort((index, -value), axis=1)
    value, index = np.take_along_axis(value, order, 1), np.take_along_axis(index, order, 1)
    last = torch.from_numpy(value[:, -1:].copy())
    cut = ((scores == last).sum(1) > torch.from_numpy((value == value[:, -1:]).sum(1))).numpy() & np.isfinite(value[:, -1])
    for row in np.flatnonzero(cut):
        all_scores = scores[row].numpy()
        above = int((value[row] > value[row, -1]).sum())
        index[row, above:] = np.flatnonzero(all_scores == value[row, -1])[: n - above]
    return index, value
