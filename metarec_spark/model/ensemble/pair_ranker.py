"""g for a thin domain: a small network weighs signals that mean the same in every domain, so that one domain can teach another.

Shape suffixes: B users, I items of all domains, D items of the domain, n pairs of a user and an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model import transitions
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.ensemble.item_links import ItemLinks
from metarec_spark.model.ensemble.network import Network
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.transitions import TransitionParams

DECAYS = (0.0, 0.6, 0.9)
"""Each signal is summed over a user's events in the domain with each of these: the newest alone, the recent ones, all; and over
those elsewhere with the last. What they are worth beside each other is learnt."""
VOTES = TransitionParams(
    backward=0.4,
    popularity_damping=0.3,
    source_damping=0.1,
    similarity=1.0,
    history=30,
    history_decay=0.0,
    across_domains=1.0,
)
"""Which events count, and how counts are damped; of the rest nothing is used."""
BANDS = ((2, 30), (31, 250), (251, 1000))
"""Content tokens by the number of items that have them: a rare word in common says more, and something else, than a usual one."""
SIGNALS = 4 + len(BANDS)
SUMS = SIGNALS * (len(DECAYS) + 1)
POPULARITIES = 4
_MOST_ALIKE, _NEAREST = 200, 30
_ROWS = 2048


@dataclass(frozen=True)
class PairSignals:
    """What the items of all domains say of those of one."""

    links: ItemLinks
    """≥ 0: follows, precedes; is alike in rare, usual and frequent tokens; is like what follows or precedes; follows or
    precedes what is alike."""
    popularity: np.ndarray
    """[D, POPULARITIES] float32: log of 1 + training events of the item, and of those like it, as counted and per mean item."""

    @classmethod
    def of(
        cls,
        forward: sparse.csr_matrix,
        backward: sparse.csr_matrix,
        alike: ContentSimilarity,
        events: np.ndarray,
        items: np.ndarray,
        rows: np.ndarray,
    ) -> PairSignals:
        """From who follows whom and who is alike.

        Parameters
        ----------
        forward, backward
            [I, D] decayed counts.
        alike
            As :func:`alike` gives them.
        events
            [I] training events.
        items
            [D] the domain's items among all.
        rows
            The items that users have events with, ascending; the links of others are not kept.
        """
        counts = np.maximum(events, 1).astype(np.float32)
        row, column = sparse.diags(counts**-VOTES.source_damping), sparse.diags(counts[items] ** -VOTES.popularity_damping)
        follows, precedes = ((row @ of @ column).tocsr().astype(np.float32) for of in (forward, backward))
        near, near_home = alike.near, alike.near[items]
        linked = follows + np.float32(VOTES.backward) * precedes
        # Of an item elsewhere, only items at home that are like it lend their links.
        hops = [linked[rows] @ near_home, near[rows] @ linked[items]]
        mine = events[items].astype(np.float32)
        theirs = (near_home @ mine) / (np.asarray(near_home.sum(1)).ravel() + np.float32(0.5))
        scale = np.float32(len(items) / (mine.sum() + 1))
        popularity = np.stack([np.log1p(of) for of in (mine, theirs, mine * scale, theirs * scale)], 1)
        kept = [of[rows] for of in (follows, precedes, *alike.bands)]
        return cls(ItemLinks.joined([*kept, *hops], rows, len(events)), popularity.astype(np.float32))

    @classmethod
    def of_catalogue(
        cls, catalogue: Catalogue, domain: int, likeness: ContentSimilarity | None = None, rows: np.ndarray | None = None
    ) -> PairSignals:
        """From all training events; ``likeness`` is what :func:`alike` gives, where it was made before, and ``rows`` are those of
        :meth:`of`, all items without it."""
        part, (row, place, into) = catalogue.successors, catalogue.links(domain)
        items = catalogue.of_domain[domain]
        shape = catalogue.size, len(items)
        links = [sparse.csr_matrix((of[into], (row, place)), shape) for of in (part.forward, part.backward)]
        rows = np.arange(catalogue.size) if rows is None else rows
        return cls.of(*links, likeness or alike(catalogue, domain), catalogue.events, items, rows)

    def features(self, contexts: PackedSequences, domain: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places and sums [n, SUMS] of the items that any signal of a user touches."""
        history_weights = transitions.history_weights(contexts, domain, VOTES)
        weights = np.array([*DECAYS, DECAYS[-1]]) ** history_weights.age[:, None]
        weights[:, :-1] *= history_weights.inside[:, None]
        weights[:, -1] *= ~history_weights.inside
        row, place, sums, _ = self.links.sums(history_weights, weights)
        return row, place, sums


@dataclass(frozen=True)
class ContentSimilarity:
    """Scalar products of the items' tokens with those of one domain's items, [I, D] float32; never of an item with itself."""

    bands: list[sparse.csr_matrix]
    """Over the tokens of each band; of each row the strongest."""
    near: sparse.csr_matrix
    """Over all of them; of each row the very strongest."""


def alike(catalogue: Catalogue, domain: int) -> ContentSimilarity:
    """Who is like whom by content."""
    items, (size, width) = catalogue.of_domain[domain], catalogue.tokens.shape
    item = np.repeat(np.arange(size), width)
    shape = size, len(catalogue.token_hashes)
    weight = sparse.csr_matrix((catalogue.weights.ravel(), (item, catalogue.tokens.ravel())), shape)
    weight.eliminate_zeros()
    spread, found = np.bincount(weight.indices, minlength=shape[1]), []
    for fewest, most in BANDS:
        band = weight[:, np.flatnonzero((spread >= fewest) & (spread <= most))]
        found.append(products(band, items, _MOST_ALIKE))
    return ContentSimilarity(found, strongest(sum(found), _NEAREST))


def products(weight: sparse.csr_matrix, items: np.ndarray, most: int) -> sparse.csr_matrix:
    """Scalar products of all rows of [I, V] weights with those of some, [I, D] float32; of each row the ``most`` largest, never
    one with itself."""
    home, parts = weight[items].T.tocsr(), []
    for first in range(0, weight.shape[0], _ROWS):
        product = (weight[first : first + _ROWS] @ home).tocoo()
        other = items[product.col] != product.row + first
        kept = (product.data[other], (product.row[other], product.col[other]))
        parts.append(strongest(sparse.csr_matrix(kept, product.shape), most))
    return sparse.vstack(parts, "csr", np.float32)


def strongest(matrix: sparse.spmatrix, most: int) -> sparse.csr_matrix:
    """The ``most`` largest entries of each row; ties go to the smaller column."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    count = np.diff(matrix.indptr)
    least = np.full(len(count), -np.inf)
    for row in np.flatnonzero(count > most):
        entries = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
        least[row] = np.partition(entries, len(entries) - most)[len(entries) - most]
    row = np.repeat(np.arange(len(count)), count)
    above, equal = matrix.data > least[row], matrix.data == least[row]
    left = most - np.bincount(row[above], minlength=len(count))
    before = np.cumsum(equal)
    first = np.append(0, before)[matrix.indptr[:-1]]
    kept = above | (equal & (before - first[row] <= left[row]))
    return sparse.csr_matrix((matrix.data[kept], (row[kept], matrix.indices[kept])), matrix.shape)


class PairRanker(Network):
    """(Sums, popularity) → a score."""

    def __init__(self) -> None:
        super().__init__(SUMS, POPULARITIES)

    def forward(self, sums: Tensor, popularity: Tensor) -> Tensor:
        """[n, SUMS] and [n, POPULARITIES] → [n]."""
        return self.score(sums, popularity)

    @torch.no_grad()
    def stay_at_home(self) -> None:
        """Let sums over events in other domains weigh nothing: for one that was taught without any."""
        for layer in (self.linear, self.hidden):
            layer.weight[:, SUMS - SIGNALS : SUMS] = 0
            layer.weight[:, 2 * SUMS - SIGNALS : 2 * SUMS] = 0

    def of_popularity(self, signals: PairSignals) -> Tensor:
        """[D]: score of each item for a user whom nothing links to it."""
        popularity = torch.from_numpy(signals.popularity)
        return self(popularity.new_zeros(len(popularity), SUMS), popularity)

    def of_links(self, signals: PairSignals, contexts: PackedSequences, domain: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places and scores [n] of the items that a user's events touch."""
        popularity, parts = torch.from_numpy(signals.popularity), []
        for users in signals.links.blocks(contexts):
            row, place, sums = signals.features(contexts.take(users), domain)
            parts.append((users[row], place, self(sums, popularity[place])))
        row, place, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return row, place, score

    def scores(self, signals: PairSignals, contexts: PackedSequences, domain: int) -> Tensor:
        """[B, D]."""
        row, place, score = self.of_links(signals, contexts, domain)
        everywhere = self.of_popularity(signals).expand(len(contexts.length), -1)
        return everywhere.index_put((row, place), score)
