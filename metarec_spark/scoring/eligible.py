"""Eligible items of a platform (all but the excluded ones), and top-N lists that respect the caps of item groups.

No Spark, no model. Shape suffixes: U users, I eligible items, G groups, N items of a list, M items of a search result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.model.ranking import local_indexes
from metarec_spark.runtime.numba_cache import compiled
from metarec_spark.scoring.topn import ExactIndex

AT_MOST, CAP = "at_most", "cap"
_MARKS = 16 * 2**20
"""Upper bound of the (user, item) marks in memory, a byte each; one user's may exceed it."""


@dataclass(frozen=True)
class Groups:
    """Groups of items, and the most items of each group in a list."""

    of_item: sparse.csr_matrix
    """[I, G], one entry per item and group that it belongs to."""
    of_group: sparse.csr_matrix
    """[G, I], its transpose."""
    at_most: np.ndarray
    """[G] int64."""

    @classmethod
    def from_table(cls, table: pa.Table, items: np.ndarray) -> Groups | None:
        """Return the groups of ascending items from rows (item_idx, cap, group, at_most); None if no item is in a group."""
        local = local_indexes(items, table[c.ITEM_IDX].to_numpy())
        table, local = table.filter(pa.array(local >= 0)), local[local >= 0]
        if not len(local):
            return None
        named = table[c.GROUP].combine_chunks().dictionary_encode()
        group = table[CAP].to_numpy().astype(np.int64) * len(named.dictionary) + named.indices.to_numpy()
        group = np.unique(group, return_inverse=True)[1]
        at_most = np.zeros(group.max() + 1, np.int64)
        at_most[group] = table[AT_MOST].to_numpy()
        of_item = sparse.csr_matrix((np.ones(len(local), bool), (local, group)), (len(items), len(at_most)))
        return cls(of_item, of_item.T.tocsr(), at_most)


class EligibleItems:
    """The items of one platform that lists may hold.

    Parameters
    ----------
    items
        Ascending item indices of the platform.
    folder
        Folder of the run's rules; None: every item is eligible.
    """

    def __init__(self, items: np.ndarray, folder: Path | None) -> None:
        self.local = np.arange(len(items))
        """[I] indexes of the eligible items within ``items``."""
        self.groups: Groups | None = None
        if folder:
            self.local = np.flatnonzero(~np.isin(items, pq.read_table(folder / c.WITHHELD)[c.ITEM_IDX].to_numpy()))
            self.groups = Groups.from_table(pq.read_table(folder / c.GROUP), items[self.local])
        self.items = items[self.local]
        """[I] their item indices."""
        self._all = len(self.local) == len(items)

    def columns(self, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        """Return the columns of the eligible items."""
        return matrix if self._all else matrix[:, self.local]

    def rows(self, vectors: np.ndarray) -> np.ndarray:
        """Return the rows of the eligible items; the same array if all are eligible."""
        return vectors if self._all else vectors[self.local]

    def top_n(
        self, index: ExactIndex, users: np.ndarray, n: int, seen: sparse.csr_matrix, additions: sparse.csr_matrix | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return :meth:`ExactIndex.search` under the caps: best first, an item is taken unless one of its groups is full.

        If the ``n`` best do not fill a list, the search is repeated without the items already visited and those of full groups,
        until the list is full or no item is left.
        """
        if self.groups is None:
            return index.search(users, n, seen, additions)
        parts = np.split(np.arange(len(users)), np.arange(0, len(users), max(1, _MARKS // max(1, len(self.items))))[1:])
        added = sparse.csr_matrix(seen.shape, dtype=np.float32) if additions is None else additions
        lists = [_top_n_of_groups(self.groups, index, users[part], n, seen[part], added[part]) for part in parts]
        return np.concatenate([index for index, _ in lists]), np.concatenate([score for _, score in lists])


def _top_n_of_groups(
    groups: Groups, index: ExactIndex, users: np.ndarray, n: int, seen: sparse.csr_matrix, additions: sparse.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(users))
    chosen_UN, score_UN = np.full((len(users), n), -1, np.int64), np.full((len(users), n), -np.inf, np.float32)
    count_U, barred_UI = np.zeros(len(users), np.int64), np.zeros(seen.shape, bool)
    of_item, of_group = (groups.of_item.indptr, groups.of_item.indices), (groups.of_group.indptr, groups.of_group.indices)
    while len(rows):
        hidden = seen[rows] + sparse.csr_matrix(barred_UI[rows], dtype=np.float32)
        missing = n - int(count_U[rows].min())
        found_UM, value_UM = index.search(users[rows], missing, hidden, additions[rows])
        _take(rows, found_UM, value_UM, *of_item, *of_group, groups.at_most, chosen_UN, score_UN, count_U, barred_UI)
        rows = rows[(count_U[rows] < n) & (found_UM[:, -1] >= 0)]
    return chosen_UN, score_UN


def capped_ranks(groups: Groups, scores_UI: np.ndarray, target_U: np.ndarray, rank_U: np.ndarray, longest: int) -> np.ndarray:
    """Return each target's rank, from 1, in the list that :meth:`EligibleItems.top_n` would make, [U].

    A target that the caps keep out of the ``longest`` best, or that ranks below them, gets its rank without caps, but more than
    ``longest``.

    Parameters
    ----------
    scores_UI
        [U, I] scores of the eligible items; -inf: not a candidate.
    target_U
        [U] positions of the targets among the eligible items; ties count against them.
    rank_U
        [U] their ranks without caps.
    """
    is_target = np.arange(scores_UI.shape[1]) == target_U[:, None]
    # A stable sort: of other items with equal scores, the smaller item_idx comes first, as in lists.
    order = np.lexsort((is_target, -scores_UI), axis=1)
    capped = np.maximum(rank_U, longest + 1).astype(np.int64)
    _rank_under_caps(order, scores_UI, groups.of_item.indptr, groups.of_item.indices, groups.at_most, target_U, longest, capped)
    return capped


@compiled
def _rank_under_caps(
    order: np.ndarray,
    scores: np.ndarray,
    starts: np.ndarray,
    group: np.ndarray,
    at_most: np.ndarray,
    target: np.ndarray,
    longest: int,
    rank: np.ndarray,
) -> None:
    """Fill each list from the best item on; write the ranks of the targets that are taken into ``rank``."""
    for row in range(len(order)):
        taken, count = np.zeros(len(at_most), np.int64), 0
        for item in order[row]:
            if count == longest or scores[row, item] == -np.inf:
                break
            groups = group[starts[item] : starts[item + 1]]
            if (taken[groups] < at_most[groups]).all():
                taken[groups] += 1
                count += 1
                if item == target[row]:
                    rank[row] = count


@compiled
def _take(
    rows: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    starts: np.ndarray,
    group: np.ndarray,
    first: np.ndarray,
    member: np.ndarray,
    at_most: np.ndarray,
    chosen: np.ndarray,
    score: np.ndarray,
    count: np.ndarray,
    barred: np.ndarray,
) -> None:
    """Append search results to the lists of some users, best first, and mark the items that a list cannot take any more.

    ``group[starts[i] : starts[i + 1]]`` are the groups of item i, ``member[first[g] : first[g + 1]]`` the items of group g.
    """
    taken = np.zeros(len(at_most), np.int64)
    for row in range(len(rows)):
        user = rows[row]
        for at in range(count[user]):
            item = chosen[user, at]
            taken[group[starts[item] : starts[item + 1]]] += 1
        for at in range(index.shape[1]):
            item = index[row, at]
            if item < 0 or count[user] == chosen.shape[1]:
                break
            groups = group[starts[item] : starts[item + 1]]
            barred[user, item] = True
            if (taken[groups] < at_most[groups]).all():
                taken[groups] += 1
                chosen[user, count[user]], score[user, count[user]] = item, value[row, at]
                count[user] += 1
        for at in range(count[user]):
            item = chosen[user, at]
            for full in group[starts[item] : starts[item + 1]]:
                if taken[full] >= at_most[full]:
                    barred[user][member[first[full] : first[full + 1]]] = True
                    taken[full] = 0
        for at in range(count[user]):
            item = chosen[user, at]
            taken[group[starts[item] : starts[item + 1]]] = 0
