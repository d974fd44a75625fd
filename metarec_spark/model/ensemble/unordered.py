"""Signals of h that do not read the order of a user's events: item-item weights, matrix factorisation and popularity.

Each is an additive term of h with a weight of its own: Σ_k W[item_k, j] over the user's different items, with W from EASE on
platforms of at most ``EASE_ITEMS`` items, else the cosine of two items' users; x_u · y_j with the factors y_j of implicit ALS;
and log(1 + training events of j). Shape suffixes: B users, D items of the domain, K factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from scipy import sparse

from metarec_spark.model.baselines import Baselines, als_solution
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.repeats import own_events

_CSR = ("data", "indices", "indptr")
MOST = 256
"""Item-item weights of an item: those with the largest absolute values."""


class UnorderedWeights(BaseModel):
    """Weights of the terms in one domain; found on validation events. 0: the term is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: float = 0.0
    """Of the item-item weights."""
    factors: float = 0.0
    """Of the matrix factorisation."""
    popularity: float = 0.0
    """Of log(1 + training events)."""

    @property
    def any(self) -> bool:
        """Whether a term needs fitted signals."""
        return bool(self.neighbours or self.factors)


@dataclass(frozen=True)
class UnorderedSignals:
    """Item-item weights and item factors of one domain, fitted to training events."""

    neighbours: sparse.csr_matrix
    """[D, D] float32."""
    factors: np.ndarray
    """[D, K] float32."""

    @classmethod
    def fit(cls, users_UD: sparse.csr_matrix) -> UnorderedSignals:
        """Fit to a binary user × item matrix."""
        fitted = Baselines.fit(users_UD, np.asarray(users_UD.sum(0)).ravel())
        return cls(fitted.neighbours if fitted.ease is None else _largest(fitted.ease, MOST), fitted.als)

    @classmethod
    def empty(cls, items: int, factors: int) -> UnorderedSignals:
        """Signals that score every item 0."""
        return cls(sparse.csr_matrix((items, items), dtype=np.float32), np.zeros((items, factors), np.float32))

    def tensors(self) -> dict[str, np.ndarray]:
        """Arrays that :meth:`from_tensors` reads."""
        return {"factors": self.factors} | {f"neighbours.{name}": getattr(self.neighbours, name) for name in _CSR}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> UnorderedSignals:
        """Of what :meth:`tensors` gave."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        size = len(arrays["factors"])
        neighbours = sparse.csr_matrix(tuple(arrays[f"neighbours.{name}"] for name in _CSR), shape=(size, size))
        return cls(neighbours, arrays["factors"])

    def extended(self, items: int) -> UnorderedSignals:
        """The same signals, and none of the items that were added at the end."""
        added = items - len(self.factors)
        neighbours = self.neighbours.copy()
        neighbours.resize(items, items)
        return UnorderedSignals(neighbours, np.pad(self.factors, ((0, added), (0, 0))))

    def neighbour_scores(self, history_BD: sparse.csr_matrix) -> sparse.csr_matrix:
        """Sum of the item-item weights over each user's items, [B, D]."""
        return history_BD @ self.neighbours

    def user_factors(self, history_BD: sparse.csr_matrix) -> np.ndarray:
        """Factors of users by their items, [B, K] float32; a user's do not depend on the others."""
        return als_solution(history_BD, self.factors)


def history(contexts: PackedSequences, domain: int, items: np.ndarray) -> sparse.csr_matrix:
    """The different items of each user's events in a domain, [B, D] float32 of 1 and 0."""
    history_BD = own_events(contexts, domain, items, 1.0)
    history_BD.data[:] = 1
    return history_BD


def _largest(weights_DD: np.ndarray, most: int) -> sparse.csr_matrix:
    """The ``most`` largest absolute values of each row."""
    size = len(weights_DD)
    if size > most:
        column = torch.from_numpy(weights_DD).abs().topk(most).indices.sort(1).values.numpy()
    else:
        column = np.tile(np.arange(size), (size, 1))
    value = np.take_along_axis(weights_DD, column, 1)
    indptr = np.arange(size + 1) * column.shape[1]
    return sparse.csr_matrix((value.ravel(), column.ravel(), indptr), shape=(size, size))
