"""Compiled loops of the exact top-N; see :mod:`metarec_spark.scoring.topn`. R users and a tile of T items at a time."""

from __future__ import annotations

import numpy as np

from metarec_spark.runtime.numba_cache import compiled, product

DEPTH, LANES = 8, 16
"""A group is every 16th of 128 items: its largest product is compared first, 16 groups by one instruction."""
CHUNK = DEPTH * LANES


@compiled
def quantised(vectors: np.ndarray, one_scale: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return integers [R, width rounded up to a multiple of 4] int8, their scales [R], the lengths of the rounding errors [R],
    and the lengths of the vectors [R].

    Processors multiply four numbers at a time; PyTorch 2.12 silently ignores a width of 1.

    Parameters
    ----------
    vectors
        [R, width] float32.
    one_scale
        Whether all rows get the same scale.
    """
    rows, width = vectors.shape
    values = np.zeros((rows, width + -width % 4), np.int8)
    scale, error, length = np.empty(rows), np.empty(rows), np.empty(rows)
    for row in range(rows):
        most = np.float32(0)
        for i in range(width):
            most = max(most, abs(vectors[row, i]))
        scale[row] = most / 127.0 if most > 0 else 1.0
    if one_scale:
        scale[:] = scale.max()
    for row in range(rows):
        error_squares, squares = np.float64(0), np.float64(0)
        for i in range(width):
            number = np.float64(vectors[row, i])
            value = np.rint(number / scale[row])
            values[row, i] = np.int8(value)
            error_squares += (number - value * scale[row]) ** 2
            squares += number**2
        error[row], length[row] = np.sqrt(error_squares), np.sqrt(squares)
    return values, scale, error, length


@compiled
def _about_nth(values: np.ndarray, n: int) -> float:
    """Return a number that at least ``n`` of the values reach, and few more, by bisection; in their own precision."""
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
def _before(score: float, index: int, other_score: float, other_index: int) -> bool:
    """Return whether an item ranks before another: by score, ties by index."""
    return score > other_score or (score == other_score and index < other_index)


@compiled
def _partition(score: np.ndarray, index: np.ndarray, n: int) -> float:
    """Move the ``n`` best to the front, in place, and return the n-th best score (quickselect; Hoare, 1961)."""
    low, high = 0, len(score) - 1
    while low < high:
        pivot_score, pivot_index = score[(low + high) // 2], index[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while _before(score[i], index[i], pivot_score, pivot_index):
                i += 1
            while _before(pivot_score, pivot_index, score[j], index[j]):
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
def scan(
    products: np.ndarray, floor: float, lowest: float, first: int, width: int, items: np.ndarray, users: np.ndarray,
    unit: np.ndarray, bound: np.ndarray, hidden_from: np.ndarray, hidden: np.ndarray, hidden_at: np.ndarray,
    added_from: np.ndarray, added: np.ndarray, addition: np.ndarray, added_at: np.ndarray,
    score: np.ndarray, index: np.ndarray, count: np.ndarray, least: np.ndarray,
) -> None:  # fmt: skip
    """Update the users' lists, in place, with the items of one tile.

    ``score`` and ``index`` [R, n] are the best items so far, ``count`` [R] their number, ``least`` [R] the score that an item
    must reach; ``hidden_at`` and ``added_at`` [R] are the reading positions in the sparse rows.
    """
    rows, chunks = products.shape[:2]
    size, n = chunks * CHUNK, score.shape[1]
    best, slots = np.empty(chunks * LANES, np.float32), n + size + 1  # one more: a slot is written before it is accepted
    candidate, slot_item, rough, plus = np.empty(slots), np.empty(slots, np.int64), np.empty(size), np.empty(slots)
    for row in range(rows):
        values, known, at_least = products[row].reshape(size), count[row], least[row]
        values[width:] = floor
        at = hidden_at[row]
        while at < hidden_from[row + 1] and hidden[at] < first + width:
            values[hidden[at] - first] = floor
            at += 1
        hidden_at[row] = at
        # Items with an addition are candidates of their own.
        at, linked = added_at[row], 0
        while at < added_from[row + 1] and added[at] < first + width:
            own = values[added[at] - first]
            if own != floor:
                rough[linked] = own * unit[row] + addition[at] + bound[row]
                slot_item[known + linked], plus[known + linked] = added[at], addition[at]
                linked += 1
            values[added[at] - first] = floor
            at += 1
        added_at[row] = at
        for chunk in range(chunks):
            for lane in range(LANES):
                most = products[row, chunk, 0, lane]
                for deep in range(1, DEPTH):
                    most = max(most, products[row, chunk, deep, lane])
                best[chunk * LANES + lane] = most
        if known < n <= len(best):
            nth = _about_nth(best, n)
            if nth > floor:
                at_least = max(at_least, nth * unit[row] - bound[row])
        end = known
        for i in range(linked):
            slot_item[end], plus[end] = slot_item[known + i], plus[known + i]
            end += rough[i] >= at_least
        linked = end
        limit = max((at_least - bound[row]) / unit[row], lowest)
        for group in range(len(best)):
            if best[group] >= limit:
                for deep in range(DEPTH):
                    at = (group // LANES * DEPTH + deep) * LANES + group % LANES
                    slot_item[end] = first + at
                    end += values[at] >= limit
        for i in range(known):
            candidate[i], slot_item[i] = score[row, i], index[row, i]
        for i in range(known, end):
            candidate[i] = product(users[row], items[slot_item[i]])
        for i in range(known, linked):
            candidate[i] += plus[i]
        if end > n:
            nth, candidates, end = _about_nth(candidate[:end], n), end, 0
            for i in range(candidates):
                candidate[end], slot_item[end] = candidate[i], slot_item[i]
                end += candidate[i] >= nth
            at_least = max(at_least, _partition(candidate[:end], slot_item[:end], n))
            end = n
        elif end == n:
            at_least = max(at_least, candidate[:n].min())
        score[row, :end], index[row, :end] = candidate[:end], slot_item[:end]
        count[row], least[row] = end, at_least


@compiled
def sort(score: np.ndarray, index: np.ndarray, count: np.ndarray) -> None:
    """Sort each list, in place (Shell, 1959, with the gaps of Ciura, 2001)."""
    for row in range(len(count)):
        for gap in (701, 301, 132, 57, 23, 10, 4, 1):
            for end in range(gap, count[row]):
                moved_score, moved_index, at = score[row, end], index[row, end], end
                while at >= gap and _before(moved_score, moved_index, score[row, at - gap], index[row, at - gap]):
                    score[row, at], index[row, at] = score[row, at - gap], index[row, at - gap]
                    at -= gap
                score[row, at], index[row, at] = moved_score, moved_index
