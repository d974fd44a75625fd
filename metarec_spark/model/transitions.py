"""The item transition model (g): sparse scores of the items that follow, precede or resemble a user's newest items.

Its signals are the catalogue's successors, counted over all users; its few parameters, :class:`TransitionParams`, are found for
each domain. Shape suffixes: B users, I items of all domains, D items of one domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import sparse
from torch import Tensor

from metarec_spark.config.sections import Transitions
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.packed import PackedSequences

Numbers = TypeVar("Numbers", np.ndarray, Tensor)


class TransitionParams(BaseModel):
    """Parameters φ of g in one domain; the names are those of the section [transitions]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backward: float
    popularity_damping: float
    source_damping: float
    similarity: float
    history: int
    history_decay: float
    across_domains: float

    @classmethod
    def from_settings(cls, settings: Transitions) -> TransitionParams:
        """The parameters as configured."""
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})


def transition_weight(
    forward: Numbers, backward: Numbers, similarity: Numbers, damping: Numbers | float, params: TransitionParams
) -> Numbers:
    """Weight of an item pair in g: (forward + β · backward) · damping + σ · similarity.

    Parameters
    ----------
    forward, backward
        Decayed counts of the pair in users' sequences, in either order; β is ``params.backward``.
    similarity
        Dot product of the items' content; σ is ``params.similarity``.
    damping
        See :func:`damping`; 1 for counts that are damped already.
    """
    return (forward + params.backward * backward) * damping + params.similarity * similarity


def damping(catalogue: Catalogue, domain: int, params: TransitionParams, item: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Factor of the counts of item pairs, [n] float32: n(target) ** -popularity_damping · n(item) ** -source_damping.

    n are training events, at least 1.

    Parameters
    ----------
    item
        Item indexes, [n].
    target
        Local indexes of the following items in the domain, [n].
    """
    events = np.maximum(catalogue.events, 1).astype(np.float32)
    column = catalogue.of_domain[domain][target]
    return (events**-params.popularity_damping)[column] * (events**-params.source_damping)[item]


def weights(catalogue: Catalogue, domain: int, params: TransitionParams) -> sparse.csr_matrix:
    """Weights of all item pairs whose second item is in the domain, [I, D] float32; columns are local indexes."""
    pairs, (item, target, inside) = catalogue.successors, catalogue.links(domain)
    signals = pairs.forward[inside], pairs.backward[inside], pairs.similarity[inside]
    weight = transition_weight(*signals, damping(catalogue, domain, params, item, target), params).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=catalogue.size))])
    return sparse.csr_matrix((weight, target, indptr), shape=(catalogue.size, len(catalogue.of_domain[domain])))


@dataclass(frozen=True)
class TransitionModel:
    """g of one domain with given parameters; its pair weights are computed at the first use."""

    catalogue: Catalogue
    domain: int
    params: TransitionParams

    @cached_property
    def weights(self) -> sparse.csr_matrix:
        """See :func:`weights`."""
        return weights(self.catalogue, self.domain, self.params)

    def scores(self, contexts: PackedSequences) -> sparse.csr_matrix:
        """g of every item of the domain for every user, [B, D]; see :func:`scores`."""
        return scores(contexts, self.domain, self.weights, self.params)


class HistoryWeights(NamedTuple):
    """The events of users that g reads, [n] each: the k-th newest event, k from 0 being its age, weighs share · decay ** k.

    The share is 1 for events in the domain. For events elsewhere, whose ages are counted apart, it is across_domains, or 1 if the
    user has no event in the domain.
    """

    user: np.ndarray
    """Row of the user, ascending."""
    item: np.ndarray
    age: np.ndarray
    share: np.ndarray
    inside: np.ndarray
    """Whether the event is in the domain."""


def history_weights(contexts: PackedSequences, domain: int, params: TransitionParams) -> HistoryWeights:
    """The newest events of each user, at most ``history`` in the domain and as many elsewhere."""
    length = contexts.length.numpy()
    user, item = np.repeat(np.arange(len(length)), length), contexts.item.numpy()
    inside = contexts.domain.numpy() == domain
    has_events_inside = np.bincount(user[inside], minlength=len(length)) > 0
    age, share = np.empty(len(item), np.int64), np.ones(len(item))
    share[~inside & has_events_inside[user]] = params.across_domains
    for part in (inside, ~inside):
        last = np.cumsum(np.bincount(user[part], minlength=len(length))) - 1
        age[part] = last[user[part]] - np.arange(part.sum())
    counts = (age < params.history) & (share > 0)
    return HistoryWeights(user[counts], item[counts], age[counts], share[counts], inside[counts])


def history_matrix(contexts: PackedSequences, domain: int, size: int, params: TransitionParams) -> sparse.csr_matrix:
    """Weight of each of ``size`` items in each user's history, [B, I] float32."""
    user, item, age, share, _ = history_weights(contexts, domain, params)
    weight = (share * params.history_decay**age).astype(np.float32)
    return sparse.csr_matrix((weight, (user, item)), shape=(len(contexts.length), size))


def scores(
    contexts: PackedSequences, domain: int, pair_weights: sparse.csr_matrix, params: TransitionParams
) -> sparse.csr_matrix:
    """g of every item of a domain for every user, [B, D] float32, ≥ 0: the product of history weights and pair weights.

    Parameters
    ----------
    pair_weights
        See :func:`weights`.
    """
    return history_matrix(contexts, domain, pair_weights.shape[0], params) @ pair_weights
