"""Terms that are added to f and g in h: the repeat term, and the signals that do not read the order of a user's events.

Shape suffixes: B users, D items of the domain, K factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model.ensemble.unordered import UnorderedSignals, UnorderedWeights, history
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.repeats import RepeatParams, repeat_scores


@dataclass(frozen=True)
class AdditiveTerms:
    """The terms of one domain."""

    domain: int
    items: np.ndarray
    """[D] ascending item indexes."""
    events: np.ndarray
    """[D] training events."""
    repeats: RepeatParams
    weights: UnorderedWeights
    signals: UnorderedSignals | None = None
    """None: the model has none, and their weights are 0."""

    @property
    def item_bias(self) -> Tensor | None:
        """The same for every user, [D]; None: nothing."""
        if not self.weights.popularity:
            return None
        return torch.from_numpy(self.weights.popularity * np.log1p(self.events)).float()

    @property
    def item_factors(self) -> Tensor | None:
        """[D, K]: products with :meth:`user_factors` are a term; None: it is left out."""
        return torch.from_numpy(self.signals.factors) if self.signals and self.weights.factors else None

    def user_factors(self, contexts: PackedSequences) -> Tensor:
        """[B, K], the weight included."""
        assert self.signals is not None
        return torch.from_numpy(self.weights.factors * self.signals.user_factors(self._history(contexts))).float()

    def additions(self, contexts: PackedSequences) -> sparse.csr_matrix | None:
        """The terms of the items that a user's items are linked to, and of these items themselves, [B, D]; None: nothing."""
        parts = []
        if self.repeats.weight:
            parts.append(repeat_scores(contexts, self.domain, self.items, self.repeats))
        if self.signals and self.weights.neighbours:
            parts.append(np.float32(self.weights.neighbours) * self.signals.neighbour_scores(self._history(contexts)))
        return sum(parts[1:], parts[0]).tocsr() if parts else None

    def added(self, scores_BD: Tensor, contexts: PackedSequences) -> Tensor:
        """Scores and all terms of every item, [B, D]."""
        item_bias, factors_DK, linked_BD = self.item_bias, self.item_factors, self.additions(contexts)
        if item_bias is not None:
            scores_BD = scores_BD + item_bias
        if factors_DK is not None:
            scores_BD = scores_BD + self.user_factors(contexts) @ factors_DK.T
        return scores_BD if linked_BD is None else scores_BD + torch.from_numpy(linked_BD.toarray())

    def _history(self, contexts: PackedSequences) -> sparse.csr_matrix:
        return history(contexts, self.domain, self.items)
