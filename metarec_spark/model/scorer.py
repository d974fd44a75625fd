"""Scores of every item of a domain: h, its two parts, and the baselines beside it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model import transfer
from metarec_spark.model.bundle import Bundle
from metarec_spark.model.fusion import fuse
from metarec_spark.model.transformer import Contexts


class Scorer:
    """A loaded model's scores, for blocks of users.

    Items of a domain are addressed by their place in ``bundle.catalogue.of_domain[domain]``.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.catalogue = bundle.catalogue
        self.vectors = [torch.from_numpy(bundle.item_vectors[items]) for items in self.catalogue.of_domain]

    @torch.inference_mode()
    def hidden(self, contexts: Contexts, block: int = 1024) -> Tensor:
        """Last hidden state of each sequence, [B, D]; sequences are taken in blocks of similar length."""
        last = torch.empty(len(contexts.length), self.bundle.item_vectors.shape[1])
        for rows in torch.argsort(contexts.length, stable=True).split(block):
            last[rows] = self.bundle.model.encode(contexts.take(rows))
        return last

    @torch.inference_mode()
    def user_vectors(self, hidden: Tensor, domain: int) -> Tensor:
        """Users' vectors for one domain, [B, D]: their product with ``vectors[domain]`` is the θ-part of h."""
        model, fusion = self.bundle.model, self.bundle.fusion[domain]
        return fusion.base * model.scale * model.user_vectors(hidden, domain)

    @torch.inference_mode()
    def base(self, hidden: Tensor, domain: int) -> Tensor:
        """f, [B, I_d]."""
        model = self.bundle.model
        return model.scores(model.user_vectors(hidden, domain), self.vectors[domain])

    def transfer(self, contexts: Contexts, domain: int) -> sparse.csr_matrix:
        """g as tuned, [B, I_d]."""
        return transfer.scores(contexts, domain, self._lent[domain], self.bundle.lending[domain])

    def transitions(self, contexts: Contexts, domain: int) -> sparse.csr_matrix:
        """g as configured: the untrained, untuned heuristic; [B, I_d]."""
        return transfer.scores(contexts, domain, self._lent_untuned[domain], self.bundle.untuned)

    def additions(self, contexts: Contexts, domain: int) -> sparse.csr_matrix:
        """The φ-part of h, [B, I_d] ≥ 0: what is added to the product of user and item vectors."""
        lent = self.transfer(contexts, domain)
        lent.data = self.bundle.fusion[domain].of_transfer(torch.from_numpy(lent.data)).numpy()
        return lent

    def fused(self, base: Tensor, contexts: Contexts, domain: int) -> Tensor:
        """h, [B, I_d], from f's scores."""
        phi = torch.from_numpy(self.additions(contexts, domain).toarray())
        return fuse(self.bundle.fusion[domain].base * base, phi)

    def popularity(self, domain: int) -> np.ndarray:
        """Training events of the domain's items, [I_d] float32."""
        return self.catalogue.events[self.catalogue.of_domain[domain]].astype(np.float32)

    @cached_property
    def _lent(self) -> list[sparse.csr_matrix]:
        return [transfer.weights(self.catalogue, d, lending) for d, lending in enumerate(self.bundle.lending)]

    @cached_property
    def _lent_untuned(self) -> list[sparse.csr_matrix]:
        return [transfer.weights(self.catalogue, d, self.bundle.untuned) for d in range(len(self.vectors))]
