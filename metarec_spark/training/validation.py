"""How well held-out events are ranked: NDCG@10 of f, and of any dense or sparse scores. Ties count against the target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.transformer import Contexts, NextItemModel
from metarec_spark.training.loader import Held

CUTOFF = 10
_BLOCK = 256


def blocks(held: Held) -> Iterator[tuple[Contexts, np.ndarray]]:
    """Contexts and targets in blocks; rows are in order of length."""
    for rows in torch.arange(len(held.target)).split(_BLOCK):
        yield held.contexts.take(rows), held.target[rows.numpy()]


@torch.no_grad()
def user_vectors(model: NextItemModel, held: Held) -> list[Tensor]:
    """f's user vectors, [B, D] for each block."""
    return [model.user_vectors(model.encode(contexts), held.domain) for contexts, _ in blocks(held)]


def hidden_items(contexts: Contexts, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and places in ascending ``items`` of the contexts' own items, which are not candidates."""
    row, item = np.repeat(np.arange(len(contexts.length)), contexts.length.numpy()), contexts.item.numpy()
    place = np.minimum(np.searchsorted(items, item), len(items) - 1)
    found = items[place] == item
    return row[found], place[found]


def gain(rank: np.ndarray) -> np.ndarray:
    """NDCG@10 of each rank, from 1."""
    return np.where(rank <= CUTOFF, 1 / np.log2(rank + 1.0), 0.0)


def ranks(scores_BI: Tensor, target_B: np.ndarray, hidden: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Rank of each target place among the candidates, from 1; [B]. Overwrites scores."""
    at, target = torch.arange(len(target_B)), torch.from_numpy(target_B)
    own = scores_BI[at, target][:, None].clone()
    scores_BI[torch.from_numpy(hidden[0]), torch.from_numpy(hidden[1])] = -torch.inf
    scores_BI[at, target] = -torch.inf
    return 1 + (scores_BI >= own).sum(1).numpy()


def sparse_ranks(scores: sparse.csr_matrix, target_B: np.ndarray, hidden: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The same of sparse scores ≥ 0; a target with score 0 stands behind every candidate."""
    rows, size = np.arange(len(target_B)), scores.shape[1]
    own = np.asarray(scores[rows, target_B]).ravel()
    at = np.concatenate([rows, hidden[0]]), np.concatenate([target_B, hidden[1]])
    out = sparse.csr_matrix((np.ones(len(at[0]), np.float32), at), shape=scores.shape)
    left = scores - scores.multiply(out > 0)
    ahead = np.repeat(rows, np.diff(left.indptr))[left.data >= np.repeat(np.maximum(own, 1e-30), np.diff(left.indptr))]
    return np.where(own > 0, 1 + np.bincount(ahead, minlength=len(rows)), size)


@torch.no_grad()
def ndcg_of_base(model: NextItemModel, catalogue: Catalogue, held: list[Held]) -> np.ndarray:
    """Sum of f's NDCG@10, of its squares, and number of pairs by domain, [domains, 3]; this rank's part."""
    model.eval()
    found = np.zeros((len(catalogue.of_domain), 3))
    vectors_ID = model.catalogue_vectors() if held else None
    for part in held:
        items = catalogue.of_domain[part.domain]
        of_domain_DI = vectors_ID[torch.from_numpy(items)].T
        for (contexts, target), user_BD in zip(blocks(part), user_vectors(model, part), strict=True):
            place = np.searchsorted(items, target)
            gains = gain(ranks(user_BD @ of_domain_DI, place, hidden_items(contexts, items)))
            found[part.domain] += gains.sum(), (gains**2).sum(), len(target)
    return found
