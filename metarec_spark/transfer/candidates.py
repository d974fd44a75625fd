"""Trains, tunes and measures the candidates for a domain. No Spark: their snapshots are written before.

A candidate with an encoder (f) is trained twice at most. Its validation twin, trained without each user's newest event in the
domain, is tuned and measured. If the candidate is to serve, it is trained once more on all events, those held out included,
for as many epochs and with the settings of its twin.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.config.sections import Adapt, Model, Train, Transitions
from metarec_spark.model import artifact
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.model.fixed_shapes import WIDTHS
from metarec_spark.model.manifest import DomainSettings, Manifest
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.launch import launch
from metarec_spark.training.spec import TrainSpec
from metarec_spark.training.tuning import TRANSITIONS_ALONE, Tuned
from metarec_spark.transfer.modes import Mode
from metarec_spark.transfer.task_snapshot import TaskSnapshot
from metarec_spark.transfer.validation import test_ndcg, tuned_and_measured
from metarec_spark.warehouse.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_MAX_EPOCHS = 40
log = logging.getLogger("metarec_spark")


@dataclass(frozen=True)
class Candidate:
    """A mode with a share of the training budget and a seed."""

    mode: Mode
    share: float = 1.0
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of its temporary folders."""
        return f"{self.mode.name}-{self.share}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a candidate measured, and what it takes to train it again."""

    ndcg: np.ndarray
    """[pairs] NDCG@100 of each validation pair."""
    test_ndcg: np.ndarray
    """[pairs] NDCG@10 of each test pair, for the record: nothing is chosen by it. If there is a validation twin, that of it."""
    tuned: Tuned
    pair_ranker: PairRanker | None
    """Scores pairs in place of g; None: g is tuned."""
    seconds: float
    epochs: int = 0
    """Epoch whose parameters the validation twin kept; 0 without an encoder."""
    partner: Candidate | None = None
    """The candidate that an encoder is fused with, whose pair ranker it shares; None without an encoder."""

    @property
    def mean(self) -> float:
        """Mean validation NDCG@100."""
        return float(self.ndcg.mean())


@dataclass
class Candidates:
    """The candidates of one adaptation; each is trained and measured when it is first asked for."""

    run: str
    """Id of the adaptation; the ids of its models follow from it."""
    ds: str
    base: Location
    """Folder of the base model."""
    work: Location
    """Folder of everything that is temporary."""
    snapshots: dict[str, TaskSnapshot]
    """:attr:`metarec_spark.transfer.modes.Mode.events` → the snapshot that candidates of such modes are trained on."""
    transitions: Transitions
    train: Train
    adapt: Adapt
    threads: int
    """Threads of one rank."""
    spark: SparkSession | None = None
    """Only for ranks on Spark's executors."""
    evaluations: dict[Candidate, Evaluation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Train a candidate, tune it and measure its validation pairs, unless that is done."""
        if candidate not in self.evaluations:
            evaluation = self._with_encoder(candidate) if candidate.mode.start else self._without_encoder(candidate)
            self.evaluations[candidate] = evaluation
            name, share, mean = candidate.mode.name, f"{candidate.share:.0%}", evaluation.mean
            log.info("%s, %s of the training budget, seed %d: validation NDCG@100 %.4f", name, share, candidate.seed, mean)
        return self.evaluations[candidate]

    def save(self, candidate: Candidate, location: Location, all_events: TaskSnapshot | None = None) -> Manifest:
        """Write the model of an evaluated candidate that is to serve; its validation twin, which was measured, lies beside it.

        An encoder is trained as its twin was, for as many epochs.

        Parameters
        ----------
        all_events
            The candidate's snapshot with the held-out events among the training events. None: the snapshot of the twin.

        Returns
        -------
        The model's manifest. Its validation figures are those of the validation twin.
        """
        if not artifact.saved(location):
            twin, snapshot = f"{self.work}/measured/{candidate.name}", all_events or self.snapshots[candidate.mode.events]
            learnt = {name: getattr(snapshot.manifest, name) for name in ("sequences", "training_events")}
            manifest = self.save_twin(candidate, twin).model_copy(update={"refitted": True, **learnt})
            if candidate.mode.start:
                self._train(candidate, snapshot, manifest, location, twin=twin)
            else:
                self._save_without_encoder(candidate, snapshot, manifest, location, twin)
        return artifact.read_manifest(location)

    def save_twin(self, candidate: Candidate, location: Location) -> Manifest:
        """Write the model that was measured of an evaluated candidate; it has not learnt the held-out events."""
        if not artifact.saved(location):
            snapshot, evaluation = self.snapshots[candidate.mode.events], self.evaluations[candidate]
            if candidate.mode.start:
                twin = artifact.load(self.twin(candidate))
                manifest = self._tuned(candidate, twin.manifest)
                artifact.save(location, manifest, twin.model, twin.catalogue, snapshot.item_ids, evaluation.pair_ranker)
            else:
                self._save_without_encoder(candidate, snapshot, self._tuned(candidate, self._draft(candidate)), location)
        return artifact.read_manifest(location)

    def test_ndcg(self, candidate: Candidate, location: Location) -> np.ndarray:
        """NDCG@10 of each test pair by the model that :meth:`save` wrote, [pairs]."""
        evaluation, model = self.evaluations[candidate], artifact.load(location)
        return test_ndcg(self.snapshots[candidate.mode.events], model.model, model.pair_ranker, evaluation.tuned)

    def model_id(self, candidate: Candidate) -> str:
        """Id of a candidate's model."""
        return model_id(self.ds, self.run, candidate)

    def _without_encoder(self, candidate: Candidate) -> Evaluation:
        """Evaluate tuned transitions or a pair ranker."""
        start, snapshot = time.monotonic(), self.snapshots[candidate.mode.events]
        pair_ranker = snapshot.trained_ranker(candidate.seed) if candidate.mode.pair_ranker else None
        model, settings = _empty_encoder(snapshot), DomainSettings(params=self._params(candidate), fusion=TRANSITIONS_ALONE)
        tuned, ndcg = tuned_and_measured(snapshot, model, pair_ranker, settings, encoder=False)
        test = test_ndcg(snapshot, model, pair_ranker, tuned)
        return Evaluation(ndcg, test, tuned, pair_ranker, time.monotonic() - start)

    def _with_encoder(self, candidate: Candidate) -> Evaluation:
        """Train the validation twin and evaluate it, fused with the best candidate that has no encoder."""
        start, snapshot, location = time.monotonic(), self.snapshots[candidate.mode.events], self.twin(candidate)
        partner = self._partner(candidate)
        pair_ranker = self.evaluations[partner].pair_ranker
        if not artifact.saved(location):
            self._train(candidate, snapshot, self._draft(candidate), location)
        twin = artifact.load(location)
        settings = DomainSettings(params=self._params(candidate), fusion=Fusion())
        tuned, ndcg = tuned_and_measured(snapshot, twin.model, pair_ranker, settings, encoder=True)
        test, epochs = test_ndcg(snapshot, twin.model, pair_ranker, tuned), twin.manifest.metrics.kept_epoch
        return Evaluation(ndcg, test, tuned, pair_ranker, time.monotonic() - start, epochs, partner)

    def _train(
        self, candidate: Candidate, snapshot: TaskSnapshot, manifest: Manifest, location: Location, twin: str | None = None
    ) -> None:
        """Train an encoder and write its model: the validation twin, or the refit of ``twin``, from the serving base model."""
        mode = candidate.mode
        base = artifact.measured(str(self.base)) if mode.start == "base" and twin is None else str(self.base)
        spec = TrainSpec(
            snapshot=str(snapshot.folder),
            model=str(location),
            manifest=manifest,
            threads=self.threads,
            start=base if mode.start == "base" else None,
            trained=mode.trained,
            targets=None if mode.samples else [snapshot.target],
            without_newest=None if twin else snapshot.target,
            stop_after=self.evaluations[candidate].epochs if twin else None,
            twin=twin,
        )
        file = f"{self.work}/runs/{'all' if twin else 'twin'}-{candidate.name}/spec.json"
        spec.write(file)
        launch(file, self.train.processes, self.train.launcher, self.spark, self.train.timeout_seconds)

    def _save_without_encoder(
        self, candidate: Candidate, snapshot: TaskSnapshot, manifest: Manifest, location: Location, twin: str | None = None
    ) -> None:
        """Write tuned transitions or a pair ranker as a model whose encoder is empty and has no weight."""
        ranker = self.evaluations[candidate].pair_ranker
        artifact.save(location, manifest, _empty_encoder(snapshot), snapshot.catalogue, snapshot.item_ids, ranker, twin=twin)

    def _draft(self, candidate: Candidate) -> Manifest:
        """The manifest of a candidate's model before training."""
        manifest, mode = self.snapshots[candidate.mode.events].manifest, candidate.mode
        epochs = int(np.clip(self.adapt.training_events * candidate.share / manifest.training_events, 1, _MAX_EPOCHS))
        train = {"epochs": "auto", "max_epochs": epochs, "seed": candidate.seed, "method": "joint", "stacking_pairs": 0}
        changed: dict[str, object] = {"model_id": self.model_id(candidate), "mode": mode.name}
        changed["transitions"] = manifest.transitions.model_copy(update=self._params(candidate).model_dump())
        if mode.start is None:
            changed["model"] = _empty(manifest)
        else:
            changed["train"] = self.train.model_copy(update=train | {"tune": False})
            changed["model"] = self._base.model if mode.start == "base" else manifest.model
        return manifest.model_copy(update=changed)

    def _tuned(self, candidate: Candidate, manifest: Manifest) -> Manifest:
        """A manifest with the settings and the validation figures of a candidate's evaluation."""
        tuned, name = self.evaluations[candidate].tuned, self.snapshots[candidate.mode.events].domain
        settings = dict.fromkeys(manifest.domains, DomainSettings(params=tuned.params, fusion=tuned.fusion))
        metrics = manifest.metrics.model_copy(update={"validation": {name: tuned.ndcg}})
        return manifest.model_copy(update={"tuned": settings, "metrics": metrics})

    def _partner(self, candidate: Candidate) -> Candidate:
        """The evaluated candidate without an encoder that measured best; for a baseline, among baselines."""
        without = [known for known in self.evaluations if not known.mode.start and known.seed == 0]
        allowed = [known for known in without if known.mode.baseline or not candidate.mode.baseline]
        return max(allowed, key=lambda known: self.evaluations[known].mean)

    def _params(self, candidate: Candidate) -> TransitionParams:
        """Start of the search: as configured for a baseline, as the base model's domains have it for a transfer."""
        return TransitionParams.from_settings(self.transitions) if candidate.mode.baseline else self.base_params

    @cached_property
    def base_params(self) -> TransitionParams:
        """Median of the transition parameters over the base model's domains."""
        tuned = [settings.params for settings in self._base.tuned.values()]
        medians = {name: median(getattr(params, name) for params in tuned) for name in TransitionParams.model_fields}
        return TransitionParams(**{name: type(getattr(tuned[0], name))(value) for name, value in medians.items()})

    @cached_property
    def _base(self) -> Manifest:
        return artifact.read_manifest(self.base)

    def twin(self, candidate: Candidate) -> str:
        """Folder of a candidate's validation twin."""
        return f"{self.work}/twins/{candidate.name}"


def model_id(ds: str, run: str, candidate: Candidate) -> str:
    """Id of a candidate's model; the same for the same adaptation."""
    return f"{ds}-{fingerprint(run, candidate.mode.name, candidate.share, candidate.seed)}"


def _empty(manifest: Manifest) -> Model:
    """The smallest shape of an encoder with which scores are batch-invariant; see :mod:`metarec_spark.model.fixed_shapes`."""
    return manifest.model.model_copy(update={"dim": WIDTHS, "heads": 1, "adapter": 0})


def _empty_encoder(snapshot: TaskSnapshot) -> NextItemModel:
    """An encoder of the smallest shape, whose scores have no weight."""
    torch.manual_seed(0)
    return NextItemModel(_empty(snapshot.manifest), snapshot.manifest.shape, snapshot.catalogue)
