"""Scores of every item of a domain: h, its two parts, and the baselines beside it."""

from __future__ import annotations

from functools import cache, cached_property, partial

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model import transitions
from metarec_spark.model.artifact import ModelArtifact
from metarec_spark.model.encoder import TouchedRows
from metarec_spark.model.ensemble.fusion import fuse
from metarec_spark.model.ensemble.pair_ranker import PairSignals
from metarec_spark.model.ensemble.stacking import LinkFeatures, Stacking
from metarec_spark.model.fixed_shapes import in_fixed_blocks, of_one_length
from metarec_spark.model.packed import PackedSequences
from metarec_spark.runtime.numba_cache import products

_ROWS, _ITEMS = 1024, 65_536


class Scorer:
    """A loaded model's scores, for blocks of users.

    Items of a domain are addressed by their place in ``bundle.catalogue.of_domain[domain]``.
    """

    def __init__(self, bundle: ModelArtifact) -> None:
        self.bundle = bundle
        self.catalogue = bundle.catalogue
        self.vectors = [torch.from_numpy(bundle.item_vectors[items]) for items in self.catalogue.of_domain]
        self.signals, self._linked, self._everywhere = cache(self.signals), cache(self._linked), cache(self._everywhere)

    @torch.inference_mode()
    def hidden(self, contexts: PackedSequences) -> Tensor:
        """Last hidden state of each sequence, [B, D]; zeros for one without events."""
        last_BD, model = torch.zeros(len(contexts.length), self.bundle.item_vectors.shape[1]), self.bundle.model
        for rows, padded, last in of_one_length(contexts, self.bundle.manifest.max_length):
            last_BD[rows] = model.hidden(padded, self._inputs[padded.item], last)[: len(rows)]
        return last_BD

    @torch.inference_mode()
    def user_vectors(self, hidden: Tensor, domain: int) -> Tensor:
        """Users' vectors for one domain: their product with :meth:`item_vectors` is h but for the additions."""
        users_BD, stacking = self._theta_vectors(hidden, domain), self._stacking(domain)
        if stacking:
            users_BD = stacking.base * users_BD
        return torch.cat([users_BD, torch.ones(len(users_BD), 1)], 1) if stacking or self.bundle.pair_ranker else users_BD

    @torch.inference_mode()
    def item_vectors(self, domain: int) -> Tensor:
        """Items' vectors, and, as a last number, what a network says of them to everyone."""
        vectors_ID, everywhere = self.vectors[domain], self._everywhere(domain)
        return vectors_ID if everywhere is None else torch.cat([vectors_ID, everywhere[:, None]], 1)

    @torch.inference_mode()
    def base(self, hidden: Tensor, domain: int) -> Tensor:
        """f, [B, I_d]."""
        model = self.bundle.model
        return model.scores(model.user_vectors(hidden, domain), self.vectors[domain])

    @torch.no_grad()
    def transfer(self, contexts: PackedSequences, domain: int) -> Tensor:
        """g as tuned or taught, [B, I_d]."""
        if pair_ranker := self.bundle.pair_ranker:
            return pair_ranker.scores(self.signals(domain), contexts, domain)
        return torch.from_numpy(self._lent_scores(contexts, domain).toarray())

    def transitions(self, contexts: PackedSequences, domain: int) -> sparse.csr_matrix:
        """g as configured: the untrained, untuned heuristic; [B, I_d]."""
        return transitions.scores(contexts, domain, self._lent_untuned[domain], self.bundle.untuned)

    @torch.inference_mode()
    def additions(self, contexts: PackedSequences, hidden: Tensor, domain: int) -> sparse.csr_matrix:
        """What is added to the product of user and item vectors for the items that g links to a user, [B, I_d]."""
        fusion, everywhere = self.bundle.fusion[domain], self._everywhere(domain)
        if everywhere is None:
            lent = self._lent_scores(contexts, domain)
            lent.data = fusion.phi_part(torch.from_numpy(lent.data)).numpy()
            return lent
        if stacking := self._stacking(domain):
            users_BD, items_ID = self._theta_vectors(hidden, domain).numpy(), self.vectors[domain].numpy()

            def theta(row: Tensor, place: Tensor) -> Tensor:
                return torch.from_numpy(products(users_BD, items_ID, row.numpy(), place.numpy()))

            row, place, score = stacking.of_links(self._linked(domain), contexts, theta)
        else:
            row, place, score = self.bundle.pair_ranker.of_links(self.signals(domain), contexts, domain)
            score = fusion.transitions * score
        added = (score - everywhere[place]).numpy()
        return sparse.csr_matrix((added, (row, place)), (len(contexts.length), len(everywhere)))

    @torch.no_grad()
    def fused(self, base: Tensor, contexts: PackedSequences, domain: int) -> Tensor:
        """h, [B, I_d], from f's scores."""
        fusion = self.bundle.fusion[domain]
        if stacking := self._stacking(domain):
            return stacking.scores(self._linked(domain), contexts, fusion.encoder * base)
        lent = self.transfer(contexts, domain)
        return fuse(fusion.encoder * base, fusion.transitions * lent if self.bundle.pair_ranker else fusion.phi_part(lent))

    def popularity(self, domain: int) -> np.ndarray:
        """Training events of the domain's items, [I_d] float32."""
        return self.catalogue.events[self.catalogue.of_domain[domain]].astype(np.float32)

    def signals(self, domain: int) -> PairSignals:
        """What a weigher weighs; made at the first call."""
        return PairSignals.of_catalogue(self.catalogue, domain)

    @cached_property
    def _inputs(self) -> Tensor:
        """What f reads of each item, [I, D]; made at once, as products of other blocks would add in another order."""
        items = torch.arange(self.catalogue.size).split(_ITEMS)
        return torch.cat([TouchedRows(self.bundle.model, part).vectors_RD for part in items])

    def _theta_vectors(self, hidden: Tensor, domain: int) -> Tensor:
        """Users' vectors whose product with the items' is the θ-part."""
        model = self.bundle.model
        vectors_BD = in_fixed_blocks(partial(model.user_vectors, domain=domain), hidden, _ROWS)
        return self.bundle.fusion[domain].encoder * model.scale * vectors_BD

    def _stacking(self, domain: int) -> Stacking | None:
        """What stacks f and g in a domain; None: the plain fusion is h there."""
        return self.bundle.stacking if self.bundle.stacked[domain] else None

    def _linked(self, domain: int) -> LinkFeatures:
        return LinkFeatures.of(self.catalogue, domain, self.bundle.params[domain], self.bundle.fusion[domain])

    def _everywhere(self, domain: int) -> Tensor | None:
        """What a network says of each item to everyone, [I_d]."""
        if pair_ranker := self.bundle.pair_ranker:
            return self.bundle.fusion[domain].transitions * pair_ranker.of_popularity(self.signals(domain))
        stacking = self._stacking(domain)
        return stacking.everywhere(self._linked(domain)) if stacking else None

    def _lent_scores(self, contexts: PackedSequences, domain: int) -> sparse.csr_matrix:
        return transitions.scores(contexts, domain, self._lent[domain], self.bundle.params[domain])

    @cached_property
    def _lent(self) -> list[sparse.csr_matrix]:
        return [transitions.weights(self.catalogue, d, params) for d, params in enumerate(self.bundle.params)]

    @cached_property
    def _lent_untuned(self) -> list[sparse.csr_matrix]:
        return [transitions.weights(self.catalogue, d, self.bundle.untuned) for d in range(len(self.vectors))]
