"""One candidate of an adaptation: how it is made, and how its validation pairs are ranked. No Spark."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import torch

from metarec_spark import columns as c
from metarec_spark.model import artifact
from metarec_spark.model.artifact import ModelArtifact
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion, fuse
from metarec_spark.model.ensemble.pair_ranker import ContentSimilarity, PairRanker, PairSignals, alike
from metarec_spark.model.fixed_shapes import WIDTHS
from metarec_spark.model.manifest import DomainSettings, Manifest, TrainingMetrics, ValidationNdcg
from metarec_spark.model.ranking import hide, places, ranks
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.loader import HeldOutEvents, Shard, held_out
from metarec_spark.training.snapshot import SEQUENCES
from metarec_spark.training.tuning import (
    ENCODER_ALONE,
    FUSIONS,
    TRANSITIONS_ALONE,
    Tuned,
    by_halves,
    cross_fitted,
    gains_of,
    thinned,
    tune,
)
from metarec_spark.training.validation import CUTOFF, blocks, gain, placed
from metarec_spark.training.worker import read_catalogue
from metarec_spark.transfer.meta_train import AN_HOUR, meta_trained_ranker
from metarec_spark.transfer.validation_twin import rehearsed
from metarec_spark.warehouse.storage import Location, local_copy

WEIGHED = [*(Fusion(transitions=weight) for weight in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)), TRANSITIONS_ALONE]
"""Fusions of f and a weigher. Both are log-odds, so they are of one size."""
CUTOFFS = {c.VALIDATION: 100, c.TEST: CUTOFF}
"""Of the NDCG by which a split's pairs are measured. Settings and candidates are chosen by that of a list, which has less noise
than one of 10, at which a thin domain's few pairs are seldom hit."""


class Snapshot:
    """What candidates of one kind learn, and the target's pairs; what is made of it is made once, and stays in memory."""

    def __init__(
        self,
        folder: Location,
        manifest: Manifest,
        domain: str,
        alike: dict[str, ContentSimilarity] | None = None,
        mixed: Snapshot | None = None,
    ) -> None:
        """``alike`` is what other snapshots of the same items found, by domain; it is added to. ``mixed`` has the same pairs with
        the people's events of all domains, by which transitions were counted; None: this one has them."""
        self.folder, self.manifest = folder, manifest
        self.target = manifest.domains.index(domain)
        """Position of the target among the domains."""
        self._alike = {} if alike is None else alike
        self._mixed = mixed
        self._held: dict[str, HeldOutEvents] = {}
        self._signals: dict[str, PairSignals] = {}

    @cached_property
    def items(self) -> tuple[Catalogue, pa.ChunkedArray]:
        """The catalogue, and the items' external ids."""
        return read_catalogue(self.folder, self.manifest)

    @property
    def catalogue(self) -> Catalogue:
        """What is known of the items."""
        return self.items[0]

    def alike(self, domain: int) -> ContentSimilarity:
        """Which items are alike; see :func:`metarec_spark.model.ensemble.pair_ranker.alike`."""
        name = self.manifest.domains[domain]
        if name not in self._alike:
            self._alike[name] = alike(self.catalogue, domain)
        return self._alike[name]

    @cached_property
    def rehearsal(self) -> Catalogue:
        """What validation pairs are ranked by; see :mod:`metarec_spark.transfer.validation_twin`."""
        mixed = self._mixed or self
        known = with_context(mixed.held(c.VALIDATION)).contexts
        return rehearsed(self.catalogue, known, mixed.target, self.manifest.transitions)

    def signals(self, split: str) -> PairSignals:
        """What a weigher weighs in the target to rank the pairs of a split; made once."""
        if split not in self._signals:
            by = self.rehearsal if split == c.VALIDATION else self.catalogue
            rows = np.unique(self.held(split).contexts.item.numpy())
            self._signals[split] = PairSignals.of_catalogue(by, self.target, self.alike(self.target), rows)
        return self._signals[split]

    def held(self, split: str) -> HeldOutEvents:
        """The target's pairs of a split, those without context among them."""
        if split not in self._held:
            parts = held_out(Shard(local_copy(f"{self.folder}/{split}"), 0, 1, "dummy"), empty=True)
            (self._held[split],) = [part for part in parts if part.domain == self.target]
        return self._held[split]


def without_base(of: Snapshot, folder: Location, manifest: Manifest, params: TransitionParams) -> None:
    """Save a model that has no f: transitions and content serve alone, weighed as validation found best.

    Parameters
    ----------
    lending
        Start of the search.
    """
    manifest = _without_base(manifest)
    catalogue, item_ids = of.items
    model = _nothing(manifest, catalogue)
    start = [DomainSettings(params=params, fusion=TRANSITIONS_ALONE)] * len(manifest.domains)
    by_domain = dict(zip(manifest.domains, _tuned(of, model, start, [TRANSITIONS_ALONE]), strict=True))
    settings = {name: DomainSettings(params=t.params, fusion=TRANSITIONS_ALONE) for name, t in by_domain.items()}
    ndcg = {name: ValidationNdcg(transitions=t.ndcg.transitions) for name, t in by_domain.items()}
    found = {"tuned": settings, "metrics": TrainingMetrics(validation=ndcg)}
    artifact.save(folder, manifest.model_copy(update=found), model, catalogue, item_ids)


def settled(of: Snapshot, trained: Location, folder: Location, pair_ranker: PairRanker | None) -> None:
    """Save a trained model with the settings of g and of the fusion that rank the validation pairs best.

    Parameters
    ----------
    weigher
        What weighs g's signals; None: g is tuned.
    """
    found, (catalogue, item_ids) = artifact.load(trained), of.items
    manifest, name, start = found.manifest, found.domains[of.target], found.manifest.initial_settings
    if pair_ranker:
        tuned = _fusion_of_weigher(of, found.model, pair_ranker, start[of.target])
    else:
        tuned = _tuned(of, found.model, start, None)[of.target]
    settings = manifest.tuned | {name: DomainSettings(params=tuned.params, fusion=tuned.fusion)}
    metrics = manifest.metrics.model_copy(update={"validation": manifest.metrics.validation | {name: tuned.ndcg}})
    manifest = manifest.model_copy(update={"tuned": settings, "metrics": metrics})
    artifact.save(folder, manifest, found.model, catalogue, item_ids, pair_ranker)


def performed(of: Snapshot, trained: Location, folder: Location, rehearsed: Location) -> None:
    """Save a trained model with the settings that were found for its rehearsal."""
    found, before, (catalogue, item_ids) = artifact.load(trained), artifact.load(rehearsed), of.items
    metrics = found.manifest.metrics.model_copy(update={"validation": before.manifest.metrics.validation})
    manifest = found.manifest.model_copy(update={"tuned": before.manifest.tuned, "metrics": metrics})
    artifact.save(folder, manifest, found.model, catalogue, item_ids, before.pair_ranker)


def _tuned(of: Snapshot, model: NextItemModel, start: list[DomainSettings], fusions: list[Fusion] | None) -> list[Tuned]:
    """What ranks the validation pairs best, by domain; other domains than the target keep their start."""
    return tune(
        model, of.rehearsal, [with_context(of.held(c.VALIDATION))], start, SingleProcess(), fusions, CUTOFFS[c.VALIDATION]
    )


def _fusion_of_weigher(of: Snapshot, model: NextItemModel, pair_ranker: PairRanker, start: DomainSettings) -> Tuned:
    """The fusion of a model and a weigher that ranks the validation pairs best."""
    ndcg = _ndcg_of_weigher(of, model, pair_ranker, WEIGHED, with_context(of.held(c.VALIDATION)))
    best = max(ndcg, key=ndcg.__getitem__)
    measured = ValidationNdcg(encoder=ndcg[ENCODER_ALONE], transitions=ndcg[TRANSITIONS_ALONE], ensemble=ndcg[best])
    return Tuned(start.params, best, measured)


def with_context(held: HeldOutEvents) -> HeldOutEvents:
    """The pairs that follow from something; the others are ranked by popularity."""
    return held.take(np.flatnonzero(held.contexts.length.numpy()))


def weighed(of: Snapshot, folder: Location, manifest: Manifest, params: TransitionParams, seed: int) -> None:
    """Save a model that has no f and whose g is weighed by a network, which all other domains of the snapshot taught and then
    its own events; where days are held out, by what people do after a pause. No validation pair is looked at."""
    manifest = _without_base(manifest)
    catalogue, item_ids = of.items
    settings = manifest.transitions
    pause = AN_HOUR if manifest.split.protocol == "temporal" else 0
    pair_ranker = meta_trained_ranker(
        local_copy(f"{of.folder}/{SEQUENCES}"), catalogue, of.target, settings, seed, of.alike, pause
    )
    tuned = dict.fromkeys(manifest.domains, DomainSettings(params=params, fusion=TRANSITIONS_ALONE))
    manifest = manifest.model_copy(update={"tuned": tuned, "metrics": TrainingMetrics()})
    artifact.save(folder, manifest, _nothing(manifest, catalogue), catalogue, item_ids, pair_ranker)


def _without_base(manifest: Manifest) -> Manifest:
    """f's parameters are of the smallest shape that :mod:`metarec_spark.model.fixed_shapes` is sure of: none is used."""
    smallest = manifest.model.model_copy(update={"dim": WIDTHS, "heads": 1, "adapter": 0})
    return manifest.model_copy(update={"model": smallest})


def _nothing(manifest: Manifest, catalogue: Catalogue) -> NextItemModel:
    torch.manual_seed(0)
    return NextItemModel(manifest.model, manifest.shape, catalogue)


def gains(of: Snapshot, made: ModelArtifact, params: TransitionParams, base: bool) -> np.ndarray:
    """NDCG@100 of each of the target's validation pairs, [pairs] in the order of their numbers; settings are found on the other
    half of the pairs. Those without context are ranked by popularity, as they are served.

    Parameters
    ----------
    of
        The snapshot that the model was trained on.
    lending
        Start of the search.
    base
        Whether there is an f.
    """
    if made.pair_ranker:
        fusions = WEIGHED if base else [TRANSITIONS_ALONE]
        return _gains(of, c.VALIDATION, partial(_cross_fitted, of, made.model, made.pair_ranker, fusions))
    fusions = FUSIONS if base else [TRANSITIONS_ALONE]
    tuned = partial(cross_fitted, made.model, of.rehearsal, start=params, fusions=fusions, cutoff=CUTOFFS[c.VALIDATION])
    return _gains(of, c.VALIDATION, tuned)


def test_gains(of: Snapshot, made: ModelArtifact) -> np.ndarray:
    """NDCG@10 of its test pairs, with the settings that the model holds."""
    params, fusion = made.params[of.target], made.fusion[of.target]
    if made.pair_ranker:
        return _gains(of, c.TEST, lambda held: _gains_of_weigher(of, made.model, made.pair_ranker, c.TEST, held, [fusion])[0])
    return _gains(of, c.TEST, lambda held: gains_of(made.model, of.catalogue, held, params, [fusion])[0])


def _gains(of: Snapshot, split: str, ranked: Callable[[HeldOutEvents], np.ndarray]) -> np.ndarray:
    held = of.held(split)
    found, known = np.empty(len(held.target)), held.contexts.length.numpy() > 0
    found[known] = ranked(with_context(held))
    items, target = of.catalogue.of_domain[of.target], held.target[~known]
    popularity = torch.from_numpy(of.catalogue.events[items]).expand(len(target), -1)
    found[~known] = gain(ranks(popularity, places(items, target)), CUTOFFS[split])
    return found[np.argsort(held.pair)]


def _cross_fitted(
    of: Snapshot, model: NextItemModel, pair_ranker: PairRanker, fusions: list[Fusion], held: HeldOutEvents
) -> np.ndarray:
    """Of each validation pair, [B], with the fusion that ranks the other half of them best."""

    def best(others: HeldOutEvents) -> Fusion:
        ndcg = _ndcg_of_weigher(of, model, pair_ranker, fusions, others)
        return max(ndcg, key=ndcg.__getitem__)

    return by_halves(held, best, lambda mine, fusion: _gains_of_weigher(of, model, pair_ranker, c.VALIDATION, mine, [fusion])[0])


def _ndcg_of_weigher(
    of: Snapshot, model: NextItemModel, pair_ranker: PairRanker, fusions: list[Fusion], held: HeldOutEvents
) -> dict[Fusion, float]:
    """What each of several fusions gains on validation pairs, in the mean; of a large catalogue, over fewer pairs."""
    few = thinned(held, len(of.catalogue.of_domain[of.target]), 1)
    gains = _gains_of_weigher(of, model, pair_ranker, c.VALIDATION, few, fusions)
    return dict(zip(fusions, gains.sum(1) / max(1, len(few.target)), strict=True))


@torch.no_grad()
def _gains_of_weigher(
    of: Snapshot, model: NextItemModel, pair_ranker: PairRanker, split: str, held: HeldOutEvents, fusions: list[Fusion]
) -> np.ndarray:
    """Of each pair of a split with each of several fusions of f and the weigher, [fusions, B]."""
    items, found = of.catalogue.of_domain[of.target], [np.zeros((len(fusions), 0))]
    vectors = model.eval().catalogue_vectors()[torch.from_numpy(items)]
    for contexts, target, user_BD in blocks(model, held, len(items)):
        place, seen = placed(contexts, target, items)
        theta, phi = model.scores(user_BD, vectors), pair_ranker.scores(of.signals(split), contexts, of.target)
        of_fusions = (fuse(fusion.encoder * theta, fusion.transitions * phi) for fusion in fusions)
        found.append(gain(np.array([ranks(hide(scores, seen), place) for scores in of_fusions]), CUTOFFS[split]))
    return np.concatenate(found, 1)
