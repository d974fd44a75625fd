"""Validation under the conditions of a list: the newest event of each person is known, and is not counted.

A model's counts end where its training ends, and the events that a list follows from most came later. The newest event of a
validation pair came before, and is counted, which flatters whatever trusts the newest event most.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from metarec_spark.config.sections import Transitions
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.packed import PackedSequences
from metarec_spark.transfer.meta_train import followed

_NONE = 1e-5
"""What subtraction may leave of a count, for rounding."""


def rehearsed(catalogue: Catalogue, contexts: PackedSequences, domain: int, settings: Transitions) -> Catalogue:
    """What would be known of the items, had the newest event in ``domain`` of each sequence not been counted.

    Parameters
    ----------
    contexts
        Events that were counted, of people each named once; none without events.
    settings
        By which ``catalogue.successors`` were counted.
    """
    at = contexts.newest(domain)
    counted = followed(contexts, catalogue.size, settings) - followed(contexts.without(at), catalogue.size, settings)
    last = contexts.item[contexts.starts + at][at >= 0].numpy()
    events = catalogue.events - np.bincount(last, minlength=catalogue.size)
    return replace(catalogue, events=np.maximum(events, 0), successors=_less(catalogue.successors, counted))


def _less(successors: Successors, counted: sparse.csr_matrix) -> Successors:
    """Without some of the counted pairs."""
    size, pair = len(successors.indptr) - 1, counted.tocoo()
    key = np.repeat(np.arange(size), np.diff(successors.indptr)) * size + successors.indices
    signals = {}
    for name, row, column in (("forward", pair.row, pair.col), ("backward", pair.col, pair.row)):
        wanted = row.astype(np.int64) * size + column
        at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        kept = key[at] == wanted if len(key) else np.zeros(0, bool)  # of an item, the strongest successors alone
        left = getattr(successors, name).copy()
        rest = left[at[kept]] - pair.data[kept]
        left[at[kept]] = np.where(rest > _NONE, rest, 0)
        signals[name] = left
    return replace(successors, **signals)
