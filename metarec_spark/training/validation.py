"""How well f ranks held-out events: NDCG@10."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import Seen, block_rows, hide, places, ranks, seen_places
from metarec_spark.training.loader import HeldOutEvents

CUTOFF = 10
_MOST_ROWS = 256


def blocks(model: NextItemModel, held: HeldOutEvents, items: int) -> Iterator[tuple[PackedSequences, np.ndarray, Tensor]]:
    """Contexts, targets and f's user vectors, [B, D], in blocks for scores of so many items; rows are in order of length."""
    for rows in torch.arange(len(held.target)).split(block_rows(items, _MOST_ROWS)):
        contexts = held.contexts.take(rows)
        yield contexts, held.target[rows.numpy()], model.user_vectors(model.encode(contexts), held.domain)


def placed(contexts: PackedSequences, target: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, Seen]:
    """Places of the targets in ascending ``items``, and of the contexts' own items, but for the target where it is one."""
    place = places(items, target)
    row, seen = seen_places(items, contexts.item.numpy(), contexts.length.numpy())
    other = seen != place[row]
    return place, (row[other], seen[other])


def gain(rank: np.ndarray, cutoff: int = CUTOFF) -> np.ndarray:
    """NDCG@cutoff of each rank, from 1."""
    return np.where(rank <= cutoff, 1 / np.log2(rank + 1.0), 0.0)


@torch.no_grad()
def ndcg_of_base(model: NextItemModel, catalogue: Catalogue, held: list[HeldOutEvents]) -> np.ndarray:
    """Sum of f's NDCG@10, of its squares, and number of pairs by domain, [domains, 3]; this rank's part."""
    model.eval()
    found = np.zeros((len(catalogue.of_domain), 3))
    vectors_ID = model.catalogue_vectors() if held else None
    for part in held:
        items = catalogue.of_domain[part.domain]
        of_domain_DI = vectors_ID[torch.from_numpy(items)].T
        for contexts, target, user_BD in blocks(model, part, len(items)):
            place, seen = placed(contexts, target, items)
            gains = gain(ranks(hide(user_BD @ of_domain_DI, seen), place))
            found[part.domain] += gains.sum(), (gains**2).sum(), len(target)
    return found
