"""Scores of every item of a domain by a loaded model: the ensemble (h), its parts, and the baselines beside it.

Items of a domain are addressed by their local index. Shape suffixes: B users, D items of the domain, W width of vectors.
"""

from __future__ import annotations

from functools import cache, cached_property, partial

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model.artifact import ModelArtifact
from metarec_spark.model.encoder import TouchedRows
from metarec_spark.model.ensemble.combined import Ensemble, PlainEnsemble, RankerEnsemble, StackedEnsemble
from metarec_spark.model.fixed_shapes import by_length, in_fixed_blocks
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.transitions import TransitionModel
from metarec_spark.runtime.numba_cache import products

_ROWS, _ITEMS = 1024, 65_536


class Scorer:
    """Scores of a model, for blocks of users."""

    def __init__(self, artifact: ModelArtifact) -> None:
        self.artifact = artifact
        self.catalogue = artifact.catalogue
        self.vectors = [torch.from_numpy(artifact.item_vectors[items]) for items in self.catalogue.of_domain]
        """Item vectors by domain, [D, W] each."""
        domains = range(len(self.vectors))
        self.ensembles = [self._ensemble(domain) for domain in domains]
        """h by domain."""
        self._untuned = [TransitionModel(self.catalogue, domain, artifact.untuned) for domain in domains]

    @torch.inference_mode()
    def hidden(self, contexts: PackedSequences) -> Tensor:
        """Last hidden state of each sequence, [B, W]; zeros for one without events."""
        last_BW, model = torch.zeros(len(contexts.length), self.artifact.item_vectors.shape[1]), self.artifact.model
        for rows, padded, last in by_length(contexts, self.artifact.max_length):
            last_BW[rows] = model.hidden(padded, self._inputs[padded.item], last)[: len(rows)]
        return last_BW

    @torch.inference_mode()
    def user_vectors(self, contexts: PackedSequences, hidden: Tensor, domain: int) -> Tensor:
        """Users' vectors for a domain: their products with :meth:`item_vectors` are h without the additions."""
        terms, parts = self.artifact.terms[domain], [self.ensembles[domain].weighted(self._theta_vectors(hidden, domain))]
        if self._item_bias(domain) is not None:
            parts.append(torch.ones(len(hidden), 1))
        if terms.item_factors is not None:
            parts.append(terms.user_factors(contexts))
        return torch.cat(parts, 1)

    @torch.inference_mode()
    def item_vectors(self, domain: int) -> Tensor:
        """Items' vectors: f's, the item bias if there is one, and the factors if they have a weight."""
        item_bias = self._item_bias(domain)
        parts = [
            self.vectors[domain],
            None if item_bias is None else item_bias[:, None],
            self.artifact.terms[domain].item_factors,
        ]
        return torch.cat([part for part in parts if part is not None], 1)

    def _item_bias(self, domain: int) -> Tensor | None:
        """What is added to an item's scores for every user, [D]; None: nothing."""
        parts = [self.ensembles[domain].item_bias, self.artifact.terms[domain].item_bias]
        known = [part for part in parts if part is not None]
        return torch.stack(known).sum(0) if known else None

    def additions(self, contexts: PackedSequences, hidden: Tensor, domain: int) -> sparse.csr_matrix:
        """Added to the products of user and item vectors: the part of g and other terms, for linked items, [B, D]."""
        added, others = self._linked_additions(contexts, hidden, domain), self.artifact.terms[domain].additions(contexts)
        return added if others is None else (added + others).tocsr()

    @torch.inference_mode()
    def _linked_additions(self, contexts: PackedSequences, hidden: Tensor, domain: int) -> sparse.csr_matrix:
        """What is added for the items that a user's events link, [B, D]."""
        users_BW, items_DW = cache(lambda: self._theta_vectors(hidden, domain).numpy()), self.vectors[domain].numpy()

        def theta(row: Tensor, item: Tensor) -> Tensor:
            return torch.from_numpy(products(users_BW(), items_DW, row.numpy(), item.numpy()))

        return self.ensembles[domain].additions(contexts, theta)

    @torch.inference_mode()
    def encoder_scores(self, hidden: Tensor, domain: int) -> Tensor:
        """f of every item, [B, D]."""
        model = self.artifact.model
        return model.scores(model.user_vectors(hidden, domain), self.vectors[domain])

    @torch.no_grad()
    def ensemble_scores(self, encoder_BD: Tensor, contexts: PackedSequences, domain: int) -> Tensor:
        """h of every item, [B, D], from f's scores."""
        ensemble = self.ensembles[domain]
        return self.artifact.terms[domain].added(ensemble.scores(contexts, ensemble.fusion.encoder * encoder_BD), contexts)

    @torch.no_grad()
    def transition_scores(self, contexts: PackedSequences, domain: int) -> Tensor:
        """g as tuned, or the pair ranker in its place, of every item, [B, D]."""
        return self.ensembles[domain].transition_scores(contexts)

    def untuned_transition_scores(self, contexts: PackedSequences, domain: int) -> sparse.csr_matrix:
        """g as configured, without anything learned, of every item, [B, D]."""
        return self._untuned[domain].scores(contexts)

    def popularity(self, domain: int) -> np.ndarray:
        """Training events of the domain's items, [D] float32."""
        return self.catalogue.events[self.catalogue.of_domain[domain]].astype(np.float32)

    def _ensemble(self, domain: int) -> Ensemble:
        artifact = self.artifact
        fusion, transitions = artifact.fusion[domain], TransitionModel(self.catalogue, domain, artifact.params[domain])
        if artifact.pair_ranker:
            return RankerEnsemble(fusion, transitions, artifact.pair_ranker)
        if artifact.stacking and artifact.stacked[domain]:
            return StackedEnsemble(fusion, transitions, artifact.stacking)
        return PlainEnsemble(fusion, transitions)

    @cached_property
    def _inputs(self) -> Tensor:
        """f's input vector of each item, [I, W]; in fixed blocks, as products of other blocks would add in another order."""
        items = torch.arange(self.catalogue.size).split(_ITEMS)
        return torch.cat([TouchedRows(self.artifact.model, part).vectors_RD for part in items])

    def _theta_vectors(self, hidden: Tensor, domain: int) -> Tensor:
        """Users' vectors whose products with the items' vectors are the θ-part, [B, W]."""
        model = self.artifact.model
        vectors_BW = in_fixed_blocks(partial(model.user_vectors, domain=domain), hidden, _ROWS)
        return self.ensembles[domain].fusion.encoder * model.scale * vectors_BW
