"""Scores of every item of a domain: the model's, and the two baselines' beside it. NumPy in, NumPy out."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from metarec_spark.model.bundle import Bundle
from metarec_spark.model.transformer import Contexts


class Scorer:
    """A loaded model's scores, for blocks of users.

    Items of a domain are addressed by their place in ``bundle.catalogue.of_domain[domain]``.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.catalogue = bundle.catalogue
        self.vectors = [bundle.item_vectors[items] for items in self.catalogue.of_domain]

    @torch.inference_mode()
    def hidden(self, contexts: Contexts, block: int = 1024) -> torch.Tensor:
        """Last hidden state of each sequence, [B, D]; sequences are taken in blocks of similar length."""
        last = torch.empty(len(contexts.length), self.bundle.item_vectors.shape[1])
        for rows in torch.argsort(contexts.length, stable=True).split(block):
            longest = max(1, int(contexts.length[rows].max()))
            part = (contexts.item, contexts.domain, contexts.event_type, contexts.gap)
            cut = Contexts(*(array[rows, :longest] for array in part), contexts.length[rows])
            states = self.bundle.model.hidden(cut)
            last[rows] = states[torch.arange(len(rows)), (cut.length - 1).clamp(min=0)]
        return last

    @torch.inference_mode()
    def user_vectors(self, hidden: torch.Tensor, domain: int) -> np.ndarray:
        """Users' vectors for one domain, [B, D] float32: their product with ``vectors[domain]`` is the model's score."""
        return self.bundle.model.user_vectors(hidden, torch.full((len(hidden),), domain)).numpy()

    def popularity(self, domain: int) -> np.ndarray:
        """Training events of the domain's items, [I_d] float32."""
        return self.catalogue.events[self.catalogue.of_domain[domain]].astype(np.float32)

    def transitions(self, contexts: Contexts, domain: int) -> np.ndarray:
        """Σ over a user's newest events, the k-th newest (k from 0) weighing decay ** k, of the event's transition weights;
        [B, I_d] float32."""
        settings = self.bundle.transitions
        item, length = contexts.item.numpy(), contexts.length.numpy()
        age = length[:, None] - 1 - np.arange(item.shape[1])
        votes = (age >= 0) & (age < settings.history)
        user, _ = np.nonzero(votes)
        weight = (settings.history_decay ** age[votes]).astype(np.float32)
        history = sparse.csr_matrix((weight, (user, item[votes])), shape=(len(item), self.catalogue.size))
        return (history @ self._transitions_into[domain]).toarray()

    @cached_property
    def _transitions_into(self) -> list[sparse.csr_matrix]:
        """For each domain, the transitions into its items, [I, I_d]; made when they are first asked for."""
        by_column = self.catalogue.transitions.tocsc()
        return [by_column[:, items].tocsr() for items in self.catalogue.of_domain]
