"""One candidate of an adaptation: how it is made, and how its validation pairs are ranked. No Spark."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from metarec_spark import columns as c
from metarec_spark.model import bundle
from metarec_spark.model.blocks import WIDTHS
from metarec_spark.model.bundle import Bundle
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.fusion import Fusion, fuse
from metarec_spark.model.transfer import Lending
from metarec_spark.model.transformer import NextItemModel
from metarec_spark.model.weigher import Likeness, Signals, Weigher, alike
from metarec_spark.scoring.ranking import hide, places, ranks
from metarec_spark.sections import Model, Transitions
from metarec_spark.storage import Place, here
from metarec_spark.training.distributed import Alone
from metarec_spark.training.loader import Held, Shard, held_out
from metarec_spark.training.snapshot import SEQUENCES
from metarec_spark.training.tuning import ALONE, FUSIONS, Tuned, by_halves, cross_fitted, gains_of, starts, thinned, tune
from metarec_spark.training.validation import CUTOFF, blocks, gain, placed
from metarec_spark.training.worker import read_catalogue
from metarec_spark.transfer.rehearsal import rehearsed
from metarec_spark.transfer.teaching import AN_HOUR, taught

WITHOUT_BASE = Fusion(base=0.0, transfer=1.0)
WEIGHED = [*(Fusion(transfer=weight) for weight in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)), WITHOUT_BASE]
"""Fusions of f and a weigher. Both are log-odds, so they are of one size."""
CUTOFFS = {c.VALIDATION: 100, c.TEST: CUTOFF}
"""Of the NDCG by which a split's pairs are measured. Settings and candidates are chosen by that of a list, which has less noise
than one of 10, at which a thin domain's few pairs are seldom hit."""


class Snapshot:
    """What candidates of one kind learn, and the target's pairs; what is made of it is made once, and stays in memory."""

    def __init__(
        self,
        folder: Place,
        manifest: dict[str, Any],
        domain: str,
        alike: dict[str, Likeness] | None = None,
        mixed: Snapshot | None = None,
    ) -> None:
        """``alike`` is what other snapshots of the same items found, by domain; it is added to. ``mixed`` has the same pairs with
        the people's events of all domains, by which transitions were counted; None: this one has them."""
        self.folder, self.manifest = folder, manifest
        self.target = manifest["domains"].index(domain)
        """Position of the target among the domains."""
        self._alike = {} if alike is None else alike
        self._mixed = mixed
        self._held: dict[str, Held] = {}
        self._signals: dict[str, Signals] = {}

    @cached_property
    def items(self) -> tuple[Catalogue, Any]:
        """The catalogue, and the items' external ids."""
        return read_catalogue(self.folder, self.manifest)

    @property
    def catalogue(self) -> Catalogue:
        """What is known of the items."""
        return self.items[0]

    def alike(self, domain: int) -> Likeness:
        """Which items are alike; see :func:`metarec_spark.model.weigher.alike`."""
        name = self.manifest["domains"][domain]
        if name not in self._alike:
            self._alike[name] = alike(self.catalogue, domain)
        return self._alike[name]

    @cached_property
    def rehearsal(self) -> Catalogue:
        """What validation pairs are ranked by; see :mod:`metarec_spark.transfer.rehearsal`."""
        mixed = self._mixed or self
        known = with_context(mixed.held(c.VALIDATION)).contexts
        return rehearsed(self.catalogue, known, mixed.target, Transitions.model_validate(self.manifest["transitions"]))

    def signals(self, split: str) -> Signals:
        """What a weigher weighs in the target to rank the pairs of a split; made once."""
        if split not in self._signals:
            by = self.rehearsal if split == c.VALIDATION else self.catalogue
            rows = np.unique(self.held(split).contexts.item.numpy())
            self._signals[split] = Signals.of_catalogue(by, self.target, self.alike(self.target), rows)
        return self._signals[split]

    def held(self, split: str) -> Held:
        """The target's pairs of a split, those without context among them."""
        if split not in self._held:
            parts = held_out(Shard(here(f"{self.folder}/{split}"), 0, 1, "dummy"), empty=True)
            (self._held[split],) = [part for part in parts if part.domain == self.target]
        return self._held[split]


def without_base(of: Snapshot, folder: Place, manifest: dict[str, Any], lending: Lending) -> None:
    """Save a model that has no f: transitions and content serve alone, weighed as validation found best.

    Parameters
    ----------
    lending
        Start of the search.
    """
    manifest = _without_base(manifest)
    catalogue, item_ids = of.items
    model = _nothing(manifest, catalogue)
    start = [Tuned(lending, WITHOUT_BASE)] * len(manifest["domains"])
    of_domain = dict(zip(manifest["domains"], _tuned(of, model, start, [WITHOUT_BASE]), strict=True))
    said = {name: {"lending": t.lending.model_dump(), "fusion": WITHOUT_BASE.model_dump()} for name, t in of_domain.items()}
    metrics = {"epochs": 0, "history": [], "validation": {name: {"transfer": t.transfer} for name, t in of_domain.items()}}
    bundle.save(folder, {**manifest, "tuned": said, "metrics": metrics}, model, catalogue, item_ids)


def settled(of: Snapshot, trained: Place, folder: Place, weigher: Weigher | None) -> None:
    """Save a trained model with the settings of g and of the fusion that rank the validation pairs best.

    Parameters
    ----------
    weigher
        What weighs g's signals; None: g is tuned.
    """
    found, (catalogue, item_ids) = bundle.load(trained), of.items
    manifest, name, start = found.manifest, found.domains[of.target], starts(found.manifest)
    if weigher:
        tuned = _fusion_of_weigher(of, found.model, weigher, start[of.target])
    else:
        tuned = _tuned(of, found.model, start, None)[of.target]
    settings = {"lending": tuned.lending.model_dump(), "fusion": tuned.fusion.model_dump(), "stacked": False}
    measured = {part: getattr(tuned, part) for part in ("base", "transfer", "fused")}
    metrics = {**manifest["metrics"], "validation": {**manifest["metrics"]["validation"], name: measured}}
    manifest = {**manifest, "tuned": {**manifest["tuned"], name: settings}, "metrics": metrics}
    bundle.save(folder, manifest, found.model, catalogue, item_ids, weigher)


def performed(of: Snapshot, trained: Place, folder: Place, rehearsed: Place) -> None:
    """Save a trained model with the settings that were found for its rehearsal."""
    found, before, (catalogue, item_ids) = bundle.load(trained), bundle.load(rehearsed), of.items
    metrics = {**found.manifest["metrics"], "validation": before.manifest["metrics"]["validation"]}
    manifest = {**found.manifest, "tuned": before.manifest["tuned"], "metrics": metrics}
    bundle.save(folder, manifest, found.model, catalogue, item_ids, before.weigher)


def _tuned(of: Snapshot, model: NextItemModel, start: list[Tuned], fusions: list[Fusion] | None) -> list[Tuned]:
    """What ranks the validation pairs best, by domain; other domains than the target keep their start."""
    return tune(model, of.rehearsal, [with_context(of.held(c.VALIDATION))], start, Alone(), fusions, CUTOFFS[c.VALIDATION])


def _fusion_of_weigher(of: Snapshot, model: NextItemModel, weigher: Weigher, start: Tuned) -> Tuned:
    """The fusion of a model and a weigher that ranks the validation pairs best."""
    ndcg = _ndcg_of_weigher(of, model, weigher, WEIGHED, with_context(of.held(c.VALIDATION)))
    best = max(ndcg, key=ndcg.__getitem__)
    return Tuned(start.lending, best, *(ndcg[fusion] for fusion in (ALONE, WITHOUT_BASE, best)))


def with_context(held: Held) -> Held:
    """The pairs that follow from something; the others are ranked by popularity."""
    return held.take(np.flatnonzero(held.contexts.length.numpy()))


def weighed(of: Snapshot, folder: Place, manifest: dict[str, Any], lending: Lending, seed: int) -> None:
    """Save a model that has no f and whose g is weighed by a network, which all other domains of the snapshot taught and then
    its own events; where days are held out, by what people do after a pause. No validation pair is looked at."""
    manifest = _without_base(manifest)
    catalogue, item_ids = of.items
    settings = Transitions.model_validate(manifest["transitions"])
    pause = AN_HOUR if manifest["split"]["protocol"] == "temporal" else 0
    weigher = taught(here(f"{of.folder}/{SEQUENCES}"), catalogue, of.target, settings, seed, of.alike, pause)
    said = {"lending": lending.model_dump(), "fusion": WITHOUT_BASE.model_dump()}
    metrics = {"epochs": 0, "history": [], "validation": {}}
    manifest |= {"tuned": dict.fromkeys(manifest["domains"], said), "metrics": metrics}
    bundle.save(folder, manifest, _nothing(manifest, catalogue), catalogue, item_ids, weigher)


def _without_base(manifest: dict[str, Any]) -> dict[str, Any]:
    """f's parameters are of the smallest shape that :mod:`metarec_spark.model.blocks` is sure of: none is used."""
    return {**manifest, "model": {**manifest["model"], "dim": WIDTHS, "heads": 1, "adapter": 0}}


def _nothing(manifest: dict[str, Any], catalogue: Catalogue) -> NextItemModel:
    torch.manual_seed(0)
    return NextItemModel(Model.model_validate(manifest["model"]), bundle.shape(manifest), catalogue)


def gains(of: Snapshot, made: Bundle, lending: Lending, base: bool) -> np.ndarray:
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
    if made.weigher:
        fusions = WEIGHED if base else [WITHOUT_BASE]
        return _gains(of, c.VALIDATION, partial(_cross_fitted, of, made.model, made.weigher, fusions))
    fusions = FUSIONS if base else [WITHOUT_BASE]
    tuned = partial(cross_fitted, made.model, of.rehearsal, start=lending, fusions=fusions, cutoff=CUTOFFS[c.VALIDATION])
    return _gains(of, c.VALIDATION, tuned)


def test_gains(of: Snapshot, made: Bundle) -> np.ndarray:
    """NDCG@10 of its test pairs, with the settings that the model holds."""
    lending, fusion = made.lending[of.target], made.fusion[of.target]
    if made.weigher:
        return _gains(of, c.TEST, lambda held: _gains_of_weigher(of, made.model, made.weigher, c.TEST, held, [fusion])[0])
    return _gains(of, c.TEST, lambda held: gains_of(made.model, of.catalogue, held, lending, [fusion])[0])


def _gains(of: Snapshot, split: str, ranked: Callable[[Held], np.ndarray]) -> np.ndarray:
    held = of.held(split)
    found, known = np.empty(len(held.target)), held.contexts.length.numpy() > 0
    found[known] = ranked(with_context(held))
    items, target = of.catalogue.of_domain[of.target], held.target[~known]
    popularity = torch.from_numpy(of.catalogue.events[items]).expand(len(target), -1)
    found[~known] = gain(ranks(popularity, places(items, target)), CUTOFFS[split])
    return found[np.argsort(held.pair)]


def _cross_fitted(of: Snapshot, model: NextItemModel, weigher: Weigher, fusions: list[Fusion], held: Held) -> np.ndarray:
    """Of each validation pair, [B], with the fusion that ranks the other half of them best."""

    def best(others: Held) -> Fusion:
        ndcg = _ndcg_of_weigher(of, model, weigher, fusions, others)
        return max(ndcg, key=ndcg.__getitem__)

    return by_halves(held, best, lambda mine, fusion: _gains_of_weigher(of, model, weigher, c.VALIDATION, mine, [fusion])[0])


def _ndcg_of_weigher(
    of: Snapshot, model: NextItemModel, weigher: Weigher, fusions: list[Fusion], held: Held
) -> dict[Fusion, float]:
    """What each of several fusions gains on validation pairs, in the mean; of a large catalogue, over fewer pairs."""
    few = thinned(held, len(of.catalogue.of_domain[of.target]), 1)
    gains = _gains_of_weigher(of, model, weigher, c.VALIDATION, few, fusions)
    return dict(zip(fusions, gains.sum(1) / max(1, len(few.target)), strict=True))


@torch.no_grad()
def _gains_of_weigher(
    of: Snapshot, model: NextItemModel, weigher: Weigher, split: str, held: Held, fusions: list[Fusion]
) -> np.ndarray:
    """Of each pair of a split with each of several fusions of f and the weigher, [fusions, B]."""
    items, found = of.catalogue.of_domain[of.target], [np.zeros((len(fusions), 0))]
    vectors = model.eval().catalogue_vectors()[torch.from_numpy(items)]
    for contexts, target, user_BD in blocks(model, held, len(items)):
        place, seen = placed(contexts, target, items)
        theta, phi = model.scores(user_BD, vectors), weigher.scores(of.signals(split), contexts, of.target)
        of_fusions = (fuse(fusion.base * theta, fusion.transfer * phi) for fusion in fusions)
        found.append(gain(np.array([ranks(hide(scores, seen), place) for scores in of_fusions]), CUTOFFS[split]))
    return np.concatenate(found, 1)
