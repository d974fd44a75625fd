"""How soon users come back to their own items: an additive term of the ensemble (h) on platforms whose lists may hold seen items.

r(u, i) = weight · log(1 + Σ_k decay ** k), k running over the ages of the user's events with item i on the platform.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import sparse

from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import local_indexes


class RepeatParams(BaseModel):
    """Parameters of the repeat term on one platform; found on validation events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = 0.0
    """0: no repeat term."""
    decay: float = 0.8
    """The user's k-th newest event on the platform counts decay ** k."""


def own_events(contexts: PackedSequences, domain: int, items: np.ndarray, decay: float) -> sparse.csr_matrix:
    """Return Σ decay ** k over each user's events with each item, the newest event on the platform having age k = 0.

    Parameters
    ----------
    contexts
        Events of B users.
    items
        [I] ascending item indices of the platform.

    Returns
    -------
    [B, I] float32.
    """
    length = contexts.length.numpy()
    user, item = np.repeat(np.arange(len(length)), length), contexts.item.numpy()
    inside = contexts.domain.numpy() == domain
    user, local = user[inside], local_indexes(items, item[inside])
    newest = np.cumsum(np.bincount(user, minlength=len(length))) - 1
    weight = decay ** (newest[user] - np.arange(len(user))).astype(np.float64)
    known = local >= 0
    return sparse.csr_matrix((weight[known].astype(np.float32), (user[known], local[known])), (len(length), len(items)))


def repeat_scores(contexts: PackedSequences, domain: int, items: np.ndarray, params: RepeatParams) -> sparse.csr_matrix:
    """Return the repeat term of each user's own items, [B, I] float32; parameters as of :func:`own_events`."""
    scores = own_events(contexts, domain, items, params.decay)
    scores.data = np.float32(params.weight) * np.log1p(scores.data)
    return scores
