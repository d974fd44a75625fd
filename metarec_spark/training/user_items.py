"""Fit the signals that do not read the order of events to a snapshot's sequences.

Shape suffixes: U users, D items of a domain.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.features.encoding import LENGTH
from metarec_spark.model.baselines import FACTORS, user_item_matrix
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.ensemble.unordered import MOST, UnorderedSignals
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.reader import Shard, read
from metarec_spark.warehouse.storage import Location

_MOST_EVENTS = 1_000_000
"""Events of a domain, about, that the signals are fitted to: those of every n-th sequence."""


def fitted_signals(sequences: Location, catalogue: Catalogue, everyone: Ranks, *, whole: bool) -> list[UnorderedSignals]:
    """Fit the signals of every domain on rank 0, and return them on every rank.

    Parameters
    ----------
    sequences
        The snapshot's part of that name.
    whole
        Whether a row is a user's whole sequence. If not, rows are those of episodes, which end at the user's newest event in a
        domain, and a row counts for that domain alone.

    Notes
    -----
    Rank 0 reads all sequences, and holds 16 bytes for each of the events that it fits to.
    """
    signals = []
    matrices = _user_items(Shard.from_location(sequences, 0, 1), catalogue, whole=whole) if everyone.rank == 0 else None
    for domain, items in enumerate(catalogue.of_domain):
        size, width = len(items), min(MOST, len(items))
        shared = {
            "column": torch.zeros(size, width, dtype=torch.int64),
            "value": torch.zeros(size, width),
            "factors": torch.zeros(size, FACTORS),
        }
        if matrices is not None and size:
            fitted = UnorderedSignals.fit(matrices[domain])
            row = np.repeat(np.arange(size), np.diff(fitted.neighbours.indptr))
            position = np.arange(fitted.neighbours.nnz) - fitted.neighbours.indptr[row]
            shared["column"][row, position] = torch.from_numpy(fitted.neighbours.indices.astype(np.int64))
            shared["value"][row, position] = torch.from_numpy(fitted.neighbours.data)
            shared["factors"].copy_(torch.from_numpy(fitted.factors))
        everyone.broadcast(shared)
        column, value, factors = (shared[name].numpy() for name in ("column", "value", "factors"))
        row, position = np.nonzero(value)
        neighbours = sparse.csr_matrix((value[row, position], (row, column[row, position])), shape=(size, size))
        signals.append(UnorderedSignals(neighbours, factors))
    return signals


def _user_items(shard: Shard, catalogue: Catalogue, *, whole: bool) -> list[sparse.csr_matrix]:
    """The binary user × item matrix of each domain, [U, D]."""
    totals = np.bincount(catalogue.domain[catalogue.domain >= 0], catalogue.events[catalogue.domain >= 0])
    every = np.maximum(1, -(-totals // _MOST_EVENTS)).astype(np.int64)
    users, items, first = [], [], 0
    for group in read(shard, [c.ITEM_IDX, c.DOMAIN, LENGTH]):
        length = group[LENGTH].astype(np.int64)
        inside = np.arange(group[c.ITEM_IDX].shape[1]) < length[:, None]
        if not whole:
            inside &= group[c.DOMAIN] == group[c.DOMAIN][np.arange(len(length)), np.maximum(length - 1, 0)][:, None]
        row, position = np.nonzero(inside)
        counted = (first + row) % every[group[c.DOMAIN][row, position]] == 0
        users.append((first + row)[counted])
        items.append(group[c.ITEM_IDX][row, position][counted])
        first += len(length)
    user, item = np.concatenate(users), np.concatenate(items)
    matrices = []
    for domain, own in enumerate(catalogue.of_domain):
        inside = catalogue.domain[item] == domain
        matrices.append(user_item_matrix(user[inside], item[inside], own))
    return matrices
