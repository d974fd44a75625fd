"""The ensemble (h) of one domain, by the three ways in which it is put together: one interface.

h of a user and an item = w · θ-part + item bias + addition. The θ-part is f's logit times f's weight in the fusion. w and the
item bias are the same for all users, and additions are sparse, so that a search over products of vectors finds the best items.

Shape suffixes: B users, D items of the domain, W width of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model.ensemble.fusion import Fusion, fuse
from metarec_spark.model.ensemble.pair_ranker import PairRanker, PairSignals
from metarec_spark.model.ensemble.stacking import LinkFeatures, Stacking, Theta
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.transitions import TransitionModel


class Ensemble(Protocol):
    """h of one domain."""

    @property
    def fusion(self) -> Fusion:
        """Weights of f and g."""

    @property
    def item_bias(self) -> Tensor | None:
        """What is added to an item's scores for every user, [D]; None: nothing."""

    def weighted(self, theta: Tensor) -> Tensor:
        """w · θ-part, or w · user vectors whose products with item vectors are the θ-part."""

    def additions(self, contexts: PackedSequences, theta: Theta) -> sparse.csr_matrix:
        """What is added to the scores of the items that a user's events link, [B, D]."""

    def scores(self, contexts: PackedSequences, theta_BD: Tensor) -> Tensor:
        """h of every item for every user, [B, D]."""

    def transition_scores(self, contexts: PackedSequences) -> Tensor:
        """g alone, or the pair ranker in its place, [B, D]."""


@dataclass(frozen=True)
class PlainEnsemble:
    """θ-part + φ-part of g."""

    fusion: Fusion
    transitions: TransitionModel
    item_bias = None

    def weighted(self, theta: Tensor) -> Tensor:
        return theta

    def additions(self, contexts: PackedSequences, theta: Theta) -> sparse.csr_matrix:
        scores = self.transitions.scores(contexts)
        scores.data = self.fusion.phi_part(torch.from_numpy(scores.data)).numpy()
        return scores

    def scores(self, contexts: PackedSequences, theta_BD: Tensor) -> Tensor:
        return fuse(theta_BD, self.fusion.phi_part(self.transition_scores(contexts)))

    def transition_scores(self, contexts: PackedSequences) -> Tensor:
        return torch.from_numpy(self.transitions.scores(contexts).toarray())


@dataclass(frozen=True)
class StackedEnsemble:
    """A stacking network over f, g and the signals of g."""

    fusion: Fusion
    transitions: TransitionModel
    network: Stacking

    @cached_property
    def links(self) -> LinkFeatures:
        """Signals of g; computed at the first use."""
        part = self.transitions
        return LinkFeatures.from_catalogue(part.catalogue, part.domain, part.params, self.fusion)

    @cached_property
    def item_bias(self) -> Tensor:
        return self.network.item_bias(self.links)

    def weighted(self, theta: Tensor) -> Tensor:
        return self.network.base * theta

    def additions(self, contexts: PackedSequences, theta: Theta) -> sparse.csr_matrix:
        return _less_bias(self.network.linked_scores(self.links, contexts, theta), self.item_bias, len(contexts.length))

    def scores(self, contexts: PackedSequences, theta_BD: Tensor) -> Tensor:
        return self.network.scores(self.links, contexts, theta_BD)

    def transition_scores(self, contexts: PackedSequences) -> Tensor:
        return torch.from_numpy(self.transitions.scores(contexts).toarray())


@dataclass(frozen=True)
class RankerEnsemble:
    """θ-part + weighted score of the pair ranker; both are log-odds."""

    fusion: Fusion
    transitions: TransitionModel
    ranker: PairRanker

    @cached_property
    def signals(self) -> PairSignals:
        """The pair ranker's inputs; computed at the first use."""
        return PairSignals.from_catalogue(self.transitions.catalogue, self.transitions.domain)

    @cached_property
    def item_bias(self) -> Tensor:
        return self.fusion.transitions * self.ranker.item_bias(self.signals)

    def weighted(self, theta: Tensor) -> Tensor:
        return theta

    def additions(self, contexts: PackedSequences, theta: Theta) -> sparse.csr_matrix:
        row, target, score = self.ranker.linked_scores(self.signals, contexts, self.transitions.domain)
        return _less_bias((row, target, self.fusion.transitions * score), self.item_bias, len(contexts.length))

    def scores(self, contexts: PackedSequences, theta_BD: Tensor) -> Tensor:
        return fuse(theta_BD, self.fusion.transitions * self.transition_scores(contexts))

    def transition_scores(self, contexts: PackedSequences) -> Tensor:
        return self.ranker.scores(self.signals, contexts, self.transitions.domain)


def _less_bias(linked: tuple[Tensor, Tensor, Tensor], item_bias: Tensor, users: int) -> sparse.csr_matrix:
    """Scores of linked items less the bias that these items have anyway, [B, D]."""
    row, target, score = linked
    return sparse.csr_matrix(((score - item_bias[target]).numpy(), (row, target)), (users, len(item_bias)))
