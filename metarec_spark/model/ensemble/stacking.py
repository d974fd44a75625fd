"""The ensemble (h) as a stacking network: it combines f, g and the signals of g for the items that g links to a user.

Stacked generalization (Wolpert, 1992): its few hundred parameters are learned on held-out events, which f and g have not seen. It
starts as the plain fusion of fusion.py, and one network serves all domains of a model.

Shape suffixes: B users, I items of all domains, D items of one domain, n pairs of a user and an item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from metarec_spark.model import transitions
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.item_links import ItemLinks
from metarec_spark.model.ensemble.network import Network
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.transitions import TransitionParams, transition_weight

_SIGNALS, _DECAYS, _POPULARITIES = 3, 3, 2
_SUMS, _OTHERS = _SIGNALS * _DECAYS + 1, _POPULARITIES + 3
Theta = Callable[[Tensor, Tensor], Tensor]
"""(rows of users, local indexes of items), [n] each → θ-part of the pairs, [n]."""


@dataclass(frozen=True)
class LinkFeatures:
    """The signals of g from items of all domains to items of one domain."""

    domain: int
    params: TransitionParams
    fusion: Fusion
    links: ItemLinks
    """Forward and backward counts, damped as g damps them; similarity."""
    popularity: np.ndarray
    """[D, 2] float32: log of 1 + training events of the item, and of 1 + their mean over similar items."""

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue, domain: int, params: TransitionParams, fusion: Fusion) -> LinkFeatures:
        """Of a domain with its tuned parameters of g and of the plain fusion."""
        pairs, (item, target, inside) = catalogue.successors, catalogue.links(domain)
        damping, similarity = transitions.damping(catalogue, domain, params, item, target), pairs.similarity[inside]
        signals = np.stack([pairs.forward[inside] * damping, pairs.backward[inside] * damping, similarity], 1)
        items = catalogue.of_domain[domain]
        links = ItemLinks.from_entries(item, target, signals, (catalogue.size, len(items)))
        # Similarity is symmetric, so a new item, which has no events, takes its popularity from the items that it resembles.
        events = np.bincount(target, similarity * catalogue.events[item], len(items))
        mean = events / (np.bincount(target, similarity, len(items)) + 0.5)
        popularity = np.log1p(np.stack([catalogue.events[items], mean], 1))
        return cls(domain, params, fusion, links, popularity.astype(np.float32))

    def features(self, contexts: PackedSequences) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, local indexes and sums [n, 10] of the items that a user's events link.

        Each signal is summed over the events three times: over the newest event alone, with the decay of g, and with a decay of
        0.9. The last of the ten is a tenth of the number of linking events.
        """
        events = transitions.history_weights(contexts, self.domain, self.params)
        weights = events.share[:, None] * np.array([0.0, self.params.history_decay, 0.9]) ** events.age[:, None]
        row, target, sums, count = self.links.sums(events, weights)
        return row, target, torch.cat([sums, count[:, None] / 10], 1)

    def phi_part(self, sums: Tensor) -> Tensor:
        """The φ-part of the plain fusion, [n]: g is a weighted sum of these sums."""
        forward, backward, similarity = sums[:, _SIGNALS : 2 * _SIGNALS].T
        return self.fusion.phi_part(transition_weight(forward, backward, similarity, 1.0, self.params))


class Stacking(Network):
    """(Sums, popularity, φ-part, length of the history, θ-part) → correction of the plain fusion, by a linear and a hidden layer.

    The correction is 0 before training.
    """

    def __init__(self) -> None:
        super().__init__(_SUMS, _OTHERS)
        self.base = nn.Parameter(torch.ones(1))
        """Weight of the θ-part, for every item."""
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, sums: Tensor, popularity: Tensor, phi: Tensor, length: Tensor, theta: Tensor) -> Tensor:
        """[n, 10], [n, 2], [n], [n], [n] → [n]; the inputs are scaled to similar sizes."""
        others = torch.stack([phi / 4, torch.log1p(length) / 4, theta / 8], 1)
        return self.score(sums, torch.cat([popularity / 4, others], 1))

    def item_bias(self, links: LinkFeatures) -> Tensor:
        """What is added to the score of each item for a user whose events do not link it, [D]."""
        popularity = torch.from_numpy(links.popularity)
        none = popularity.new_zeros(len(popularity))
        return self(none[:, None].expand(-1, _SUMS), popularity, none, none, none)

    def linked_scores(self, links: LinkFeatures, contexts: PackedSequences, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, local indexes and scores without ``base`` · θ-part of the items that g links to a user, [n] each."""
        popularity, parts = torch.from_numpy(links.popularity), []
        for users in links.links.blocks(contexts):
            row, target, sums = links.features(contexts.take(users))
            row, phi = users[row], links.phi_part(sums)
            correction = self(sums, popularity[target], phi, contexts.length[row], theta(row, target))
            parts.append((row, target, phi + correction))
        row, target, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return row, target, score

    def scores(self, links: LinkFeatures, contexts: PackedSequences, theta_BD: Tensor) -> Tensor:
        """h of every item of the domain, [B, D], from the θ-part."""
        row, target, score = self.linked_scores(links, contexts, lambda *pair: theta_BD[pair])
        theta_BD = self.base * theta_BD
        # Replaced, not added to: the gradient of a sum would be added in an order that depends on threads.
        return (theta_BD + self.item_bias(links)).index_put((row, target), theta_BD[row, target] + score)
