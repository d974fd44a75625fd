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

from metarec_spark.model import transfer
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.fusion import Fusion
from metarec_spark.model.transfer import Lending
from metarec_spark.model.transformer import Contexts

_SIGNALS, _DECAYS, _POPULARITIES = 3, 3, 2
_SUMS = _SIGNALS * _DECAYS + 1
_FEATURES = 2 * _SUMS + _POPULARITIES + 3
_HIDDEN = 32
_USERS, _ROWS = 32, 2048
Theta = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Linked:
    """What the items of all domains say of those of one: g, taken apart."""

    domain: int
    lending: Lending
    fusion: Fusion
    indptr: np.ndarray
    """[I + 1] int64: where each item's links start."""
    place: np.ndarray
    """[links] int64: places of the linked items in the domain."""
    signals: np.ndarray
    """[links, 3] float32: forward and backward counts, damped as g damps them; similarity."""
    popularity: np.ndarray
    """[D, 2] float32: log of 1 + training events of the item, and of those like it in the mean."""

    @classmethod
    def of(cls, catalogue: Catalogue, domain: int, lending: Lending, fusion: Fusion) -> Linked:
        """Of one domain, as g and the plain fusion were tuned there."""
        part, (row, place, into) = catalogue.successors, transfer.links(catalogue, domain)
        damping, similarity = transfer.damping(catalogue, domain, lending, row, place), part.similarity[into]
        signals = np.stack([part.forward[into] * damping, part.backward[into] * damping, similarity], 1)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=catalogue.size))])
        # What is said of a newcomer, which has no events, it says of others: likeness is the same both ways.
        alike = np.bincount(place, similarity * catalogue.events[row], len(catalogue.of_domain[domain]))
        mean = alike / (np.bincount(place, similarity, len(alike)) + 0.5)
        popularity = np.log1p(np.stack([catalogue.events[catalogue.of_domain[domain]], mean], 1))
        return cls(domain, lending, fusion, indptr, place.astype(np.int64), signals, popularity.astype(np.float32))

    def features(self, contexts: Contexts) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places and sums [n, 10] for the items that a user's events link: each signal summed over the events, of which the
        newest counts alone, or the recent ones as in g, or nearly all the same; and a tenth of the number of linking events."""
        user, item, age, share = transfer.ballots(contexts, self.domain, self.lending)
        weights = share[:, None] * np.array([0.0, self.lending.history_decay, 0.9]) ** age[:, None]
        count = self.indptr[item + 1] - self.indptr[item]
        event = np.repeat(np.arange(len(item)), count)
        link = np.arange(len(event)) + np.repeat(self.indptr[item] - np.cumsum(count) + count, count)
        pair, at = np.unique(user[event] * len(self.popularity) + self.place[link], return_inverse=True)
        entries = (weights[event, :, None] * self.signals[link][:, None, :]).reshape(-1, _SUMS - 1).T
        sums = [np.bincount(at, of, len(pair)) for of in entries] + [np.bincount(at, minlength=len(pair)) / 10]
        row, place = np.divmod(pair, len(self.popularity))
        return torch.from_numpy(row), torch.from_numpy(place), torch.from_numpy(np.stack(sums, 1).astype(np.float32))

    def phi_part(self, sums: Tensor) -> Tensor:
        """The φ-part of the plain fusion, [n]: g is a weighted sum of these sums."""
        forward, backward, similarity = sums[:, _SIGNALS : 2 * _SIGNALS].T
        return self.fusion.of_transfer(forward + self.lending.backward * backward + self.lending.similarity * similarity)


class Stacking(nn.Module):
    """(Sums, popularity, φ-part, length of the history, θ-part) → what the plain fusion lacks; a linear part and a hidden layer.

    Zero where nothing has been learnt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.ones(1))
        """Weight of the θ-part, everywhere."""
        self.linear, self.hidden = nn.Linear(_FEATURES, 1), nn.Linear(_FEATURES, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, 1, bias=False)
        for parameter in (*self.linear.parameters(), *self.out.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, sums: Tensor, popularity: Tensor, phi: Tensor, length: Tensor, theta: Tensor) -> Tensor:
        """[n, 10], [n, 2], [n], [n], [n] → [n]; inputs are brought to about the same size."""
        others = torch.stack([phi / 4, torch.log1p(length) / 4, theta / 8], 1)
        known = torch.cat([torch.log1p(10 * sums), (3 * sums).clamp(max=4), popularity / 4, others], 1)
        if self.training:
            return self._learnt(known)
        # Products of one shape, padded with zeros: a pair's score does not depend on who shares the block.
        padded = nn.functional.pad(known, (0, 0, 0, -len(known) % _ROWS)).split(_ROWS)
        return torch.cat([self._learnt(part) for part in padded])[: len(known)]

    def _learnt(self, known: Tensor) -> Tensor:
        return (self.linear(known) + self.out(torch.relu(self.hidden(known)))).squeeze(1)

    def everywhere(self, linked: Linked) -> Tensor:
        """[D]: what is added to an item's score for a user whom nothing links to it."""
        popularity = torch.from_numpy(linked.popularity)
        none = popularity.new_zeros(len(popularity))
        return self(none[:, None].expand(-1, _SUMS), popularity, none, none, none)

    def of_links(self, linked: Linked, contexts: Contexts, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places and scores, but for ``base`` · θ-part, of the items that g links, [n] each.

        Parameters
        ----------
        theta
            (rows, places) → θ-part of the pairs.

        Notes
        -----
        Memory: some hundred bytes for each pair of ``_USERS`` users, and what is returned.
        """
        popularity, parts = torch.from_numpy(linked.popularity), []
        for users in torch.arange(len(contexts.length)).split(_USERS):
            row, place, sums = linked.features(contexts.take(users))
            row, phi = users[row], linked.phi_part(sums)
            parts.append((row, place, phi + self(sums, popularity[place], phi, contexts.length[row], theta(row, place))))
        row, place, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return row, place, score

    def scores(self, linked: Linked, contexts: Contexts, theta_BD: Tensor) -> Tensor:
        """h of every item, [B, D], from the θ-part."""
        row, place, score = self.of_links(linked, contexts, lambda *pair: theta_BD[pair])
        theta_BD = self.base * theta_BD
        # Put in place of, not added to: gradients of a sum would be added in an order that threads decide.
        return (theta_BD + self.everywhere(linked)).index_put((row, place), theta_BD[row, place] + score)
