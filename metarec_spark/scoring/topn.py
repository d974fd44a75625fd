"""Exact maximum inner-product search: a first pass over 8-bit integers with a bounded error, then true scores of what remains.

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
"""Rounding error of a bound, relative to the product of two lengths; ten times the true one."""
_TINY, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Largest absolute rounding error of float32 near zero, and its largest number."""


@dataclass(frozen=True)
class _Quantised:
    """Vectors as the first pass multiplies them: a vector is about ``scale`` times ``values``."""

    values: np.ndarray
    """[R, D or more] int8, or [R, D] float32."""
    scale: np.ndarray
    """[R] float64."""
    error: np.ndarray
    """[R] length of the difference to the vector."""
    length: np.ndarray
    """[R] length of the vector."""

    @classmethod
    def from_vectors(cls, vectors: np.ndarray, *, one_scale: bool) -> _Quantised:
        """Quantise vectors, each with its own scale or all with one."""
        if exact_integers():
            return cls(*quantised(vectors, one_scale))
        length = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return cls(vectors, np.ones(len(vectors)), length * vectors.shape[1] * np.finfo(np.float32).eps, length)


@dataclass(frozen=True)
class _Tile:
    """Items that are multiplied together."""

    first: int
    size: int
    transposed: torch.Tensor
    """[D or more, size rounded up to a whole chunk] quantised items."""
    scale: float
    error: float
    length: float
    """Largest values of :class:`_Quantised`."""

    @classmethod
    def from_items(cls, first: int, items: np.ndarray) -> _Tile:
        rough = _Quantised.from_vectors(items, one_scale=True)
        filled = np.pad(rough.values, ((0, -len(items) % CHUNK), (0, 0)))
        return cls(first, len(items), torch.from_numpy(filled).T, rough.scale[0], rough.error.max(), rough.length.max())


class ExactIndex:
    """Search index over the item vectors of one platform.

    Parameters
    ----------
    items
        [I, D] float32.

    Raises
    ------
    ValueError
        If a vector is not finite.

    Notes
    -----
    A score is the scalar product in float64 plus the addition, so it depends on the user and the item alone, not on the other
    users of a block; it is rounded to float32 at the end. With u ≈ û and v ≈ v̂, |u·v - û·v̂| ≤ |u - û| |v̂| + |u| |v - v̂|
    (Cauchy and Schwarz). Items whose quantised product is further than that below the n-th best score so far are skipped; for
    the others the score is computed. Before n scores are known, the n-th largest of the groups' maxima replaces the n-th best.

    Searching takes ``ROWS`` × ``TILE`` × 4 bytes for products, ``ROWS`` × 16 n for lists, the result, and 1.25 times the items'
    bytes; twice, where integer products are not exact and float32 is multiplied first.

    Tried and rejected: bfloat16 products, half as fast; a rotation that evens out the numbers of the vectors, which saves a fifth
    of the true scores and no time; computing true scores one by one as they are found, twice as slow by branch mispredictions.
    """

    def __init__(self, items: np.ndarray) -> None:
        self.items = _finite(items, "items")
        self._tiles = [_Tile.from_items(first, self.items[first : first + TILE]) for first in range(0, len(items), TILE)]

    def search(
        self,
        users: np.ndarray,
        n: int,
        seen: sparse.csr_matrix | None = None,
        additions: sparse.csr_matrix | None = None,
        threads: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ``n`` items with the highest score for each user, without seen items; ties go to the smaller index.

        Parameters
        ----------
        users
            [U, D] float32.
        n
            Length of the lists.
        seen
            [U, I]; an item with an entry is not returned.
        additions
            [U, I] float32; added to the scalar product.
        threads
            Threads that share the users; each multiplies with PyTorch's own number of threads.

        Returns
        -------
        index
            [U, n] int64, best first; -1 if a user has fewer than ``n`` items left.
        score
            [U, n] float32; -inf there.

        Raises
        ------
        ValueError
            If a number is not finite, a score would not be, or shapes do not fit.
        """
        if users.ndim != 2 or users.shape[1] != self.items.shape[1]:
            raise ValueError(f"users must be [U, {self.items.shape[1]}], as the items are: got {users.shape}")
        users, list_length = _finite(users, "users"), min(n, len(self.items))
        shape = len(users), len(self.items)
        hidden, added = _canonical(seen, shape, "seen"), _canonical(additions, shape, "additions")
        _finite(added.data, "additions")
        index, score = np.full((len(users), n), -1, np.int64), np.full((len(users), n), -np.inf, np.float32)

        def search_blocks(starts: np.ndarray) -> None:
            buffer = torch.empty(ROWS * TILE, dtype=torch.int32 if exact_integers() else torch.float32)
            for start in starts:
                block = slice(start, start + ROWS)
                index[block, :list_length], score[block, :list_length] = self._search(
                    users[block], list_length, hidden[block], added[block], buffer
                )

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search_blocks, np.array_split(np.arange(0, len(users) if list_length else 0, ROWS), threads)))
        return index, score

    def _search(
        self, users: np.ndarray, n: int, hidden: sparse.csr_matrix, added: sparse.csr_matrix, buffer: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        rows, rough = len(users), _Quantised.from_vectors(users, one_scale=False)
        values, integers = torch.from_numpy(rough.values), exact_integers()
        # The value of an item that must not be returned, and the smallest value of any other.
        floor: tuple[np.generic, float] = (np.int32(-(2**31)), -(2.0**31) + 1)
        if not integers:
            floor = np.float32(-np.inf), float(np.finfo(np.float32).min)
        score, index = np.empty((rows, n)), np.empty((rows, n), np.int64)
        count, least = np.zeros(rows, np.int64), np.full(rows, -np.inf)
        hidden_at, added_at = hidden.indptr[:-1].copy(), added.indptr[:-1].copy()
        for tile in self._tiles:
            if rough.length.max() * tile.length > _LARGEST:
                raise ValueError(f"vectors of length {rough.length.max():.3g} and {tile.length:.3g} have products beyond float32")
            products = _products(values, tile.transposed, buffer).reshape(rows, -1, DEPTH, LANES)
            bound = (
                rough.error * (tile.length + tile.error) + rough.length * tile.error + _SLACK * rough.length * tile.length + _TINY
            )
            vectors = tile.first, tile.size, self.items, users, rough.scale * tile.scale, bound
            sparse_rows = hidden.indptr, hidden.indices, hidden_at, added.indptr, added.indices, added.data, added_at
            scan(products, *floor, *vectors, *sparse_rows, score, index, count, least)
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
    """Return whether products of 8-bit integers are exact here: a processor without instructions for them may clip sums."""
    most = torch.full((LANES, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(most, most.T) == 64 * 127**2).all()) and bool((torch._int_mm(most, -most.T) == -64 * 127**2).all())


def _products(users: torch.Tensor, transposed: torch.Tensor, buffer: torch.Tensor) -> np.ndarray:
    """Return products [R, T], written into ``buffer``, whose type they have."""
    out = buffer[: len(users) * transposed.shape[1]].view(len(users), -1)
    return (torch.mm if users.is_floating_point() else torch._int_mm)(users, transposed, out=out).numpy()
