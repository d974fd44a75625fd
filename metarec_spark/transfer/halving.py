"""A contest: candidates for a domain are made by growing shares of one budget, ranked on its validation pairs, and judged.

No Spark: what is learnt lies in snapshots; where ranks train on executors, the session is only passed on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.config.sections import Adapt, Train, Transitions
from metarec_spark.model import artifact
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.model.manifest import Manifest
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.launch import launch
from metarec_spark.training.spec import TrainSpec
from metarec_spark.transfer import candidates, negative_transfer
from metarec_spark.transfer.candidates import Snapshot
from metarec_spark.transfer.modes import MODES, Mode
from metarec_spark.warehouse.storage import Location, remove

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROUNDS = (0.25, 0.5, 1.0)
_MOST_EPOCHS = 40
log = logging.getLogger("metarec_spark")


@dataclass
class SuccessiveHalving:
    """Candidates for one domain, made so far, and how they rank its pairs."""

    run: str
    """Id of the adaptation, and the day before it; models are called after both."""
    ds: str
    base: Location
    """Folder of the base model."""
    work: Location
    """Folder of everything that is made on the way."""
    snapshot: Callable[[str], Snapshot]
    """What a kind of candidate learns; see :attr:`metarec_spark.transfer.modes.Mode.learns`."""
    transitions: Transitions
    train: Train
    adapt: Adapt
    threads: int
    """Of a rank."""
    spark: SparkSession | None = None
    gains: dict[tuple[str, float, int], np.ndarray] = field(default_factory=dict)
    """(Mode, share of the budget, seed) → NDCG@100 of each validation pair."""
    test: dict[tuple[str, float, int], np.ndarray] = field(default_factory=dict)
    """NDCG@10 of test pairs, for the record: nothing is chosen by it."""
    seconds: dict[tuple[str, float, int], float] = field(default_factory=dict)

    def plain(self) -> None:
        """Make the plain candidates that need no training of f."""
        for mode in MODES.values():
            if mode.plain and not mode.start:
                self.make(mode, 1.0)

    def hold(self, modes: Sequence[Mode]) -> negative_transfer.Decision:
        """Let transfers and plain candidates compete.

        After each round the better half of the trained transfers goes on with twice the training; the last one left gets all.
        """
        self.plain()
        trained = [mode for mode in modes if mode.start]
        untrained = [mode for mode in modes if not mode.start]
        for mode in (MODES["scratch"], *untrained):
            self.make(mode, 1.0)
        for share in ROUNDS:
            if share < 1.0 and len(trained) < 2:
                continue
            for mode in trained:
                self.make(mode, share)
            trained = sorted(trained, key=lambda mode: -self.mean(mode, share))[: max(1, len(trained) // 2)]
        return self.judged([mode for mode in MODES.values() if mode.plain], [*trained, *untrained])

    def judged(self, plain: Sequence[Mode], transfers: Sequence[Mode]) -> negative_transfer.Decision:
        """The guard decides between the plain candidates and the best transfer. Where that is ahead with the first seed, it and
        the best plain one are made with several."""
        finalists = [max(group, key=self.mean) for group in (plain, transfers) if group]
        if self.mean(finalists[-1]) > self.mean(finalists[0]):
            for mode in finalists:
                for seed in range(1, self.adapt.seeds if mode.start or mode.meta_trained_ranker else 1):
                    self.make(mode, 1.0, seed)
        judged = {mode.name: self.gains_of(mode) for mode in (*plain, finalists[-1])}
        return negative_transfer.judge(judged, {mode.name for mode in plain}, self.adapt.margin)

    def make(self, mode: Mode, share: float, seed: int = 0) -> None:
        """Make a candidate with a share of the budget, unless it is there, and rank the pairs with it."""
        start, key = time.monotonic(), (mode.name, share, seed)
        if key in self.gains:
            return
        of = self.snapshot(mode.learns)
        params = TransitionParams.from_settings(self.transitions) if mode.plain else self.lent
        made = self.folder(*key)
        manifest = of.manifest.model_copy(update={"mode": mode.name, "model_id": self.model_id(*key)})
        judged = f"{made}-rehearsed" if mode.start else made
        if mode.start:
            transitions = manifest.transitions.model_copy(update=params.model_dump())
            self._train(mode, share, seed, of, manifest.model_copy(update={"transitions": transitions}))
        elif not artifact.saved(made):
            if mode.meta_trained_ranker:
                candidates.weighed(of, made, manifest, params, seed)
            else:
                candidates.without_base(of, made, manifest, params)
        self.gains[key] = candidates.gains(of, artifact.load(judged), params, mode.start is not None)
        self.test[key] = candidates.test_gains(of, artifact.load(made if artifact.saved(made) else judged))
        self.seconds[key] = time.monotonic() - start
        log.info(
            "%s, %.0f %% of the training, seed %d: validation NDCG@100 %.4f", mode.name, 100 * share, seed, self.gains[key].mean()
        )

    def _train(self, mode: Mode, share: float, seed: int, of: Snapshot, manifest: Manifest) -> None:
        """Make a candidate twice: rehearsed, without the newest event of each person, as it is judged; and, where it may come to
        serve, on all events, for as many epochs and with the settings that were found."""
        made = self.folder(mode.name, share, seed)
        rehearsed, trained = f"{made}-rehearsed", f"{made}-trained"
        if not artifact.saved(rehearsed):
            self._fit(mode, share, seed, of, manifest, f"{rehearsed}-trained", without_newest=of.target)
            candidates.settled(of, f"{rehearsed}-trained", rehearsed, self._pair_ranker(mode))
            remove(f"{rehearsed}-trained")
        if share == 1.0 and seed == 0 and not artifact.saved(made):
            epochs = artifact.read_manifest(rehearsed).metrics.kept_epoch
            self._fit(mode, share, seed, of, manifest, trained, stop_after=epochs)
            candidates.performed(of, trained, made, rehearsed)
            remove(trained)

    def _fit(
        self,
        mode: Mode,
        share: float,
        seed: int,
        of: Snapshot,
        manifest: Manifest,
        folder: str,
        *,
        without_newest: int | None = None,
        stop_after: int | None = None,
    ) -> None:
        """Train f; for the last two, see :class:`metarec_spark.training.spec.TrainSpec`."""
        epochs = int(np.clip(self.adapt.training_events * share / manifest.training_events, 1, _MOST_EPOCHS))
        changed = {"epochs": "auto", "max_epochs": epochs, "seed": seed, "method": "joint", "stacking_pairs": 0, "tune": False}
        train = self.train.model_copy(update=changed)
        manifest = manifest.model_copy(update={"train": train})
        if mode.start != "random":
            manifest = manifest.model_copy(update={"model": self._of_base.model})
        file = f"{self.work}/runs/{folder.rpartition('/')[2]}/spec.json"
        spec = TrainSpec(
            snapshot=str(of.folder),
            model=folder,
            manifest=manifest,
            threads=self.threads,
            start=None if mode.start == "random" else str(self.base),
            trained=mode.trained,
            targets=None if mode.learns in ("uniform", "weighted") else [of.target],
            without_newest=without_newest,
            stop_after=stop_after,
        )
        spec.write(file)
        launch(file, train.processes, train.launcher, self.spark, train.timeout_seconds)

    def _pair_ranker(self, mode: Mode) -> PairRanker | None:
        """Of the candidates made so far that have no f, and are plain if this one is, the best: what weighs its g; None: nothing
        does."""
        made = [of for of in MODES.values() if not of.start and (of.plain or not mode.plain) and (of.name, 1.0, 0) in self.gains]
        return artifact.load(self.folder(max(made, key=self.mean).name)).pair_ranker

    @cached_property
    def _of_base(self) -> Manifest:
        return artifact.read_manifest(self.base)

    @cached_property
    def lent(self) -> TransitionParams:
        """How the base model's domains weigh what is lent to them, in the middle."""
        of_base = [settings.params for settings in self._of_base.tuned.values()]
        return TransitionParams(
            **{
                name: type(getattr(of_base[0], name))(median(getattr(of, name) for of in of_base))
                for name in TransitionParams.model_fields
            }
        )

    def mean(self, mode: Mode, share: float = 1.0) -> float:
        """Validation NDCG@100 of a candidate's first seed."""
        return float(self.gains[mode.name, share, 0].mean())

    def gains_of(self, mode: Mode) -> np.ndarray:
        """[seeds, pairs] after the last round."""
        return np.stack([of for (name, share, _), of in sorted(self.gains.items()) if (name, share) == (mode.name, 1.0)])

    def rows(self, verdict: negative_transfer.Decision) -> list[dict[str, Any]]:
        """What was tried, as table ``transfer_runs`` has it; of the task nothing."""
        plain = max(self.mean(MODES[name]) for name, share, _ in self.gains if MODES[name].plain and share == 1.0)
        return [
            {
                "mode": name,
                "share": share,
                "seed": seed,
                "seconds": round(self.seconds[name, share, seed], 1),
                "ndcg": float(of.mean()),
                "test_ndcg": float(self.test[name, share, seed].mean()),
                "gain": float(of.mean()) / plain - 1 if plain else 0.0,
                "used": name == verdict.used and share == 1.0,
                "reason": verdict.reason,
            }
            for (name, share, seed), of in self.gains.items()
        ]

    def summary(self) -> dict[str, float]:
        """Mode → validation NDCG@100 with the most training that it got."""
        last = {name: (name, share, 0) for name, share, seed in sorted(self.gains) if seed == 0}
        return {name: round(float(self.gains[key].mean()), 5) for name, key in last.items()}

    def folder(self, name: str, share: float = 1.0, seed: int = 0) -> str:
        """Of a candidate."""
        return f"{self.work}/models/{name}-{share}-{seed}"

    def model_id(self, name: str, share: float = 1.0, seed: int = 0) -> str:
        """The same for the same adaptation."""
        return f"{self.ds}-{fingerprint(self.run, name, share, seed)}"
