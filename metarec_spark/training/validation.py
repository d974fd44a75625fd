"""What lists may hold while a model is trained, and how well the sequence encoder (f) alone ranks held-out events: NDCG@10."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from metarec_spark.config.sections import excludes_seen
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.held_out import HeldOutEvents, rank_blocks
from metarec_spark.model.manifest import Manifest
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import ndcg
from metarec_spark.training.distributed import Ranks

REPEATS = 0.2
"""Share of repeats among a platform's held-out events from which its lists may hold seen items, if exclude_seen is auto."""
log = logging.getLogger("metarec_spark")


def seen_allowed(held_out: list[HeldOutEvents], manifest: Manifest, everyone: Ranks) -> list[bool]:
    """Whether each domain's lists may hold seen items: as configured, or by the share of repeats among held-out events.

    Without such events in a domain, as its settings are inherited.

    Parameters
    ----------
    held_out
        This rank's held-out events.
    """
    counts = np.zeros((len(manifest.domains), 2))
    for events in held_out:
        counts[events.domain] = len(events.target), events.repeat.sum()
    counts = np.array(everyone.sum(counts.ravel().tolist())).reshape(-1, 2)
    allowed = []
    for name, settings, (count, repeats) in zip(manifest.domains, manifest.initial_settings, counts, strict=True):
        auto = repeats < REPEATS * count if count else not settings.seen_allowed
        allowed.append(not excludes_seen(manifest.exclude_seen, name, auto=bool(auto)))
        if count and everyone.rank == 0:
            lists = "may hold" if allowed[-1] else "leave out"
            values = name, 100 * repeats / count, count, lists
            log.info("platform %s: %.0f %% of %d held-out events are repeats; lists %s seen items", *values)
    return allowed


def listable(held_out: list[HeldOutEvents], allowed: list[bool]) -> list[HeldOutEvents]:
    """The held-out events whose items lists may hold; ``allowed`` as of :func:`seen_allowed`."""
    return [events.listable(allowed[events.domain]) for events in held_out]


@torch.no_grad()
def encoder_ndcg(model: NextItemModel, catalogue: Catalogue, held_out: list[HeldOutEvents]) -> np.ndarray:
    """Sum of f's NDCG@10, of its squares, and number of events by domain, [domains, 3]; of this rank's events."""
    model.eval()
    sums = np.zeros((len(catalogue.of_domain), 3))
    if not held_out:
        return sums
    vectors_ID = model.catalogue_vectors()
    for events in held_out:
        items = catalogue.of_domain[events.domain]
        vectors_DI = vectors_ID[torch.from_numpy(items)].T
        for (rank_B,) in rank_blocks(events, items, partial(_scores, model, events.domain, vectors_DI)):
            ndcg_B = ndcg(rank_B)
            sums[events.domain] += ndcg_B.sum(), (ndcg_B**2).sum(), len(ndcg_B)
    return sums


def _scores(model: NextItemModel, domain: int, vectors_DI: Tensor, contexts: PackedSequences, _: Tensor) -> Iterator[Tensor]:
    yield model.user_vectors(model.encode(contexts), domain) @ vectors_DI
