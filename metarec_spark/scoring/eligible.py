"""What a list may hold: the items of a domain that are not withheld, and of a group no more than its cap allows.

No Spark, no model. Shape suffixes: U users, I items on offer, G groups, N items of a list, M items found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.model.ranking import places
from metarec_spark.runtime.numba_cache import compiled
from metarec_spark.scoring.topn import ExactIndex

AT_MOST, CAP = "at_most", "cap"
_MARKS = 16 * 2**20
"""Pairs of a user and an item that are marked at a time, at most, unless one user's alone are more; a byte each."""


@dataclass(frozen=True)
class Groups:
    """Which groups items are in, and how many items of each a list may hold."""

    of_item: sparse.csr_matrix
    """[I, G], an entry for each item in a group."""
    of_group: sparse.csr_matrix
    """[G, I], the same."""
    at_most: np.ndarray
    """[G] int64."""

    @classmethod
    def of(cls, table: pa.Table, items: np.ndarray) -> Groups | None:
        """Of ascending items, from (item_idx, cap, group, at_most), a row for each item in a group; None where none is in any."""
        place = places(items, table[c.ITEM_IDX].to_numpy())
        table, place = table.filter(pa.array(place >= 0)), place[place >= 0]
        if not len(place):
            return None
        named = table[c.GROUP].combine_chunks().dictionary_encode()
        group = table[CAP].to_numpy().astype(np.int64) * len(named.dictionary) + named.indices.to_numpy()
        group = np.unique(group, return_inverse=True)[1]
        at_most = np.zeros(group.max() + 1, np.int64)
        at_most[group] = table[AT_MOST].to_numpy()
        of_item = sparse.csr_matrix((np.ones(len(place), bool), (place, group)), (len(items), len(at_most)))
        return cls(of_item, of_item.T.tocsr(), at_most)


class EligibleItems:
    """What one domain's lists are made of.

    Parameters
    ----------
    items
        Ascending item indices of the domain.
    folder
        Of the night's rules; None: everything is on offer.
    """

    def __init__(self, items: np.ndarray, folder: Path | None) -> None:
        self.places = np.arange(len(items))
        """[I] places of the offered items among ``items``."""
        self.groups = None
        if folder:
            self.places = np.flatnonzero(~np.isin(items, pq.read_table(folder / c.WITHHELD)[c.ITEM_IDX].to_numpy()))
            self.groups = Groups.of(pq.read_table(folder / c.GROUP), items[self.places])
        self.items = items[self.places]
        """[I] their indices."""
        self._whole = len(self.places) == len(items)

    def of_all(self, columns: sparse.csr_matrix) -> sparse.csr_matrix:
        """The offered items' columns."""
        return columns if self._whole else columns[:, self.places]

    def rows_of_all(self, vectors: np.ndarray) -> np.ndarray:
        """The offered items' rows; where all are on offer, the same array."""
        return vectors if self._whole else vectors[self.places]

    def best(
        self, index: ExactIndex, users: np.ndarray, n: int, seen: sparse.csr_matrix, additions: sparse.csr_matrix | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`ExactIndex.search`, with no more items of a group than its cap: from the best on, an item is taken unless one
        of its groups is full.

        Where the ``n`` best do not make a full list, the rest is searched for without the items that were looked at and those of
        full groups, until the list is full or nothing is left.
        """
        if self.groups is None:
            return index.search(users, n, seen, additions)
        parts = np.split(np.arange(len(users)), np.arange(0, len(users), max(1, _MARKS // max(1, len(self.items))))[1:])
        added = sparse.csr_matrix(seen.shape, dtype=np.float32) if additions is None else additions
        found = [self._best(index, users[rows], n, seen[rows], added[rows]) for rows in parts]
        return np.concatenate([index for index, _ in found]), np.concatenate([score for _, score in found])

    def _best(
        self, index: ExactIndex, users: np.ndarray, n: int, seen: sparse.csr_matrix, additions: sparse.csr_matrix
    ) -> tuple[np.ndarray, np.ndarray]:
        groups, rows = self.groups, np.arange(len(users))
        chosen_UN, score_UN = np.full((len(users), n), -1, np.int64), np.full((len(users), n), -np.inf, np.float32)
        count_U, gone_UI = np.zeros(len(users), np.int64), np.zeros(seen.shape, bool)
        while len(rows):
            hidden = seen[rows] + sparse.csr_matrix(gone_UI[rows], dtype=np.float32)
            wanted = n - int(count_U[rows].min())
            found = index.search(users[rows], wanted, hidden, additions[rows])
            of_item, of_group = (groups.of_item.indptr, groups.of_item.indices), (groups.of_group.indptr, groups.of_group.indices)
            _take(rows, *found, *of_item, *of_group, groups.at_most, chosen_UN, score_UN, count_U, gone_UI)
            rows = rows[(count_U[rows] < n) & (found[0][:, -1] >= 0)]
        return chosen_UN, score_UN


@compiled
def _take(rows, found, value, starts, group, first, member, at_most, chosen, score, count, gone):
    """Add what was found to the lists of some users, best first, and mark what none of them can take any more.

    ``group[starts[i] : starts[i + 1]]`` are the groups of item i, ``member[first[g] : first[g + 1]]`` the items of group g.
    """
    taken = np.zeros(len(at_most), np.int64)
    for row in range(len(rows)):
        user = rows[row]
        for at in range(count[user]):
            item = chosen[user, at]
            taken[group[starts[item] : starts[item + 1]]] += 1
        for at in range(found.shape[1]):
            item = found[row, at]
            if item < 0 or count[user] == chosen.shape[1]:
                break
            groups = group[starts[item] : starts[item + 1]]
            gone[user, item] = True
            if (taken[groups] < at_most[groups]).all():
                taken[groups] += 1
                chosen[user, count[user]], score[user, count[user]] = item, value[row, at]
                count[user] += 1
        for at in range(count[user]):
            item = chosen[user, at]
            for of in group[starts[item] : starts[item + 1]]:
                if taken[of] >= at_most[of]:
                    gone[user][member[first[of] : first[of + 1]]] = True
                    taken[of] = 0
        for at in range(count[user]):
            item = chosen[user, at]
            taken[group[starts[item] : starts[item + 1]]] = 0
