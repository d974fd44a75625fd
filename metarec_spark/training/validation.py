"""How well the sequence encoder (f) alone ranks held-out events: NDCG@10."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.held_out import HeldOutEvents, rank_blocks
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import ndcg


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
