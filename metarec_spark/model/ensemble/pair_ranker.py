"""The item-pair ranker: for thin domains, a small network over item-to-item signals takes the place of g.

Its signals mean the same in every domain, so that it can be trained on other domains (transfer/meta_train.py).

Shape suffixes: B users, I items of all domains, D items of the domain, V content tokens, n pairs of a user and an item.
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
"""Each signal is summed over a user's events in the domain with each of these decays: the newest event alone, recent events, all
events; and over events elsewhere with the last one. The network learns what the sums are worth."""
HISTORY = TransitionParams(
    backward=0.4,
    popularity_damping=0.3,
    source_damping=0.1,
    similarity=1.0,
    history=30,
    history_decay=0.0,
    across_domains=1.0,
)
"""Which events are summed over, and how counts are damped; the other parameters are not used."""
BANDS = ((2, 30), (31, 250), (251, 1000))
"""Content tokens by the number of items that have them: a rare token in common says more than a frequent one."""
SIGNALS = 4 + len(BANDS)
SUMS = SIGNALS * (len(DECAYS) + 1)
POPULARITIES = 4
_MAX_SIMILAR, _NEAREST = 200, 30
_ROWS = 2048


@dataclass(frozen=True)
class PairSignals:
    """Signals from items of all domains to items of one domain."""

    links: ItemLinks
    """Signals ≥ 0: follows; precedes; similar by rare, usual and frequent tokens; similar to a following or preceding item;
    follows or precedes a similar item."""
    popularity: np.ndarray
    """[D, POPULARITIES] float32: log of 1 + training events of the item, of similar items, and of both per mean item."""

    @classmethod
    def from_counts(
        cls,
        forward: sparse.csr_matrix,
        backward: sparse.csr_matrix,
        similarity: ContentSimilarity,
        events: np.ndarray,
        items: np.ndarray,
        rows: np.ndarray,
    ) -> PairSignals:
        """From transition counts and content similarity.

        Parameters
        ----------
        forward, backward
            [I, D] decayed counts.
        similarity
            See :func:`content_similarity`.
        events
            [I] training events.
        items
            [D] item indexes of the domain.
        rows
            Ascending indexes of the items in users' histories; links from other items are left out.
        """
        counts = np.maximum(events, 1).astype(np.float32)
        row = sparse.diags(counts**-HISTORY.source_damping)
        column = sparse.diags(counts[items] ** -HISTORY.popularity_damping)
        follows, precedes = ((row @ count @ column).tocsr().astype(np.float32) for count in (forward, backward))
        nearest, nearest_inside = similarity.nearest, similarity.nearest[items]
        linked = follows + np.float32(HISTORY.backward) * precedes
        # An item elsewhere passes on only the links of items of the domain that resemble it.
        two_hops = [linked[rows] @ nearest_inside, nearest[rows] @ linked[items]]
        own = events[items].astype(np.float32)
        similar = (nearest_inside @ own) / (np.asarray(nearest_inside.sum(1)).ravel() + np.float32(0.5))
        scale = np.float32(len(items) / (own.sum() + 1))
        popularity = np.stack([np.log1p(count) for count in (own, similar, own * scale, similar * scale)], 1)
        one_hop = [signal[rows] for signal in (follows, precedes, *similarity.bands)]
        return cls(ItemLinks.from_matrices([*one_hop, *two_hops], rows, len(events)), popularity.astype(np.float32))

    @classmethod
    def from_catalogue(
        cls, catalogue: Catalogue, domain: int, similarity: ContentSimilarity | None = None, rows: np.ndarray | None = None
    ) -> PairSignals:
        """From all training events of a catalogue.

        Parameters
        ----------
        similarity
            Of the catalogue; None: it is computed.
        rows
            As in :meth:`from_counts`; None: all items.
        """
        pairs, (item, target, inside) = catalogue.successors, catalogue.links(domain)
        items = catalogue.of_domain[domain]
        shape = catalogue.size, len(items)
        counts = [sparse.csr_matrix((count[inside], (item, target)), shape) for count in (pairs.forward, pairs.backward)]
        rows = np.arange(catalogue.size) if rows is None else rows
        similarity = similarity or content_similarity(catalogue, domain)
        return cls.from_counts(counts[0], counts[1], similarity, catalogue.events, items, rows)

    def features(self, contexts: PackedSequences, domain: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, local indexes and sums [n, SUMS] of the items that any signal links to a user's events."""
        events = transitions.history_weights(contexts, domain, HISTORY)
        weights = np.array([*DECAYS, DECAYS[-1]]) ** events.age[:, None]
        weights[:, :-1] *= events.inside[:, None]
        weights[:, -1] *= ~events.inside
        row, target, sums, _ = self.links.sums(events, weights)
        return row, target, sums


@dataclass(frozen=True)
class ContentSimilarity:
    """Dot products of all items' content tokens with those of one domain's items, [I, D] float32; 0 of an item with itself."""

    bands: list[sparse.csr_matrix]
    """Over the tokens of each band; the largest of each row."""
    nearest: sparse.csr_matrix
    """Over all tokens; the few largest of each row."""


def content_similarity(catalogue: Catalogue, domain: int) -> ContentSimilarity:
    """Content similarity of all items of a catalogue to those of a domain."""
    items, (size, width) = catalogue.of_domain[domain], catalogue.tokens.shape
    item = np.repeat(np.arange(size), width)
    shape = size, len(catalogue.token_hashes)
    weight = sparse.csr_matrix((catalogue.weights.ravel(), (item, catalogue.tokens.ravel())), shape)
    weight.eliminate_zeros()
    spread, bands = np.bincount(weight.indices, minlength=shape[1]), []
    for fewest, most in BANDS:
        band = weight[:, np.flatnonzero((spread >= fewest) & (spread <= most))]
        bands.append(similarity_products(band, items, _MAX_SIMILAR))
    return ContentSimilarity(bands, largest_entries(sum(bands), _NEAREST))


def similarity_products(weight: sparse.csr_matrix, items: np.ndarray, most: int) -> sparse.csr_matrix:
    """Dot products of all rows of [I, V] weights with some of them, [I, D] float32, except a row with itself.

    Each row keeps its ``most`` largest.
    """
    transposed, parts = weight[items].T.tocsr(), []
    for first in range(0, weight.shape[0], _ROWS):
        product = (weight[first : first + _ROWS] @ transposed).tocoo()
        other = items[product.col] != product.row + first
        entries = (product.data[other], (product.row[other], product.col[other]))
        parts.append(largest_entries(sparse.csr_matrix(entries, product.shape), most))
    return sparse.vstack(parts, "csr", np.float32)


def largest_entries(matrix: sparse.spmatrix, most: int) -> sparse.csr_matrix:
    """Only the ``most`` largest entries of each row; ties go to the smaller column."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    count = np.diff(matrix.indptr)
    least = np.full(len(count), -np.inf)
    for row in np.flatnonzero(count > most):
        entries = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
        least[row] = np.partition(entries, len(entries) - most)[len(entries) - most]
    row = np.repeat(np.arange(len(count)), count)
    above, equal = matrix.data > least[row], matrix.data == least[row]
    room = most - np.bincount(row[above], minlength=len(count))
    equal_so_far = np.cumsum(equal)
    before = np.append(0, equal_so_far)[matrix.indptr[:-1]]
    stays = above | (equal & (equal_so_far - before[row] <= room[row]))
    return sparse.csr_matrix((matrix.data[stays], (row[stays], matrix.indices[stays])), matrix.shape)


class PairRanker(Network):
    """(Sums, popularity) → a score of the pair."""

    def __init__(self) -> None:
        super().__init__(SUMS, POPULARITIES)

    def forward(self, sums: Tensor, popularity: Tensor) -> Tensor:
        """[n, SUMS] and [n, POPULARITIES] → [n]."""
        return self.score(sums, popularity)

    @torch.no_grad()
    def ignore_other_domains(self) -> None:
        """Zero the weights of sums over events in other domains, for a ranker that was trained without such events."""
        for layer in (self.linear, self.hidden):
            layer.weight[:, SUMS - SIGNALS : SUMS] = 0
            layer.weight[:, 2 * SUMS - SIGNALS : 2 * SUMS] = 0

    def item_bias(self, signals: PairSignals) -> Tensor:
        """Score of each item for a user whose events do not link it, [D]."""
        popularity = torch.from_numpy(signals.popularity)
        return self(popularity.new_zeros(len(popularity), SUMS), popularity)

    def linked_scores(self, signals: PairSignals, contexts: PackedSequences, domain: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, local indexes and scores of the items that a user's events link, [n] each."""
        popularity, parts = torch.from_numpy(signals.popularity), []
        for users in signals.links.blocks(contexts):
            row, target, sums = signals.features(contexts.take(users), domain)
            parts.append((users[row], target, self(sums, popularity[target])))
        row, target, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return row, target, score

    def scores(self, signals: PairSignals, contexts: PackedSequences, domain: int) -> Tensor:
        """Score of every item of the domain for every user, [B, D]."""
        row, target, score = self.linked_scores(signals, contexts, domain)
        return self.item_bias(signals).expand(len(contexts.length), -1).index_put((row, target), score)
