"""One candidate of an adaptation: how it is made, and how its validation pairs are ranked. No Spark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarec_spark import columns as c
from metarec_spark.model import bundle
from metarec_spark.model.bundle import Bundle
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.fusion import Fusion
from metarec_spark.model.transfer import Lending
from metarec_spark.model.transformer import NextItemModel
from metarec_spark.model.weigher import Signals, blocks
from metarec_spark.scoring.ranking import hide, places, ranks
from metarec_spark.sections import Model, Transitions
from metarec_spark.training.distributed import Alone
from metarec_spark.training.loader import Held, Shard, held_out
from metarec_spark.training.snapshot import SEQUENCES
from metarec_spark.training.tuning import FUSIONS, Tuned, cross_fitted, gains_of, tune
from metarec_spark.training.validation import gain, placed
from metarec_spark.training.worker import read_catalogue
from metarec_spark.transfer.teaching import taught

WITHOUT_BASE = Fusion(base=0.0, transfer=1.0)


def without_base(folder: Path, model_folder: Path, manifest: dict[str, Any], lending: Lending) -> None:
    """Save a model that has no f: transitions and content serve alone, weighed as validation found best.

    Parameters
    ----------
    folder
        Snapshot.
    lending
        Start of the search.
    """
    manifest = _without_base(manifest)
    model, catalogue, item_ids = _nothing(folder, manifest)
    start = [Tuned(lending, WITHOUT_BASE)] * len(manifest["domains"])
    tuned = tune(model, catalogue, held_pairs(folder), start, Alone(), fusions=[WITHOUT_BASE])
    of_domain = dict(zip(manifest["domains"], tuned, strict=True))
    said = {name: {"lending": t.lending.model_dump(), "fusion": WITHOUT_BASE.model_dump()} for name, t in of_domain.items()}
    metrics = {"epochs": 0, "history": [], "validation": {name: {"transfer": t.transfer} for name, t in of_domain.items()}}
    bundle.save(model_folder, {**manifest, "tuned": said, "metrics": metrics}, model, catalogue, item_ids)


def weighed(folder: Path, model_folder: Path, manifest: dict[str, Any], domain: str, lending: Lending, seed: int) -> None:
    """Save a model that has no f and whose g is weighed by a network, which all other domains of the snapshot taught and then
    its own events. No validation pair is looked at."""
    manifest = _without_base(manifest)
    model, catalogue, item_ids = _nothing(folder, manifest)
    target, settings = manifest["domains"].index(domain), Transitions.model_validate(manifest["transitions"])
    weigher = taught(folder / SEQUENCES, catalogue, target, settings, seed)
    said = {"lending": lending.model_dump(), "fusion": WITHOUT_BASE.model_dump()}
    metrics = {"epochs": 0, "history": [], "validation": {}}
    manifest |= {"tuned": dict.fromkeys(manifest["domains"], said), "metrics": metrics}
    bundle.save(model_folder, manifest, model, catalogue, item_ids, weigher)


def _without_base(manifest: dict[str, Any]) -> dict[str, Any]:
    """f's parameters are of the smallest shape: none is used."""
    return {**manifest, "model": {**manifest["model"], "dim": 2, "heads": 1, "adapter": 0}}


def _nothing(folder: Path, manifest: dict[str, Any]) -> tuple[NextItemModel, Catalogue, Any]:
    catalogue, item_ids = read_catalogue(folder, manifest)
    torch.manual_seed(0)
    return NextItemModel(Model.model_validate(manifest["model"]), bundle.shape(manifest), catalogue), catalogue, item_ids


def held_pairs(folder: Path, split: str = c.VALIDATION, *, empty: bool = False) -> list[Held]:
    """All pairs of a snapshot's split."""
    return held_out(Shard(folder / split, 0, 1, "dummy"), empty=empty)


def gains(folder: Path, model_folder: Path, domain: str, lending: Lending, base: bool) -> np.ndarray:
    """NDCG@10 of each of a domain's validation pairs, [pairs] in the order of their numbers; settings are found on the other half
    of the pairs. Those without context are ranked by popularity, as they are served.

    Parameters
    ----------
    folder
        The snapshot that the model was trained on.
    lending
        Start of the search.
    base
        Whether there is an f.
    """
    fusions = FUSIONS if base else [WITHOUT_BASE]

    def ranked(made: Bundle, held: Held) -> np.ndarray:
        if made.weigher:
            return _gains_of_weigher(made, held)
        return cross_fitted(made.model, made.catalogue, held, lending, fusions)

    return _gains(folder, model_folder, domain, c.VALIDATION, ranked)


def test_gains(folder: Path, model_folder: Path, domain: str) -> np.ndarray:
    """The same of its test pairs, with the settings that the model holds."""

    def ranked(made: Bundle, held: Held) -> np.ndarray:
        if made.weigher:
            return _gains_of_weigher(made, held)
        place = made.domains.index(domain)
        return gains_of(made.model, made.catalogue, held, made.lending[place], made.fusion[place])

    return _gains(folder, model_folder, domain, c.TEST, ranked)


@torch.inference_mode()
def _gains_of_weigher(made: Bundle, held: Held) -> np.ndarray:
    signals, items = Signals.of_catalogue(made.catalogue, held.domain), made.catalogue.of_domain[held.domain]
    found = []
    for rows, contexts in blocks(held.contexts, signals):
        place, seen = placed(contexts, held.target[rows.numpy()], items)
        found.append(gain(ranks(hide(made.weigher.scores(signals, contexts, held.domain), seen), place)))
    return np.concatenate(found)


def _gains(folder: Path, model_folder: Path, domain: str, split: str, ranked: Callable[[Bundle, Held], np.ndarray]) -> np.ndarray:
    made = bundle.load(model_folder)
    (held,) = [part for part in held_pairs(folder, split, empty=True) if part.domain == made.domains.index(domain)]
    found, known = np.empty(len(held.target)), held.contexts.length.numpy() > 0
    found[known] = ranked(made, held.take(np.flatnonzero(known)))
    items, target = made.catalogue.of_domain[held.domain], held.target[~known]
    popularity = torch.from_numpy(made.catalogue.events[items]).expand(len(target), -1)
    found[~known] = gain(ranks(popularity, places(items, target)))
    return found[np.argsort(held.pair)]
