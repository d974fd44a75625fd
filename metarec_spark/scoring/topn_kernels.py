"""The compiled loops of the exact top-N; see :mod:`metarec_spark.scoring.topn`. R users are looked at, T items at a time."""

from __future__ import annotations

import numpy as np

from metarec_spark.runtime.numba_cache import compiled, product

DEPTH, LANES = 8, 16
"""A group is every 16th of 128 items: its largest product is looked at before the others, 16 groups by one instruction."""
CHUNK = DEPTH * LANES


@compiled
def quantised(vectors, alike):
    """Whole numbers [R, width up to a multiple of 4] int8, what they are multiples of [R], length of what they lack [R], and of
    the vectors [R].

    Processors multiply four numbers at a time; one alone PyTorch 2.12 does not multiply at all, and says nothing.

    Parameters
    ----------
    vectors
        [R, width] float32.
    alike
        All get the same scale.
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
def scan(
    products, floor, lowest, first, width, items, users, unit, bound,
    hidden_from, hidden, hidden_at, added_from, added, addition, added_at, score, index, count, least
):  # fmt: skip
    """Bring the users' lists up to date with one tile.

    ``score`` and ``index`` [R, n] are the best so far, ``count`` [R] how many, ``least`` [R] what a score must reach;
    ``hidden_at`` and ``added_at`` [R] are how far the sparse rows are read.
    """
    rows, chunks = products.shape[:2]
    size, n = chunks * CHUNK, score.shape[1]
    best, room = np.empty(chunks * LANES, np.float32), n + size + 1  # one more: places are written, then kept or not
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
            place[end], plus[end] = place[known + i], plus[known + i]
            end += rough[i] >= at_least
        linked = end
        limit = max((at_least - bound[row]) / unit[row], lowest)
        for group in range(len(best)):
            if best[group] >= limit:
                for deep in range(DEPTH):
                    at = (group // LANES * DEPTH + deep) * LANES + group % LANES
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
def sort(score, index, count):
    """Put each list in order, in place. (Shell, 1959, with the gaps of Ciura, 2001)"""
    for row in range(len(count)):
        for gap in (701, 301, 132, 57, 23, 10, 4, 1):
            for end in range(gap, count[row]):
                of_score, of_index, at = score[row, end], index[row, end], end
                while at >= gap and _before(of_score, of_index, score[row, at - gap], index[row, at - gap]):
                    score[row, at], index[row, at] = score[row, at - gap], index[row, at - gap]
                    at -= gap
                score[row, at], index[row, at] = of_score, of_index
