"""The exact top-N of scalar products: a first pass over 8-bit integers, whose error is bounded, then true scores of what is left.

No Spark, no model. A users × items matrix never exists. Shape suffixes: U users, I items, D numbers in a vector.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy import sparse

from metarec_spark.scoring.topn_kernels import CHUNK, DEPTH, LANES, quantised, scan, sort

ROWS, TILE = 128, 16_384
"""Users and items whose products are in memory at a time."""
_SLACK = 1e-6
"""What rounding loses in a bound, as a share of the product of two lengths; ten times too much."""
_TINY, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""What float32 loses near zero, at most; and its largest number."""


@dataclass(frozen=True)
class _Rough:
    """Vectors as the first pass multiplies them: ``vectors`` is about ``scale`` times ``values``."""

    values: np.ndarray
    """[R, D or more] int8, or [R, D] float32."""
    scale: np.ndarray
    """[R]."""
    lost: np.ndarray
    """[R] length of what the rough vector lacks."""
    length: np.ndarray
    """[R] of the vector."""

    @classmethod
    def of(cls, vectors: np.ndarray, *, alike: bool) -> _Rough:
        """``alike``: all get the same scale."""
        if exact_integers():
            return cls(*quantised(vectors, alike))
        length = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return cls(vectors, np.ones(len(vectors)), length * vectors.shape[1] * np.finfo(np.float32).eps, length)


@dataclass(frozen=True)
class _Tile:
    """Items that are multiplied at a time."""

    first: int
    size: int
    transposed: torch.Tensor
    """[D or more, size up to a whole chunk] rough items."""
    scale: float
    lost: float
    length: float
    """As of :class:`_Rough`, the largest."""

    @classmethod
    def of(cls, first: int, items: np.ndarray) -> _Tile:
        rough = _Rough.of(items, alike=True)
        filled = np.pad(rough.values, ((0, -len(items) % CHUNK), (0, 0)))
        return cls(first, len(items), torch.from_numpy(filled).T, rough.scale[0], rough.lost.max(), rough.length.max())


class ExactIndex:
    """Items, prepared for exact searches.

    Parameters
    ----------
    items
        [I, D] float32.

    Raises
    ------
    ValueError
        Where a vector is not finite.

    Notes
    -----
    A score is the scalar product in float64 plus what is added, so it depends on the user and the item alone, and not on who
    shares a block; it is rounded to float32 at the end. With u ≈ û and v ≈ v̂, |u·v - û·v̂| ≤ |u - û| |v̂| + |u| |v - v̂| (Cauchy and
    Schwarz). Items whose rough product is further than that below the n-th best score known so far are left out; of the others
    the score is computed. Before n scores are known, the n-th largest of the groups' maxima stands for them.

    Searching takes ``ROWS`` × ``TILE`` × 4 bytes for products, ``ROWS`` × 16 n for lists, the result, and 1.25 times the items'
    bytes; twice, where integer products are not exact and float32 is multiplied first.

    Measured and left out: bfloat16 products, half as fast; a rotation of the vectors that evens their numbers out, which saves a
    fifth of the true scores and no time; true scores one by one as they are found, twice as slow for branches guessed wrongly.
    """

    def __init__(self, items: np.ndarray) -> None:
        self.items = _finite(items, "items")
        self._tiles = [_Tile.of(first, self.items[first : first + TILE]) for first in range(0, len(items), TILE)]

    def search(
        self,
        users: np.ndarray,
        n: int,
        seen: sparse.csr_matrix | None = None,
        additions: sparse.csr_matrix | None = None,
        threads: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ``n`` items with the highest score for each user, seen items left out; ties go to the smaller index.

        Parameters
        ----------
        users
            [U, D] float32.
        n
            Items wanted.
        seen
            [U, I]; what has an entry is no candidate.
        additions
            [U, I] float32; added to the product.
        threads
            That share the users; products are made with PyTorch's own number of threads in each of them.

        Returns
        -------
        index
            [U, n] int64, best first; -1 where a user has fewer than ``n`` items left.
        score
            [U, n] float32; -inf there.

        Raises
        ------
        ValueError
            Where a number is not finite, a score would not be, or shapes do not fit.
        """
        if users.ndim != 2 or users.shape[1] != self.items.shape[1]:
            raise ValueError(f"users must be [U, {self.items.shape[1]}], as the items are: got {users.shape}")
        users, kept = _finite(users, "users"), min(n, len(self.items))
        shape = len(users), len(self.items)
        hidden, added = (_canonical(of, shape, name) for of, name in ((seen, "seen"), (additions, "additions")))
        _finite(added.data, "additions")
        index, score = np.full((len(users), n), -1, np.int64), np.full((len(users), n), -np.inf, np.float32)

        def some(starts: np.ndarray) -> None:
            room = torch.empty(ROWS * TILE, dtype=torch.int32 if exact_integers() else torch.float32)
            for start in starts:
                block = slice(start, start + ROWS)
                index[block, :kept], score[block, :kept] = self._search(users[block], kept, hidden[block], added[block], room)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, np.array_split(np.arange(0, len(users) if kept else 0, ROWS), threads)))
        return index, score

    def _search(
        self, users: np.ndarray, n: int, hidden: sparse.csr_matrix, added: sparse.csr_matrix, room: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        rows, rough = len(users), _Rough.of(users, alike=False)
        values, integers = torch.from_numpy(rough.values), exact_integers()
        # What stands for an item that is no candidate, and the least that stands for one.
        floor = (np.int32(-(2**31)), -(2.0**31) + 1) if integers else (np.float32(-np.inf), float(np.finfo(np.float32).min))
        score, index = np.empty((rows, n)), np.empty((rows, n), np.int64)
        count, least = np.zeros(rows, np.int64), np.full(rows, -np.inf)
        hidden_at, added_at = hidden.indptr[:-1].copy(), added.indptr[:-1].copy()
        for tile in self._tiles:
            if rough.length.max() * tile.length > _LARGEST:
                raise ValueError(f"vectors of length {rough.length.max():.3g} and {tile.length:.3g} have products beyond float32")
            products = _products(values, tile.transposed, room).reshape(rows, -1, DEPTH, LANES)
            bound = (
                rough.lost * (tile.length + tile.lost) + rough.length * tile.lost + _SLACK * rough.length * tile.length + _TINY
            )
            of_items = tile.first, tile.size, self.items, users, rough.scale * tile.scale, bound
            of_users = hidden.indptr, hidden.indices, hidden_at, added.indptr, added.indices, added.data, added_at
            scan(products, *floor, *of_items, *of_users, score, index, count, least)
        sort(score, index, count)
        missing = np.arange(n) >= count[:, None]
        return np.where(missing, -1, index), np.where(missing, -np.inf, score)


def _finite(numbers: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(numbers, np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite float32: got NaN, infinity or more than {_LARGEST:.3g}")
    return numbers


def _canonical(matrix: sparse.csr_matrix | None, shape: tuple[int, int], name: str) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(shape, dtype=np.float32) if matrix is None else matrix.astype(np.float32, copy=False)
    if matrix.shape != shape:
        raise ValueError(f"{name} must be [users, items] = {shape}: got {matrix.shape}")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


@cache
def exact_integers() -> bool:
    """Whether products of 8-bit integers are exact here: processors without instructions for them may clip their sums."""
    most = torch.full((LANES, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(most, most.T) == 64 * 127**2).all()) and bool((torch._int_mm(most, -most.T) == -64 * 127**2).all())


def _products(users: torch.Tensor, transposed: torch.Tensor, room: torch.Tensor) -> np.ndarray:
    """[R, T] of the type of ``room``, in which they are."""
    out = room[: len(users) * transposed.shape[1]].view(len(users), -1)
    return (torch.mm if users.is_floating_point() else torch._int_mm)(users, transposed, out=out).numpy()
