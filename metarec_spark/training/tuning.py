"""Find, for each domain, how it weighs what is lent to it, and how base and transfer model are fused; on validation events.

A bounded coordinate search. Ranks hold different pairs and sum their gains, so all of them decide alike.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from metarec_spark.model import transfer
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.fusion import Fusion, fuse
from metarec_spark.model.transfer import Lending
from metarec_spark.model.transformer import NextItemModel
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.loader import Held
from metarec_spark.training.validation import blocks, gain, hidden_items, ranks, sparse_ranks, user_vectors

log = logging.getLogger("metarec_spark")
GRID: dict[str, list[float]] = {
    "similarity": [0.0, 0.15, 0.3, 0.5, 0.8, 1.2],
    "history_decay": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "popularity_damping": [0.0, 0.15, 0.3, 0.45, 0.6],
    "backward": [0.0, 0.2, 0.4, 0.7, 1.0],
    "source_damping": [0.0, 0.1, 0.2, 0.3],
    "history": [1, 3, 6, 12, 25, 50],
}
FUSIONS = [Fusion(transfer=w) for w in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 8.0, 12.0, 20.0)] + [Fusion(base=0.0, transfer=1.0)]
SHARPNESS = (3.0, 30.0)


@dataclass(frozen=True)
class Tuned:
    """What was found for a domain, and the validation NDCG@10 with it; without validation, what was given."""

    lending: Lending
    fusion: Fusion
    base: float | None = None
    """f alone."""
    transfer: float | None = None
    """g alone."""
    fused: float | None = None
    """h."""


def tune(model: NextItemModel, catalogue: Catalogue, held: list[Held], start: Lending, everyone: Ranks) -> list[Tuned]:
    """Search every domain; one result for each, in order."""
    by_domain = {part.domain: part for part in held}
    model.eval()
    vectors_ID = model.catalogue_vectors()
    found = []
    for domain, items in enumerate(catalogue.of_domain):
        part = by_domain.get(domain)
        pairs = everyone.sum([float(len(part.target)) if part else 0.0])[0]
        if not pairs:
            found.append(Tuned(start, Fusion()))
            continue
        lending, alone = _lending(part, catalogue, domain, start, pairs, everyone)
        fusion, base, fused = _fusion(
            model, vectors_ID[torch.from_numpy(items)], part, catalogue, lending, domain, pairs, everyone
        )
        found.append(Tuned(lending, fusion, base, alone, fused))
        if everyone.rank == 0:
            log.info(
                "domain %d: validation NDCG@10 f %.4f, g %.4f, h %.4f, by %s and %s", domain, base, alone, fused, lending, fusion
            )
    return found


def _lending(
    part: Held | None, catalogue: Catalogue, domain: int, start: Lending, pairs: float, everyone: Ranks
) -> tuple[Lending, float]:
    """Coordinate ascent of g's NDCG@10: each parameter moves on its grid for as long as that helps, twice around."""
    known: dict[Lending, float] = {}

    def measured(lending: Lending) -> float:
        if lending not in known:
            known[lending] = everyone.sum([_gain_of_transfer(part, catalogue, domain, lending)])[0] / pairs
        return known[lending]

    best = start
    for _ in range(2):
        before = best
        for name, grid in GRID.items():
            place = int(np.argmin([abs(value - getattr(best, name)) for value in grid]))
            for step in (1, -1):
                at = place + step
                while 0 <= at < len(grid) and measured(tried := best.model_copy(update={name: grid[at]})) > measured(best):
                    best, at = tried, at + step
        if best == before:
            break
    return best, measured(best)


def _gain_of_transfer(part: Held | None, catalogue: Catalogue, domain: int, lending: Lending) -> float:
    if part is None:
        return 0.0
    items = catalogue.of_domain[domain]
    scores = transfer.scores(part.contexts, transfer.weights(catalogue, domain, lending), lending)
    return float(gain(sparse_ranks(scores, np.searchsorted(items, part.target), hidden_items(part.contexts, items))).sum())


@torch.no_grad()
def _fusion(model, vectors_ID, part, catalogue, lending, domain, pairs, everyone) -> tuple[Fusion, float, float]:
    """The fusion with the best NDCG@10, and that of f alone and of the best."""

    def measured(candidates: list[Fusion]) -> np.ndarray:
        gains = np.zeros(len(candidates))
        if part is not None:
            gains = _gains_of_fusions(model, vectors_ID, part, catalogue, lending, domain, candidates)
        return np.array(everyone.sum(gains.tolist())) / pairs

    of = measured(FUSIONS)
    base, best, value = float(of[0]), FUSIONS[int(of.argmax())], float(of.max())
    if best.transfer and best.base:
        near = [
            best.model_copy(update={"sharpness": s, "transfer": best.transfer * more})
            for s in SHARPNESS
            for more in (0.7, 1.0, 1.5)
        ]
        of = measured(near)
        if of.max() > value:
            best, value = near[int(of.argmax())], float(of.max())
    return best, base, value


def _gains_of_fusions(model, vectors_ID, part, catalogue, lending, domain, candidates) -> np.ndarray:
    items, lent = catalogue.of_domain[domain], transfer.weights(catalogue, domain, lending)
    gains = np.zeros(len(candidates))
    for (contexts, target), user_BD in zip(blocks(part), user_vectors(model, part), strict=True):
        place, hidden = np.searchsorted(items, target), hidden_items(contexts, items)
        theta = model.scores(user_BD, vectors_ID)
        phi = torch.from_numpy(transfer.scores(contexts, lent, lending).toarray())
        for at, fusion in enumerate(candidates):
            gains[at] += gain(ranks(fuse(fusion.base * theta, fusion.of_transfer(phi)), place, hidden)).sum()
    return gains
