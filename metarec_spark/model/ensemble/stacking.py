"""h's last word: a small network stacks f, g and what g is made of, for the items that g links to a user; and popularity for all.

Stacked generalization (Wolpert, 1992): its few hundred parameters are learnt on held-out events, which f and g have not seen.
It starts as the plain fusion of model/fusion.py and means the same in every domain: all domains of a model teach one network.

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
from metarec_spark.model.transitions import TransitionParams

_SIGNALS, _DECAYS, _POPULARITIES = 3, 3, 2
_SUMS, _OTHERS = _SIGNALS * _DECAYS + 1, _POPULARITIES + 3
Theta = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LinkFeatures:
    """What the items of all domains say of those of one: g, taken apart."""

    domain: int
    params: TransitionParams
    fusion: Fusion
    links: ItemLinks
    """Forward and backward counts, damped as g damps them; similarity."""
    popularity: np.ndarray
    """[D, 2] float32: log of 1 + training events of the item, and of those like it in the mean."""

    @classmethod
    def of(cls, catalogue: Catalogue, domain: int, params: TransitionParams, fusion: Fusion) -> LinkFeatures:
        """Of one domain, as g and the plain fusion were tuned there."""
        part, (row, place, into) = catalogue.successors, catalogue.links(domain)
        damping, similarity = transitions.damping(catalogue, domain, params, row, place), part.similarity[into]
        signals = np.stack([part.forward[into] * damping, part.backward[into] * damping, similarity], 1)
        links = ItemLinks.of(row, place, signals, (catalogue.size, len(catalogue.of_domain[domain])))
        # What is said of a newcomer, which has no events, it says of others: likeness is the same both ways.
        alike = np.bincount(place, similarity * catalogue.events[row], len(catalogue.of_domain[domain]))
        mean = alike / (np.bincount(place, similarity, len(alike)) + 0.5)
        popularity = np.log1p(np.stack([catalogue.events[catalogue.of_domain[domain]], mean], 1))
        return cls(domain, params, fusion, links, popularity.astype(np.float32))

    def features(self, contexts: PackedSequences) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places and sums [n, 10] for the items that a user's events link: each signal summed over the events, of which the
        newest counts alone, or the recent ones as in g, or nearly all the same; and a tenth of the number of linking events."""
        history_weights = transitions.history_weights(contexts, self.domain, self.params)
        weights = history_weights.share[:, None] * np.array([0.0, self.params.history_decay, 0.9]) ** history_weights.age[:, None]
        row, place, sums, events = self.links.sums(history_weights, weights)
        return row, place, torch.cat([sums, events[:, None] / 10], 1)

    def phi_part(self, sums: Tensor) -> Tensor:
        """The φ-part of the plain fusion, [n]: g is a weighted sum of these sums."""
        forward, backward, similarity = sums[:, _SIGNALS : 2 * _SIGNALS].T
        return self.fusion.phi_part(forward + self.params.backward * backward + self.params.similarity * similarity)


class Stacking(Network):
    """(Sums, popularity, φ-part, length of the history, θ-part) → what the plain fusion lacks; a linear part and a hidden layer.

    Zero where nothing has been learnt.
    """

    def __init__(self) -> None:
        super().__init__(_SUMS, _OTHERS)
        self.base = nn.Parameter(torch.ones(1))
        """Weight of the θ-part, everywhere."""
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, sums: Tensor, popularity: Tensor, phi: Tensor, length: Tensor, theta: Tensor) -> Tensor:
        """[n, 10], [n, 2], [n], [n], [n] → [n]; inputs are brought to about the same size."""
        others = torch.stack([phi / 4, torch.log1p(length) / 4, theta / 8], 1)
        return self.score(sums, torch.cat([popularity / 4, others], 1))

    def everywhere(self, linked: LinkFeatures) -> Tensor:
        """[D]: what is added to an item's score for a user whom nothing links to it."""
        popularity = torch.from_numpy(linked.popularity)
        none = popularity.new_zeros(len(popularity))
        return self(none[:, None].expand(-1, _SUMS), popularity, none, none, none)

    def of_links(self, linked: LinkFeatures, contexts: PackedSequences, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places and scores, but for ``base`` · θ-part, of the items that g links, [n] each.

        Parameters
        ----------
        theta
            (rows, places) → θ-part of the pairs.
        """
        popularity, parts = torch.from_numpy(linked.popularity), []
        for users in linked.links.blocks(contexts):
            row, place, sums = linked.features(contexts.take(users))
            row, phi = users[row], linked.phi_part(sums)
            parts.append((row, place, phi + self(sums, popularity[place], phi, contexts.length[row], theta(row, place))))
        row, place, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return row, place, score

    def scores(self, linked: LinkFeatures, contexts: PackedSequences, theta_BD: Tensor) -> Tensor:
        """h of every item, [B, D], from the θ-part."""
        row, place, score = self.of_links(linked, contexts, lambda *pair: theta_BD[pair])
        theta_BD = self.base * theta_BD
        # Put in place of, not added to: gradients of a sum would be added in an order that threads decide.
        return (theta_BD + self.everywhere(linked)).index_put((row, place), theta_BD[row, place] + score)
