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

from metarec_spark.compiled import compiled, product

ROWS, TILE = 128, 16_384
"""Users and items whose products are in memory at a time."""
_DEPTH, _LANES = 8, 16
"""A group is every 16th of 128 items: its largest product is looked at before the others, 16 groups by one instruction."""
_CHUNK = _DEPTH * _LANES
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
            return cls(*_quantised(vectors, alike))
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
        filled = np.pad(rough.values, ((0, -len(items) % _CHUNK), (0, 0)))
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
            products = _products(values, tile.transposed, room).reshape(rows, -1, _DEPTH, _LANES)
            bound = (
                rough.lost * (tile.length + tile.lost) + rough.length * tile.lost + _SLACK * rough.length * tile.length + _TINY
            )
            of_items = tile.first, tile.size, self.items, users, rough.scale * tile.scale, bound
            of_users = hidden.indptr, hidden.indices, hidden_at, added.indptr, added.indices, added.data, added_at
            _scan(products, *floor, *of_items, *of_users, score, index, count, least)
        _sort(score, index, count)
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
    most = torch.full((_LANES, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(most, most.T) == 64 * 127**2).all()) and bool((torch._int_mm(most, -most.T) == -64 * 127**2).all())


def _products(users: torch.Tensor, transposed: torch.Tensor, room: torch.Tensor) -> np.ndarray:
    """[R, T] of the type of ``room``, in which they are."""
    out = room[: len(users) * transposed.shape[1]].view(len(users), -1)
    return (torch.mm if users.is_floating_point() else torch._int_mm)(users, transposed, out=out).numpy()


@compiled
def _quantised(vectors, alike):
    """Values, scale, lost and length of :class:`_Rough`; zeros fill each vector up to four numbers, as processors multiply them.

    (One alone PyTorch 2.12 does not multiply at all, and says nothing.)
    """
    rows, width = vectors.shape
    values = np.zeros((rows, width + -width % 4), np.int8)
    scale, lost, length = np.empty(rows), np.empty(rows), np.empty(rows)
    for row in range(rows):
        most = np.float32(0)
        for i in range(width):
            most = max(most, abs(vectors[row, i]))
        scale[row] = most / 127.0 if most > 0 else 1.0
    if alike:
        scale[:] = scale.max()
    for row in range(rows):
        lost_squares = squares = 0.0
        for i in range(width):
            number = np.float64(vectors[row, i])
            value = np.rint(number / scale[row])
            values[row, i] = np.int8(value)
            lost_squares += (number - value * scale[row]) ** 2
            squares += number**2
        lost[row], length[row] = np.sqrt(lost_squares), np.sqrt(squares)
    return values, scale, lost, length


@compiled
def _about_nth(values, n):
    """A number that at least ``n`` of the values reach, and few more; in their own precision."""
    low = high = values[0]
    for i in range(len(values)):
        low, high = min(low, values[i]), max(high, values[i])
    for _ in range(40):
        middle, reached = (low + high) * np.float32(0.5), 0
        for i in range(len(values)):
            reached += values[i] >= middle
        if reached < n:
            high = middle
            continue
        low = middle
        if reached <= n + n // 8:
            break
    return low


@compiled
def _before(score, index, other_score, other_index):
    return score > other_score or (score == other_score and index < other_index)


@compiled
def _partition(score, index, n):
    """Put the ``n`` best first, and give the n-th best score. (Hoare, 1961)"""
    low, high = 0, len(score) - 1
    while low < high:
        of_score, of_index = score[(low + high) // 2], index[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while _before(score[i], index[i], of_score, of_index):
                i += 1
            while _before(of_score, of_index, score[j], index[j]):
                j -= 1
            if i <= j:
                score[i], score[j] = score[j], score[i]
                index[i], index[j] = index[j], index[i]
                i, j = i + 1, j - 1
        if n - 1 <= j:
            high = j
        elif n - 1 >= i:
            low = i
        else:
            break
    return score[n - 1]


@compiled
def _scan(
    products, floor, lowest, first, width, items, users, unit, bound,
    hidden_from, hidden, hidden_at, added_from, added, addition, added_at, score, index, count, least
):  # fmt: skip
    """Bring the users' lists up to date with one tile.

    ``score`` and ``index`` [R, n] are the best so far, ``count`` [R] how many, ``least`` [R] what a score must reach;
    ``hidden_at`` and ``added_at`` [R] are how far the sparse rows are read.
    """
    rows, chunks = products.shape[:2]
    size, n = chunks * _CHUNK, score.shape[1]
    best, room = np.empty(chunks * _LANES, np.float32), n + size + 1  # one more: places are written, then kept or not
    candidate, place, rough, plus = np.empty(room), np.empty(room, np.int64), np.empty(size), np.empty(room)
    for row in range(rows):
        values, known, at_least = products[row].reshape(size), count[row], least[row]
        values[width:] = floor
        at = hidden_at[row]
        while at < hidden_from[row + 1] and hidden[at] < first + width:
            values[hidden[at] - first] = floor
            at += 1
        hidden_at[row] = at
        # Items that something is added to are candidates of their own.
        at, linked = added_at[row], 0
        while at < added_from[row + 1] and added[at] < first + width:
            own = values[added[at] - first]
            if own != floor:
                rough[linked] = own * unit[row] + addition[at] + bound[row]
                place[known + linked], plus[known + linked] = added[at], addition[at]
                linked += 1
            values[added[at] - first] = floor
            at += 1
        added_at[row] = at
        for chunk in range(chunks):
            for lane in range(_LANES):
                most = products[row, chunk, 0, lane]
                for deep in range(1, _DEPTH):
                    most = max(most, products[row, chunk, deep, lane])
                best[chunk * _LANES + lane] = most
        if known < n <= len(best):
            nth = _about_nth(best, n)
            if nth > floor:
                at_least = max(at_least, nth * unit[row] - bound[row])
        end = known
        for i in range(linked):
            place[end], plus[end] = place[known + i], plus[known + i]
            end += rough[i] >= at_least
        linked = end
        limit = max((at_least - bound[row]) / unit[row], lowest)
        for group in range(len(best)):
            if best[group] >= limit:
                for deep in range(_DEPTH):
                    at = (group // _LANES * _DEPTH + deep) * _LANES + group % _LANES
                    place[end] = first + at
                    end += values[at] >= limit
        for i in range(known):
            candidate[i], place[i] = score[row, i], index[row, i]
        for i in range(known, end):
            candidate[i] = product(users[row], items[place[i]])
        for i in range(known, linked):
            candidate[i] += plus[i]
        if end > n:
            nth, of_all, end = _about_nth(candidate[:end], n), end, 0
            for i in range(of_all):
                candidate[end], place[end] = candidate[i], place[i]
                end += candidate[i] >= nth
            at_least = max(at_least, _partition(candidate[:end], place[:end], n))
            end = n
        elif end == n:
            at_least = max(at_least, candidate[:n].min())
        score[row, :end], index[row, :end] = candidate[:end], place[:end]
        count[row], least[row] = end, at_least


@compiled
def _sort(score, index, count):
    """Put each list in order, in place. (Shell, 1959, with the gaps of Ciura, 2001)"""
    for row in range(len(count)):
        for gap in (701, 301, 132, 57, 23, 10, 4, 1):
            for end in range(gap, count[row]):
                of_score, of_index, at = score[row, end], index[row, end], end
                while at >= gap and _before(of_score, of_index, score[row, at - gap], index[row, at - gap]):
                    score[row, at], index[row, at] = score[row, at - gap], index[row, at - gap]
                    at -= gap
                score[row, at], index[row, at] = of_score, of_index
