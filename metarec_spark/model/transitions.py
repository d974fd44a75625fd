"""g, the transfer model: what other users and other domains lend a task, as a sparse score of the items near a user's events.

Its few parameters are :class:`TransitionParams`, one for each domain; its signals are the catalogue's successors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import sparse

from metarec_spark.config.sections import Transitions
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.packed import PackedSequences


class TransitionParams(BaseModel):
    """φ: how a domain weighs what is lent to it; the names are those of the section [transitions]."""

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


def weights(catalogue: Catalogue, domain: int, params: TransitionParams) -> sparse.csr_matrix:
    """What each item lends to those of one domain, [I, I_d] float32; columns are places in ``catalogue.of_domain[domain]``.

    weight = (forward + backward · forward-of-the-way-back) / n(successor) ** popularity_damping / n(item) ** source_damping
    + similarity · scalar product of the content, n being training events and at least 1.
    """
    part, (row, place, into) = catalogue.successors, catalogue.links(domain)
    followed = part.forward[into] + np.float32(params.backward) * part.backward[into]
    followed *= damping(catalogue, domain, params, row, place)
    weight = (followed + np.float32(params.similarity) * part.similarity[into]).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=catalogue.size))])
    return sparse.csr_matrix((weight, place, indptr), shape=(catalogue.size, len(catalogue.of_domain[domain])))


def damping(catalogue: Catalogue, domain: int, params: TransitionParams, row: np.ndarray, place: np.ndarray) -> np.ndarray:
    """What the counts of (item, place in the domain) pairs are multiplied by, [n] float32."""
    events = np.maximum(catalogue.events, 1).astype(np.float32)
    column = catalogue.of_domain[domain][place]
    return (events**-params.popularity_damping)[column] * (events**-params.source_damping)[row]


class HistoryWeights(NamedTuple):
    """Events that vote, [n] each: the k-th newest event, k from 0 being its age, votes with share · decay ** k.

    The share is 1 for events in the domain; for events elsewhere, whose ages are their own, it is across_domains, or 1 for a user
    who has no event in the domain.
    """

    user: np.ndarray
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
    at_home = np.bincount(user[inside], minlength=len(length)) > 0
    age, share = np.empty(len(item), np.int64), np.ones(len(item))
    share[~inside & at_home[user]] = params.across_domains
    for part in (inside, ~inside):
        last = np.cumsum(np.bincount(user[part], minlength=len(length))) - 1
        age[part] = last[user[part]] - np.arange(part.sum())
    counts = (age < params.history) & (share > 0)
    return HistoryWeights(*(of[counts] for of in (user, item, age, share, inside)))


def votes(contexts: PackedSequences, domain: int, size: int, params: TransitionParams) -> sparse.csr_matrix:
    """Weight of each item in each user's history, [B, I] float32."""
    user, item, age, share, _ = history_weights(contexts, domain, params)
    weight = (share * params.history_decay**age).astype(np.float32)
    return sparse.csr_matrix((weight, (user, item)), shape=(len(contexts.length), size))


def scores(contexts: PackedSequences, domain: int, lent: sparse.csr_matrix, params: TransitionParams) -> sparse.csr_matrix:
    """g of every item of a domain for every user, [B, I_d] float32, ≥ 0: Σ over the user's votes of what their items lend."""
    return votes(contexts, domain, lent.shape[0], params) @ lent
