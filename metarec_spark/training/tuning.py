"""Search of each domain's settings on validation events: parameters of the item transition model (g), weights of the fusion (h).

A bounded coordinate search. Ranks hold different events and sum their NDCG, so that all ranks decide the same.

Shape suffixes: B events, V fusions, I items of all domains, D items of the domain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion, fuse
from metarec_spark.model.ensemble.unordered import UnorderedWeights
from metarec_spark.model.held_out import HeldOutEvents, rank
from metarec_spark.model.manifest import DomainSettings, ValidationNdcg
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import CUTOFF, ndcg, sparse_ranks
from metarec_spark.model.repeats import RepeatParams
from metarec_spark.model.transitions import TransitionModel, TransitionParams
from metarec_spark.training.distributed import Ranks, SingleProcess

log = logging.getLogger("metarec_spark")
Settings = TypeVar("Settings")
GRID: dict[str, list[float]] = {
    "similarity": [0.0, 0.15, 0.3, 0.5, 0.8, 1.2],
    "history_decay": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0],
    "popularity_damping": [0.0, 0.15, 0.3, 0.45, 0.6],
    "backward": [0.0, 0.2, 0.4, 0.7, 1.0],
    "source_damping": [0.0, 0.1, 0.2, 0.3],
    "history": [1, 3, 6, 12, 25, 50, 100, 200],
    "across_domains": [0.0, 0.1, 0.3, 1.0],
}
ENCODER_ALONE = Fusion(transitions=0.0)
TRANSITIONS_ALONE = Fusion(encoder=0.0, transitions=1.0)
_WEIGHTS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 8.0, 12.0, 20.0)
FUSIONS = [ENCODER_ALONE, *(Fusion(transitions=weight) for weight in _WEIGHTS), TRANSITIONS_ALONE]
_SHARPNESS, _FACTORS = (3.0, 30.0), (0.7, 1.0, 1.5)
_MAX_SCORES = 2**30


@dataclass(frozen=True)
class Tuned:
    """The settings of a domain, and its validation NDCG with them; without validation events, the start of the search."""

    params: TransitionParams
    fusion: Fusion
    ndcg: ValidationNdcg
    repeats: RepeatParams = field(default_factory=RepeatParams)
    unordered: UnorderedWeights = field(default_factory=UnorderedWeights)

    def settings(self, *, stacked: bool = False, seen_allowed: bool = False) -> DomainSettings:
        """As a manifest records them."""
        return DomainSettings(
            params=self.params,
            fusion=self.fusion,
            stacked=stacked,
            repeats=self.repeats,
            unordered=self.unordered,
            seen_allowed=seen_allowed,
        )


def tune(
    model: NextItemModel,
    catalogue: Catalogue,
    held_out: list[HeldOutEvents],
    start: list[DomainSettings],
    everyone: Ranks,
    fusions: list[Fusion] | None = None,
    cutoff: int = CUTOFF,
    names: Sequence[str] = (),
) -> list[Tuned]:
    """Search the settings of every domain by NDCG@cutoff, and return them in the order of the domains.

    First the parameters of g, by g alone, which is cheap; then the weights of the fusion. Another search of g's parameters by h
    costs six times as much and changed nothing.

    Parameters
    ----------
    held_out
        This rank's validation events.
    start
        Start of the search by domain.
    fusions
        Fusions to choose from; None: ``FUSIONS``, the start's, and those near the best.
    names
        Names of the domains for the log; without names nothing is logged.
    """
    by_domain = {events.domain: events for events in held_out}
    model.eval()
    vectors_ID = model.catalogue_vectors() if held_out else None
    tuned = []
    for domain in range(len(catalogue.of_domain)):
        measure = _Measure(model, vectors_ID, catalogue, domain, by_domain.get(domain), everyone, cutoff)
        tuned.append(_tune(measure, start[domain], fusions))
        measured = tuned[-1].ndcg
        if names and measure.count and everyone.rank == 0:
            values = measured.encoder, measured.transitions, measured.ensemble
            log.info("platform %s: validation NDCG@%d: f %.4f, g %.4f, h %.4f", names[domain], cutoff, *values)
    return tuned


def cross_fitted(
    model: NextItemModel,
    catalogue: Catalogue,
    held_out: HeldOutEvents,
    start: TransitionParams,
    fusions: list[Fusion],
    cutoff: int = CUTOFF,
) -> np.ndarray:
    """NDCG@cutoff of h for each of a domain's events, [B], with settings that were tuned on the other half of the events.

    Parameters
    ----------
    fusions
        Fusions to choose from.
    """
    vectors_ID = model.eval().catalogue_vectors()

    def measure(part: HeldOutEvents) -> _Measure:
        return _Measure(model, vectors_ID, catalogue, held_out.domain, part, SingleProcess(), cutoff)

    def tuned(other_half: HeldOutEvents) -> tuple[TransitionParams, Fusion]:
        if not len(other_half.target):
            return start, fusions[0]
        by_other_half = measure(other_half)
        params = _climb(start, by_other_half.transitions)
        return params, fusions[int(by_other_half.ensembles(params, fusions).argmax())]

    def measured(half: HeldOutEvents, settings: tuple[TransitionParams, Fusion]) -> np.ndarray:
        params, fusion = settings
        return measure(half).ndcg(params, [fusion], half)[0]

    return by_halves(held_out, tuned, measured)


def by_halves(
    held_out: HeldOutEvents,
    tuned: Callable[[HeldOutEvents], Settings],
    measured: Callable[[HeldOutEvents, Settings], np.ndarray],
) -> np.ndarray:
    """NDCG of each event, [B], measured with the settings that are tuned on the other half of the events."""
    values = np.zeros(len(held_out.target))
    for half in (0, 1):
        inside = held_out.pair % 2 == half
        settings = tuned(held_out.take(np.flatnonzero(~inside)))
        values[inside] = measured(held_out.take(np.flatnonzero(inside)), settings)
    return values


def ensemble_ndcg(
    model: NextItemModel,
    catalogue: Catalogue,
    held_out: HeldOutEvents,
    params: TransitionParams,
    fusions: list[Fusion],
    cutoff: int = CUTOFF,
) -> np.ndarray:
    """NDCG@cutoff of h for each of a domain's events with each of several fusions, [V, B]."""
    model.eval()
    vectors_ID = model.catalogue_vectors()
    measure = _Measure(model, vectors_ID, catalogue, held_out.domain, held_out, SingleProcess(), cutoff)
    return measure.ndcg(params, fusions, held_out)


def thinned(held_out: HeldOutEvents, items: int, ranks: int) -> HeldOutEvents:
    """Every n-th event, so that all ranks together compute at most ``_MAX_SCORES`` scores of ``items`` items."""
    most = max(1, _MAX_SCORES // items // ranks)
    return held_out.take(np.arange(0, len(held_out.target), max(1, -(-len(held_out.target) // most))))


def _tune(measure: _Measure, start: DomainSettings, fusions: list[Fusion] | None) -> Tuned:
    if not measure.count:
        return Tuned(start.params, start.fusion, ValidationNdcg(), start.repeats, start.unordered)
    params = _climb(start.params, measure.transitions)
    if fusions:
        fusion = fusions[int(measure.ensembles(params, fusions).argmax())]
    else:
        fusion = _fusion(start.fusion, partial(measure.ensembles, params))
    encoder, ensemble = (float(value) for value in measure.ensembles(params, [ENCODER_ALONE, fusion]))
    return Tuned(params, fusion, ValidationNdcg(encoder=encoder, transitions=measure.transitions(params), ensemble=ensemble))


def _climb(best: TransitionParams, measured: Callable[[TransitionParams], float]) -> TransitionParams:
    """Coordinate ascent, two rounds: each parameter moves along its grid as long as that improves the measure."""
    known: dict[TransitionParams, float] = {}

    def value(params: TransitionParams) -> float:
        if params not in known:
            known[params] = measured(params)
        return known[params]

    for _ in range(2):
        before = best
        for name, grid in GRID.items():
            start = int(np.argmin([abs(entry - getattr(best, name)) for entry in grid]))
            for step in (1, -1):
                index = start + step
                while 0 <= index < len(grid) and value(tried := best.model_copy(update={name: grid[index]})) > value(best):
                    best, index = tried, index + step
        if best == before:
            break
    return best


def _fusion(start: Fusion, measured: Callable[[list[Fusion]], np.ndarray]) -> Fusion:
    """The best of ``FUSIONS`` and the start, or a sharper or flatter one near it."""
    tried = FUSIONS if start in FUSIONS else [*FUSIONS, start]
    values = measured(tried)
    best, value = tried[int(values.argmax())], values.max()
    if best.transitions and best.encoder:
        neighbours = [
            best.model_copy(update={"sharpness": sharpness, "transitions": best.transitions * factor})
            for sharpness in _SHARPNESS
            for factor in _FACTORS
        ]
        values = measured(neighbours)
        best = neighbours[int(values.argmax())] if values.max() > value else best
    return best


class _Measure:
    """Mean NDCG@cutoff of settings over a domain's validation events on all ranks."""

    def __init__(
        self,
        model: NextItemModel,
        vectors_ID: Tensor | None,
        catalogue: Catalogue,
        domain: int,
        held_out: HeldOutEvents | None,
        everyone: Ranks,
        cutoff: int,
    ) -> None:
        self.model, self.domain, self.everyone, self.cutoff = model, domain, everyone, cutoff
        self.items = catalogue.of_domain[domain]
        in_history = np.zeros(catalogue.size, bool)
        if held_out:
            in_history[held_out.contexts.item.numpy()] = True
        successors = catalogue.successors.restricted(in_history, catalogue.domain == domain)  # the events use no others
        self.catalogue = replace(catalogue, successors=successors)
        self.held_out, self.sample = held_out, held_out and thinned(held_out, len(self.items), everyone.size)
        counts = [float(len(events.target)) if events else 0.0 for events in (self.held_out, self.sample)]
        self.count, self.sample_count = everyone.sum(counts)
        self.vectors = vectors_ID[torch.from_numpy(self.items)] if vectors_ID is not None and held_out else torch.empty(0)

    def transitions(self, params: TransitionParams) -> float:
        """Of g alone, over all events."""
        total = 0.0
        if self.held_out:
            scores = TransitionModel(self.catalogue, self.domain, params).scores(self.held_out.contexts)
            total = float(ndcg(sparse_ranks(scores, *self.held_out.local(self.items)), self.cutoff).sum())
        return self.everyone.sum([total])[0] / self.count

    def ensembles(self, params: TransitionParams, fusions: list[Fusion]) -> np.ndarray:
        """Of h with each of several fusions, [V]; of a large catalogue, over a sample of the events."""
        total_V = self.ndcg(params, fusions, self.sample).sum(1)
        return np.array(self.everyone.sum(total_V.tolist())) / self.sample_count

    @torch.no_grad()
    def ndcg(self, params: TransitionParams, fusions: list[Fusion], held_out: HeldOutEvents | None) -> np.ndarray:
        """NDCG@cutoff of h for each of some of this rank's events with each of several fusions, [V, B]."""
        if held_out is None:
            return np.zeros((len(fusions), 0))
        transitions = TransitionModel(self.catalogue, self.domain, params)
        return ndcg(rank(held_out, self.items, partial(self._scores, transitions, fusions)), self.cutoff)

    def _scores(
        self, transitions: TransitionModel, fusions: list[Fusion], contexts: PackedSequences, _: Tensor
    ) -> Iterator[Tensor]:
        users_BW = self.model.user_vectors(self.model.encode(contexts), self.domain)
        encoder_BD = self.model.scores(users_BW, self.vectors)
        transitions_BD = torch.from_numpy(transitions.scores(contexts).toarray())
        for fusion in fusions:
            yield fuse(fusion.encoder * encoder_BD, fusion.phi_part(transitions_BD))
