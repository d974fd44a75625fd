"""Validation twin: the item counts without each user's newest event, so that validation resembles serving.

A model's counts end where its training ends, and a list mostly follows from events that came later. The newest event before a
validation target came earlier and is counted, which flatters whatever trusts the newest event most.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from metarec_spark.config.sections import Transitions
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.packed import PackedSequences
from metarec_spark.transfer.meta_train import both_counts

_ROUNDING = 1e-5
"""What the subtraction may leave of a count of zero."""


def twin_catalogue(catalogue: Catalogue, contexts: PackedSequences, domain: int, settings: Transitions) -> Catalogue:
    """Return the catalogue as if the newest event in ``domain`` of each sequence had not been counted.

    Parameters
    ----------
    contexts
        Counted events, at most one sequence a user; none is empty.
    settings
        Those by which ``catalogue.successors`` were counted.
    """
    newest = contexts.newest(domain)
    with_newest = both_counts(contexts, catalogue.size, settings)
    without = both_counts(contexts.without(newest), catalogue.size, settings)
    counted = {name: a - b for name, a, b in zip(("forward", "backward"), with_newest, without, strict=True)}
    newest_items = contexts.item[contexts.starts + newest][newest >= 0].numpy()
    events = catalogue.events - np.bincount(newest_items, minlength=catalogue.size)
    return replace(catalogue, events=np.maximum(events, 0), successors=_subtract(catalogue.successors, counted))


def _subtract(successors: Successors, counted: dict[str, sparse.csr_matrix]) -> Successors:
    """Subtract counted pairs, by signal, as far as they are among the successors: an item has its strongest alone."""
    size = len(successors.indptr) - 1
    key = np.repeat(np.arange(size), np.diff(successors.indptr)) * size + successors.indices
    signals = {}
    for name, counts in counted.items():
        pair = counts.tocoo()
        wanted = pair.row.astype(np.int64) * size + pair.col
        at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        known = key[at] == wanted if len(key) else np.zeros(0, bool)
        values = getattr(successors, name).copy()
        rest = values[at[known]] - pair.data[known]
        values[at[known]] = np.where(rest > _ROUNDING, rest, 0)
        signals[name] = values
    return replace(successors, **signals)
