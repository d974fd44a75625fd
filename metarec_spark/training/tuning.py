"""Find, for each domain, how it weighs what is lent to it, and how base and transfer model are fused; on validation events.

A bounded coordinate search. Ranks hold different pairs and sum their gains, so all of them decide alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model import transitions
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion, fuse
from metarec_spark.model.manifest import DomainSettings, ValidationNdcg
from metarec_spark.model.ranking import hide, ranks, sparse_ranks
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.distributed import Ranks, SingleProcess
from metarec_spark.training.loader import HeldOutEvents
from metarec_spark.training.validation import CUTOFF, blocks, gain, placed

log = logging.getLogger("metarec_spark")
Found = TypeVar("Found")
GRID: dict[str, list[float]] = {
    "similarity": [0.0, 0.15, 0.3, 0.5, 0.8, 1.2],
    "history_decay": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "popularity_damping": [0.0, 0.15, 0.3, 0.45, 0.6],
    "backward": [0.0, 0.2, 0.4, 0.7, 1.0],
    "source_damping": [0.0, 0.1, 0.2, 0.3],
    "history": [1, 3, 6, 12, 25, 50],
    "across_domains": [0.0, 0.1, 0.3, 1.0],
}
ENCODER_ALONE = Fusion(transitions=0.0)
TRANSITIONS_ALONE = Fusion(encoder=0.0, transitions=1.0)
_WEIGHTS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 8.0, 12.0, 20.0)
FUSIONS = [ENCODER_ALONE, *(Fusion(transitions=weight) for weight in _WEIGHTS), TRANSITIONS_ALONE]
SHARPNESS = (3.0, 30.0)
_MOST_SCORES = 2**30


@dataclass(frozen=True)
class Tuned:
    """The settings of a domain, and the validation NDCG with them; without validation, the start."""

    params: TransitionParams
    fusion: Fusion
    ndcg: ValidationNdcg


def tune(
    model: NextItemModel,
    catalogue: Catalogue,
    held: list[HeldOutEvents],
    start: list[DomainSettings],
    everyone: Ranks,
    fusions: list[Fusion] | None = None,
    cutoff: int = CUTOFF,
) -> list[Tuned]:
    """Search every domain, each from its start; one result for each, in order. ``fusions`` are those to choose from; None: a
    grid and the start's, and what is near the best. NDCG@cutoff says what is better.

    First g's parameters, by g alone, which is cheap; then the weights of the fusion. Searching g's parameters by h once more
    costs six times as much and changed nothing.
    """
    by_domain = {part.domain: part for part in held}
    model.eval()
    vectors_ID = model.catalogue_vectors() if held else None
    domains = range(len(catalogue.of_domain))
    pairs = [_Pairs(model, vectors_ID, catalogue, domain, by_domain.get(domain), everyone, cutoff) for domain in domains]
    return [_tune(of, given, fusions) for of, given in zip(pairs, start, strict=True)]


def cross_fitted(
    model: NextItemModel,
    catalogue: Catalogue,
    held: HeldOutEvents,
    start: TransitionParams,
    fusions: list[Fusion],
    cutoff: int = CUTOFF,
) -> np.ndarray:
    """NDCG@cutoff of h for each of a domain's pairs, [B], with settings found on the other half of the pairs: what was tuned is
    never what is measured.

    Parameters
    ----------
    fusions
        To choose from; with one that refuses f, g alone is measured.
    """
    vectors_ID = model.eval().catalogue_vectors()

    def pairs(part: HeldOutEvents) -> _Pairs:
        return _Pairs(model, vectors_ID, catalogue, held.domain, part, SingleProcess(), cutoff)

    def settings(others: HeldOutEvents) -> tuple[TransitionParams, Fusion]:
        if not len(others.target):
            return start, fusions[0]
        of = pairs(others)
        params = _climb(start, of.of_transfer)
        return params, fusions[int(of.of_fusions(params, fusions).argmax())]

    return by_halves(held, settings, lambda mine, found: pairs(mine).gains(found[0], [found[1]], mine)[0])


def by_halves(
    held: HeldOutEvents, settings: Callable[[HeldOutEvents], Found], gains: Callable[[HeldOutEvents, Found], np.ndarray]
) -> np.ndarray:
    """The gain of each of a domain's pairs, [B], with settings found on the other half of them."""
    found = np.zeros(len(held.target))
    for half in (0, 1):
        mine = held.pair % 2 == half
        found[mine] = gains(held.take(np.flatnonzero(mine)), settings(held.take(np.flatnonzero(~mine))))
    return found


def gains_of(
    model: NextItemModel,
    catalogue: Catalogue,
    held: HeldOutEvents,
    params: TransitionParams,
    fusions: list[Fusion],
    cutoff: int = CUTOFF,
) -> np.ndarray:
    """NDCG@cutoff of h for each of a domain's pairs with each of several fusions, [fusions, B]."""
    model.eval()
    pairs = _Pairs(model, model.catalogue_vectors(), catalogue, held.domain, held, SingleProcess(), cutoff)
    return pairs.gains(params, fusions, held)


def _tune(pairs: _Pairs, start: DomainSettings, fusions: list[Fusion] | None) -> Tuned:
    if not pairs.count:
        return Tuned(start.params, start.fusion, ValidationNdcg())
    params = _climb(start.params, pairs.of_transfer)
    if fusions:
        fusion = fusions[int(pairs.of_fusions(params, fusions).argmax())]
    else:
        fusion = _fusion(start.fusion, lambda tried: pairs.of_fusions(params, tried))
    encoder, ensemble = (float(value) for value in pairs.of_fusions(params, [ENCODER_ALONE, fusion]))
    ndcg = ValidationNdcg(encoder=encoder, transitions=pairs.of_transfer(params), ensemble=ensemble)
    if pairs.everyone.rank == 0:
        measured = pairs.domain, pairs.cutoff, ndcg.encoder, ndcg.transitions, ndcg.ensemble
        log.info("domain %d, validation NDCG@%d: f %.4f, g %.4f, h %.4f", *measured)
    return Tuned(params, fusion, ndcg)


def _climb(best: TransitionParams, measured: Callable[[TransitionParams], float]) -> TransitionParams:
    """Coordinate ascent: each parameter moves on its grid for as long as that helps, twice around."""
    known: dict[TransitionParams, float] = {}

    def value(params: TransitionParams) -> float:
        if params not in known:
            known[params] = measured(params)
        return known[params]

    for _ in range(2):
        before = best
        for name, grid in GRID.items():
            place = int(np.argmin([abs(at - getattr(best, name)) for at in grid]))
            for step in (1, -1):
                at = place + step
                while 0 <= at < len(grid) and value(tried := best.model_copy(update={name: grid[at]})) > value(best):
                    best, at = tried, at + step
        if best == before:
            break
    return best


def _fusion(start: Fusion, measured: Callable[[list[Fusion]], np.ndarray]) -> Fusion:
    """The best of ``FUSIONS`` and the start, or a sharper or flatter one near it."""
    tried = FUSIONS if start in FUSIONS else [*FUSIONS, start]
    of = measured(tried)
    best, value = tried[int(of.argmax())], of.max()
    if best.transitions and best.encoder:
        near = [
            best.model_copy(update={"sharpness": sharpness, "transitions": best.transitions * more})
            for sharpness in SHARPNESS
            for more in (0.7, 1.0, 1.5)
        ]
        of = measured(near)
        best = near[int(of.argmax())] if of.max() > value else best
    return best


class _Pairs:
    """A domain's validation pairs over all ranks, and how well they are ranked; mean NDCG@cutoff."""

    def __init__(
        self,
        model: NextItemModel,
        vectors_ID: Tensor | None,
        catalogue: Catalogue,
        domain: int,
        part: HeldOutEvents | None,
        everyone: Ranks,
        cutoff: int,
    ) -> None:
        self.model, self.domain, self.everyone, self.cutoff = model, domain, everyone, cutoff
        self.items = catalogue.of_domain[domain]
        votes = np.zeros(catalogue.size, bool)
        if part:
            votes[part.contexts.item.numpy()] = True
        asked = catalogue.successors.only(votes, catalogue.domain == domain)  # of the rest, pairs use nothing
        self.catalogue = replace(catalogue, successors=asked)
        self.held = part
        self.few = part and thinned(part, len(self.items), everyone.size)
        self.count, self.few_count = everyone.sum([float(len(part.target)) if part else 0.0 for part in (self.held, self.few)])
        self.vectors = vectors_ID[torch.from_numpy(self.items)] if part else None

    def of_transfer(self, params: TransitionParams) -> float:
        """g alone."""
        gains = 0.0
        if self.held:
            lent = transitions.weights(self.catalogue, self.domain, params)
            scores = transitions.scores(self.held.contexts, self.domain, lent, params)
            rank = sparse_ranks(scores, *placed(self.held.contexts, self.held.target, self.items))
            gains = float(gain(rank, self.cutoff).sum())
        return self.everyone.sum([gains])[0] / self.count

    def of_fusions(self, params: TransitionParams, fusions: list[Fusion]) -> np.ndarray:
        """h with each of several fusions; of a large catalogue, over fewer pairs."""
        gains = self.gains(params, fusions, self.few).sum(1)
        return np.array(self.everyone.sum(gains.tolist())) / self.few_count

    @torch.no_grad()
    def gains(self, params: TransitionParams, fusions: list[Fusion], part: HeldOutEvents | None) -> np.ndarray:
        """h of each of some of this rank's pairs with each of several fusions, [fusions, B]."""
        gains = [np.zeros((len(fusions), 0))]
        lent = transitions.weights(self.catalogue, self.domain, params)
        for contexts, target, user_BD in blocks(self.model, part, len(self.items)) if part else ():
            theta = self.model.scores(user_BD, self.vectors)
            place, seen = placed(contexts, target, self.items)
            phi = torch.from_numpy(transitions.scores(contexts, self.domain, lent, params).toarray())
            of = (fuse(fusion.encoder * theta, fusion.phi_part(phi)) for fusion in fusions)
            gains.append(gain(np.array([ranks(hide(scores, seen), place) for scores in of]), self.cutoff))
        return np.concatenate(gains, 1)


def thinned(part: HeldOutEvents, items: int, ranks: int) -> HeldOutEvents:
    """Of a large catalogue fewer pairs, evenly: at most so many that all ranks' scores of them are ``_MOST_SCORES``."""
    most = max(1, _MOST_SCORES // items // ranks)
    return part.take(np.arange(0, len(part.target), max(1, -(-len(part.target) // most))))
