"""g for a thin domain: a small network weighs signals that mean the same in every domain, so that one domain can teach another.

Shape suffixes: B users, I items of all domains, D items of the domain, C features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from metarec_spark.model import transfer
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.transfer import Lending
from metarec_spark.model.transformer import Contexts

DECAYS = (0.0, 0.6, 0.9)
"""Each signal is summed over a user's events with each of these: the newest alone, the recent ones, all."""
VOTES = [
    Lending(
        backward=0.4,
        popularity_damping=0.3,
        source_damping=0.1,
        similarity=1.0,
        history=30,
        history_decay=decay,
        across_domains=0.3,
    )
    for decay in DECAYS
]
BANDS = ((2, 30), (31, 250), (251, 1000))
"""Content tokens by the number of items that have them: a rare word in common says more, and something else, than a usual one."""
SIGNALS = 4 + len(BANDS)
POPULARITIES = 4
_MOST_ALIKE, _NEAREST = 200, 30
_ROWS, _BLOCK_BYTES = 2048, 2**28


@dataclass(frozen=True)
class Signals:
    """What the items of all domains say of those of one."""

    matrices: list[sparse.csr_matrix]
    """[I, D] float32 ≥ 0 each: follows, precedes; is alike in rare, usual and frequent tokens; is like what follows or precedes;
    follows or precedes what is alike."""
    popularity: np.ndarray
    """[D, POPULARITIES] float32: log of 1 + training events of the item, and of those like it, as counted and per mean item."""

    @classmethod
    def of(
        cls,
        forward: sparse.csr_matrix,
        backward: sparse.csr_matrix,
        alike: list[sparse.csr_matrix],
        events: np.ndarray,
        items: np.ndarray,
    ) -> Signals:
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
        """
        counts = np.maximum(events, 1).astype(np.float32)
        row, column = (
            sparse.diags(counts ** -VOTES[0].source_damping),
            sparse.diags(counts[items] ** -VOTES[0].popularity_damping),
        )
        follows, precedes = ((row @ of @ column).tocsr().astype(np.float32) for of in (forward, backward))
        near = strongest(sum(alike), _NEAREST)
        near_home, linked = near[items], follows + np.float32(VOTES[0].backward) * precedes
        # Of an item elsewhere, only items at home that are like it lend their links.
        hops = [(linked @ near_home).tocsr(), (near @ linked[items]).tocsr()]
        mine = events[items].astype(np.float32)
        theirs = (near_home @ mine) / (np.asarray(near_home.sum(1)).ravel() + np.float32(0.5))
        scale = np.float32(len(items) / (mine.sum() + 1))
        popularity = np.stack([np.log1p(of) for of in (mine, theirs, mine * scale, theirs * scale)], 1)
        return cls([follows, precedes, *alike, *hops], popularity.astype(np.float32))

    @classmethod
    def of_catalogue(cls, catalogue: Catalogue, domain: int, likeness: list[sparse.csr_matrix] | None = None) -> Signals:
        """From all training events; ``likeness`` is what :func:`alike` gives, where it was made before."""
        part, (row, place, into) = catalogue.successors, transfer.links(catalogue, domain)
        items = catalogue.of_domain[domain]
        shape = catalogue.size, len(items)
        links = [sparse.csr_matrix((of[into], (row, place)), shape) for of in (part.forward, part.backward)]
        return cls.of(*links, likeness or alike(catalogue, domain), catalogue.events, items)

    def features(self, contexts: Contexts, domain: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, places and features [n, C] of the items that any signal of a user touches; C is SIGNALS · len(DECAYS)."""
        size = self.matrices[0].shape[0]
        votes = [transfer.votes(contexts, domain, size, lending) for lending in VOTES]
        dense = np.stack([(vote @ signal).toarray() for vote in votes for signal in self.matrices], 2)
        row, place = dense.any(2).nonzero()
        return row, place, dense[row, place]


def alike(catalogue: Catalogue, domain: int) -> list[sparse.csr_matrix]:
    """For each band, the scalar products of the items' tokens with those of the domain's items, [I, D] float32; of each row the
    strongest, and never an item with itself."""
    items, (size, width) = catalogue.of_domain[domain], catalogue.tokens.shape
    item = np.repeat(np.arange(size), width)
    shape = size, len(catalogue.token_hashes)
    weight = sparse.csr_matrix((catalogue.weights.ravel(), (item, catalogue.tokens.ravel())), shape)
    weight.eliminate_zeros()
    spread, found = np.bincount(weight.indices, minlength=shape[1]), []
    for fewest, most in BANDS:
        band = weight[:, np.flatnonzero((spread >= fewest) & (spread <= most))]
        home, parts = band[items].T.tocsr(), []
        for first in range(0, size, _ROWS):
            product = (band[first : first + _ROWS] @ home).tocoo()
            other = items[product.col] != product.row + first
            kept = (product.data[other], (product.row[other], product.col[other]))
            parts.append(strongest(sparse.csr_matrix(kept, product.shape), _MOST_ALIKE))
        found.append(sparse.vstack(parts, "csr", np.float32))
    return found


def strongest(matrix: sparse.spmatrix, most: int) -> sparse.csr_matrix:
    """The ``most`` largest entries of each row; ties go to the smaller column."""
    matrix = matrix.tocoo()
    order = np.lexsort((matrix.col, -matrix.data, matrix.row))
    row = matrix.row[order]
    count = np.bincount(row, minlength=matrix.shape[0])
    kept = order[np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) < most]
    return sparse.csr_matrix((matrix.data[kept], (matrix.row[kept], matrix.col[kept])), matrix.shape)


class Weigher(nn.Module):
    """Features → a score, the log-odds of being next; a linear part and a hidden layer beside it."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        size = 2 * SIGNALS * len(DECAYS) + POPULARITIES
        self.linear, self.hidden, self.out = nn.Linear(size, 1), nn.Linear(size, hidden), nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, features: Tensor, popularity: Tensor) -> Tensor:
        """[n, C] and [n, POPULARITIES] → [n]."""
        known = torch.cat([torch.log1p(10 * features), (3 * features).clamp(max=4), popularity], 1)
        return (self.linear(known) + self.out(torch.relu(self.hidden(known)))).squeeze(1)

    def of_popularity(self, signals: Signals) -> Tensor:
        """[D]: score of each item for a user whom nothing links to it."""
        popularity = torch.from_numpy(signals.popularity)
        return self(popularity.new_zeros(len(popularity), SIGNALS * len(DECAYS)), popularity)

    def links(self, signals: Signals, contexts: Contexts, domain: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places and scores [n] of the items that a user's events touch."""
        row, place, features = signals.features(contexts, domain)
        score = self(torch.from_numpy(features), torch.from_numpy(signals.popularity[place]))
        return torch.from_numpy(row), torch.from_numpy(place), score

    def scores(self, signals: Signals, contexts: Contexts, domain: int) -> Tensor:
        """[B, D]."""
        row, place, score = self.links(signals, contexts, domain)
        everywhere = self.of_popularity(signals).expand(len(contexts.length), -1)
        return everywhere.index_put((row, place), score)


def block_rows(signals: Signals) -> int:
    """Users whose features fit into memory together."""
    return max(1, _BLOCK_BYTES // (4 * signals.matrices[0].shape[1] * SIGNALS * len(DECAYS)))


def blocks(contexts: Contexts, signals: Signals) -> Iterator[tuple[Tensor, Contexts]]:
    """Rows and contexts, so many at a time."""
    for rows in torch.arange(len(contexts.length)).split(block_rows(signals)):
        yield rows, contexts.take(rows)
