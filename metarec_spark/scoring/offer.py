"""What a list may hold: the items of a domain that are not withheld, and of a group no more than its cap allows.

No Spark, no model. Shape suffixes: U users, I items on offer, M items found, N items wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.compiled import compiled
from metarec_spark.scoring.ranking import places
from metarec_spark.scoring.topn import ExactIndex

AT_MOST, CAP = "at_most", "cap"
_GROWTH = 4


@dataclass(frozen=True)
class Groups:
    """Which groups an item is in, and how many items of each a list may hold."""

    starts: np.ndarray
    """[I + 1] int64: item i is in the groups ``group[starts[i] : starts[i + 1]]``."""
    group: np.ndarray
    """[n] int64."""
    at_most: np.ndarray
    """[G] int64."""

    @classmethod
    def of(cls, table: pa.Table, items: np.ndarray) -> Groups | None:
        """Of ascending items, from (item_idx, cap, group, at_most), a row for each item in a group; None where none is in any."""
        place = places(items, table[c.ITEM_IDX].to_numpy())
        table = table.filter(pa.array(place >= 0)).take(pa.array(np.argsort(place[place >= 0], kind="stable")))
        place = np.sort(place[place >= 0])
        if not len(place):
            return None
        named = table[c.GROUP].combine_chunks().dictionary_encode()
        name = np.unique(table[CAP].to_numpy() * len(named.dictionary) + named.indices.to_numpy(), return_inverse=True)[1]
        at_most = np.zeros(name.max() + 1, np.int64)
        at_most[name] = table[AT_MOST].to_numpy()
        return cls(np.searchsorted(place, np.arange(len(items) + 1)), name, at_most)


class Offer:
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

    def of_all(self, columns: sparse.csr_matrix | np.ndarray) -> sparse.csr_matrix | np.ndarray:
        """The offered items' columns."""
        return columns if self._whole else columns[:, self.places]

    def best(
        self, index: ExactIndex, users: np.ndarray, n: int, seen: sparse.csr_matrix, additions: sparse.csr_matrix | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`ExactIndex.search`, with no more items of a group than its cap.

        From the best on, an item is taken unless one of its groups is full. Where the ``n`` best do not make a full list, more
        are searched for that user, until the list is full or there is no other item: nothing is cut before the rule is applied.
        """
        found, score = index.search(users, n, seen, additions)
        if self.groups is None:
            return found, score
        wanted, rows, most, whole = n, np.arange(len(users)), n, (found, score)
        chosen_UN, score_UN = np.full(found.shape, -1, np.int64), np.full(score.shape, -np.inf, np.float32)
        while len(rows):
            kept = _admitted(whole[0], wanted, self.groups.starts, self.groups.group, self.groups.at_most)
            row, at = np.nonzero(kept)
            rank = (np.cumsum(kept, 1) - 1)[row, at]
            chosen_UN[rows[row], rank], score_UN[rows[row], rank] = whole[0][row, at], whole[1][row, at]
            more = (kept.sum(1) < wanted) & (whole[0][:, -1] >= 0) & (most < len(self.items))
            rows, most = rows[more], min(_GROWTH * most, len(self.items))
            if len(rows):
                whole = index.search(users[rows], most, seen[rows], None if additions is None else additions[rows])
        return chosen_UN, score_UN


@compiled
def _admitted(found: np.ndarray, wanted: int, starts: np.ndarray, group: np.ndarray, at_most: np.ndarray) -> np.ndarray:
    """[U, M] bool: which of the found items, best first, a list takes."""
    kept = np.zeros(found.shape, np.bool_)
    taken = np.zeros(len(at_most), np.int64)
    for user in range(len(found)):
        count = 0
        for at in range(found.shape[1]):
            item = found[user, at]
            if item < 0 or count == wanted:
                break
            groups = group[starts[item] : starts[item + 1]]
            if (taken[groups] < at_most[groups]).all():
                taken[groups] += 1
                kept[user, at] = True
                count += 1
        for at in np.flatnonzero(kept[user]):
            item = found[user, at]
            taken[group[starts[item] : starts[item + 1]]] = 0
    return kept
