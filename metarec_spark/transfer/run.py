"""adapt: the newest approved base model + a domain's few events → candidates, the guard → an approved model for the domain."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import __version__
from metarec_spark import columns as c
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.features.run import transitions_as_of, users_as_of
from metarec_spark.features.split import held_out, train_part
from metarec_spark.job import Job, Result, log
from metarec_spark.model import bundle
from metarec_spark.model.transfer import Lending
from metarec_spark.scoring.run import newest_approved
from metarec_spark.storage import local_path, read_json, write_json
from metarec_spark.training import snapshot
from metarec_spark.training.distributed import launch
from metarec_spark.training.run import PINNED, about, enter, known_names, threads
from metarec_spark.transfer import candidates, guard, people, predictor
from metarec_spark.transfer.candidates import Snapshot
from metarec_spark.transfer.modes import ALL, MODES, Mode
from metarec_spark.transfer.predictor import Trial
from metarec_spark.transfer.statistics import statistics

ROUNDS = (0.25, 0.5, 1.0)
_MOST_EPOCHS, _FEWEST_PAIRS, _MOST_TRIALS = 40, 20, 10_000


def adapt(job: Job, domain: str) -> Result:
    """Find the best model for one domain and enter it in ``models``.

    Candidates compete on the domain's validation pairs: after each round the better half of the trained transfers goes on with
    twice the training. In the last round the best transfer and the best plain candidate are trained with several seeds, and the
    guard decides. A refused transfer is entered as rejected, and the plain candidate as approved.

    Raises
    ------
    ConfigError
        Where nothing is held out.
    DataError
        Where the domain has no items, or too few validation pairs to choose on.
    ModelRejected
        Where there is no approved base model.
    """
    task = _Task.of(job, domain)
    tried = _Tried(task)
    if done := tried.recorded():
        return done
    plain = [mode for mode in MODES.values() if mode.plain]
    for mode in (mode for mode in plain if not mode.start):
        tried.make(mode, 1.0)
    modes = tried.advised()
    trained = [mode for mode in modes if mode.start]
    untrained = [mode for mode in modes if not mode.start]
    for mode in untrained:
        tried.make(mode, 1.0)
    for share in ROUNDS:
        for mode in (MODES["scratch"], *trained):
            tried.make(mode, share)
        trained = sorted(trained, key=lambda mode: -tried.mean(mode, share))[: max(1, len(trained) // 2)]
    finalists = [max(group, key=tried.final) for group in (plain, [*trained, *untrained]) if group]
    for mode in finalists:
        for seed in range(1, job.config.adapt.seeds if mode.start or mode.taught else 1):
            tried.make(mode, 1.0, seed)
    verdict = guard.judge({m.name: tried.gains_of(m) for m in finalists}, {m.name for m in plain}, job.config.adapt.margin)
    log.info("domain %s: %s", domain, verdict.reason)
    used, winner = tried.entered(verdict.used), tried.entered(verdict.winner)
    if verdict.refused:
        enter(job, *winner, "rejected", verdict.reason)
    enter(job, *used, "approved", verdict.reason)
    tried.record(verdict)
    shutil.rmtree(task.work, ignore_errors=True)
    details = {"used": verdict.used, "winner": verdict.winner, "gain": verdict.gain, "noise": verdict.noise}
    details |= {"reason": verdict.reason, "validation_ndcg@10": tried.summary()}
    return Result(rows_in=task.pairs, rows_out=1, model_id=used[0]["model_id"], details=details)


def trials(job: Job) -> list[Trial]:
    """What the newest adaptations found: of every task and mode, the first seed with the most training that it got."""
    if not job.warehouse.exists(c.TRANSFER_RUNS):
        return []
    longest = Window.partitionBy("run_id", "mode").orderBy(F.desc("share"))
    tried = (F.col("seed") == 0) & ~F.col("mode").isin([mode.name for mode in ALL if mode.plain])
    rows = job.warehouse.read(c.TRANSFER_RUNS).where(tried).withColumn("place", F.row_number().over(longest)).where("place = 1")
    rows = rows.orderBy(F.desc("ds"), "run_id", "mode").limit(_MOST_TRIALS).select("run_id", "mode", "statistics", "gain")
    return [Trial(row["run_id"], row["mode"], row["statistics"], row["gain"]) for row in rows.toLocalIterator()]


@dataclass(frozen=True)
class _Task:
    """A domain, its base model, and the snapshots that candidates learn from."""

    job: Job
    domain: str
    base: dict[str, Any]
    versions: dict[str, int]
    run: str
    """Id of this adaptation: it follows from day, data, base model, configuration and code."""
    modes: list[Mode]
    """Transfers to try."""
    users: DataFrame
    """Everybody, with what is held out."""
    known: dict[str, Any]
    tables: dict[str, DataFrame]
    pairs: int

    @classmethod
    def of(cls, job: Job, domain: str) -> _Task:
        config = job.config
        if config.split.protocol == "none":
            raise ConfigError("split.protocol = none: adapt chooses on held-out events; set it to leave_one_out or temporal")
        base = newest_approved(job)
        versions = {name: job.warehouse.version(name) for name in PINNED}
        tables = {name: job.warehouse.read(name, versions[name]) for name in (c.ITEMS, c.ITEM_CONTENT)}
        users = users_as_of(job, job.ds, versions, config.features)
        known = known_names(users, tables[c.ITEMS], config)
        if domain not in known["domains"]:
            raise DataError(f"domain {domain!r} has no item; known are {', '.join(known['domains'])}: extract its log first")
        labelled = held_out(users, config.split, job.ds)
        tables[c.ITEM_TRANSITIONS] = transitions_as_of(job, labelled, versions)
        held = F.exists("targets", lambda t: (t["domain"] == domain) & (t["split"] == c.VALIDATION))
        pairs = labelled.where(held).count()
        if pairs < _FEWEST_PAIRS:
            raise DataError(
                f"domain {domain!r} has {pairs} held-out validation events, {_FEWEST_PAIRS} are needed to choose on: wait for "
                "more events; until then the base model serves it"
            )
        shaping = [
            getattr(config, name).model_dump(mode="json")
            for name in ("split", "features", "transitions", "model", "train", "adapt")
        ]
        said = [domain, base["model_id"], shaping, versions, job.ds.isoformat(), __version__]
        run = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
        modes = [MODES[name] for name in config.adapt.modes]
        if json.loads(base["config"])["train"]["method"] == "joint":
            modes = [mode for mode in modes if mode.start != "meta"]
        return cls(job, domain, base, versions, run, modes, labelled, known, tables, pairs)

    @property
    def work(self) -> Path:
        """Folder of everything that is made on the way."""
        return local_path(self.job.warehouse.path(f"_training/adapt-{self.run}"))

    def snapshot(self, learns: str) -> Snapshot:
        """The events that a kind of candidate learns; written once."""
        folder, done = self.work / learns, self.work / f"{learns}.json"
        if done.exists():
            return Snapshot(folder, read_json(done), self.domain)
        adapt, job = self.job.config.adapt, self.job
        mine = self.users.where(people.of_domain(self.users, self.domain))
        known = {**self.known, "domains": [self.domain]} if learns == "own" else self.known
        learnt = mine
        if learns in ("uniform", "weighted"):
            others = self.users.where(~people.of_domain(self.users, self.domain))
            weight = None
            if learns == "weighted":
                others = others.join(people.likeness(self.users, self.tables[c.ITEM_CONTENT], self.domain), c.USER_ID)
                weight = F.col("weight")
            sample = people.sampled(others, adapt.source_events, weight, job.config.train.seed)
            learnt = mine.unionByName(sample.select(*mine.columns))
        pairs = {"validation_pairs": adapt.validation_pairs, "stacking_pairs": 0}
        settings = job.config.train.model_copy(update=pairs | {"method": "joint"})
        splits = (c.VALIDATION, c.TEST)
        # A candidate that starts from the base knows the items of all its events.
        counted = self.users if learns == "target" else learnt
        rows = snapshot.write(folder, learnt, mine, self.tables, known, [self.domain], settings, splits, counted)
        manifest = about(job, "", self.versions, known, rows) | {"kind": "adapted", "parent": self.base["model_id"]}
        events = train_part(learnt).agg(F.sum(F.size(c.ITEM_IDX))).first()[0]
        manifest |= {"serves": [self.domain], "learnt_events": int(events)}
        write_json(done, manifest)
        log.info("snapshot %s: %d sequences, %d events", learns, rows, events)
        return Snapshot(folder, manifest, self.domain)


class _Tried:
    """Candidates made so far, and how their validation pairs were ranked."""

    def __init__(self, task: _Task) -> None:
        self.task = task
        self.gains: dict[tuple[str, float, int], np.ndarray] = {}
        self.test: dict[tuple[str, float, int], np.ndarray] = {}
        """Of test pairs, for the record: nothing is chosen by them."""
        self.seconds: dict[tuple[str, float, int], float] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.base = bundle.read_manifest(local_path(task.base["path"]))
        of_base = [Lending.model_validate(tuned["lending"]) for tuned in self.base["tuned"].values()]
        self.lent = Lending(
            **{
                name: type(getattr(of_base[0], name))(median(getattr(of, name) for of in of_base))
                for name in Lending.model_fields
            }
        )

    def make(self, mode: Mode, share: float, seed: int = 0) -> None:
        """Train a candidate with a share of the budget, unless a run before did, and rank the validation pairs with it."""
        start = time.monotonic()
        job, key = self.task.job, (mode.name, share, seed)
        if mode.learns not in self.snapshots:
            self.snapshots[mode.learns] = self.task.snapshot(mode.learns)
        of = self.snapshots[mode.learns]
        lending = Lending.by(job.config.transitions) if mode.plain else self.lent
        made = self._folder(*key)
        if not (made / "manifest.json").exists():
            manifest = {**of.manifest, "mode": mode.name, "model_id": self._model_id(*key)}
            if mode.taught:
                candidates.weighed(of, made, manifest, lending, seed)
            elif mode.start:
                self._train(mode, share, seed, of, made, manifest, lending)
            else:
                candidates.without_base(of, made, manifest, lending)
        found = bundle.load(made)
        self.gains[key] = candidates.gains(of, found, lending, mode.start is not None)
        self.test[key] = candidates.test_gains(of, found)
        self.seconds[key] = time.monotonic() - start
        log.info(
            "%s, %.0f %% of the training, seed %d: validation NDCG@10 %.4f", mode.name, 100 * share, seed, self.gains[key].mean()
        )

    def _train(
        self, mode: Mode, share: float, seed: int, of: Snapshot, made: Path, manifest: dict[str, Any], lending: Lending
    ) -> None:
        config, base = self.task.job.config, local_path(self.task.base["path"])
        epochs = int(np.clip(config.adapt.events * share / manifest["learnt_events"], 1, _MOST_EPOCHS))
        changed = {"epochs": "auto", "max_epochs": epochs, "seed": seed, "method": "joint", "stacking_pairs": 0}
        train = config.train.model_copy(update=changed)
        if mode.start != "random":
            manifest = {**manifest, "model": self.base["model"]}
        manifest |= {"train": train.model_dump(mode="json"), "transitions": manifest["transitions"] | lending.model_dump()}
        spec = {
            "snapshot": str(of.folder),
            "model": str(made),
            "start": None if mode.start == "random" else str(base),
            "trained": mode.trained,
            "targets": None if mode.learns in ("uniform", "weighted") else [of.target],
            "train": manifest["train"],
            "threads": threads(self.task.job),
            "manifest": manifest,
        }
        place = self.task.work / "runs" / made.name
        write_json(place / "spec.json", spec)
        launch(place / "spec.json", train.processes, train.launcher, self.task.job.spark, train.timeout_seconds)

    def mean(self, mode: Mode, share: float) -> float:
        """Validation NDCG@10 of a candidate's first seed."""
        return float(self.gains[mode.name, share, 0].mean())

    def final(self, mode: Mode) -> float:
        """The same after the last round."""
        return self.mean(mode, 1.0)

    def gains_of(self, mode: Mode) -> np.ndarray:
        """[seeds, pairs] after the last round."""
        return np.stack([of for (name, share, _), of in sorted(self.gains.items()) if (name, share) == (mode.name, 1.0)])

    def entered(self, name: str) -> tuple[dict[str, Any], Path]:
        """Manifest and folder of a finalist, at the place where models stay."""
        made = self._folder(name, 1.0, 0)
        folder = local_path(self.task.job.warehouse.path(f"_models/{self._model_id(name, 1.0, 0)}"))
        if not folder.exists():
            draft = folder.with_name(f".{folder.name}.draft")
            shutil.copytree(made, draft, dirs_exist_ok=True)
            draft.rename(folder)
        return bundle.read_manifest(folder), folder

    @cached_property
    def facts(self) -> dict[str, float]:
        """What can be said of the task once the untrained candidate was measured."""
        facts = statistics(train_part(self.task.users), self.task.tables[c.ITEM_CONTENT], self.task.domain)
        return facts | {"predictability": float(self.gains["untrained", 1.0, 0].mean())}

    def advised(self) -> list[Mode]:
        """The modes to try, the likeliest first, without those that earlier adaptations say are hopeless."""
        advice = predictor.advise(trials(self.task.job), self.facts, [mode.name for mode in self.task.modes])
        if advice.predicted:
            told = ", ".join(f"{name} {gain:+.1%}" for name, gain in advice.predicted.items())
            log.info("domain %s: predicted gains %s; not tried: %s", self.task.domain, told, ", ".join(advice.hopeless) or "none")
        return [MODES[name] for name in advice.order]

    def record(self, verdict: guard.Verdict) -> None:
        """Append what was tried to ``transfer_runs``."""
        task = self.task
        plain = max(float(self.gains[name, 1.0, 0].mean()) for name in MODES if MODES[name].plain)
        rows = [
            {
                "run_id": f"{task.job.ds}-{task.run}",
                "ds": task.job.ds,
                "domain": task.domain,
                "base_model_id": task.base["model_id"],
                "mode": name,
                "share": share,
                "seed": seed,
                "statistics": self.facts,
                "seconds": round(self.seconds[name, share, seed], 1),
                "ndcg": float(of.mean()),
                "test_ndcg": float(self.test[name, share, seed].mean()),
                "gain": float(of.mean()) / plain - 1 if plain else 0.0,
                "used": name == verdict.used and share == 1.0,
                "reason": verdict.reason,
            }
            for (name, share, seed), of in self.gains.items()
        ]
        task.job.warehouse.merge_records(
            c.TRANSFER_RUNS, rows, task.job.commit(inputs=task.versions, model_id=task.base["model_id"])
        )

    def recorded(self) -> Result | None:
        """What the same adaptation came to when it was run before."""
        task = self.task
        if not task.job.warehouse.exists(c.TRANSFER_RUNS):
            return None
        mine = (F.col("run_id") == F.lit(f"{task.job.ds}-{task.run}")) & F.col("used")
        row = task.job.warehouse.read(c.TRANSFER_RUNS).where(mine).first()
        if row is None:
            return None
        log.info("domain %s was adapted to before, on the same data: %s", task.domain, row["reason"])
        details = {"used": row["mode"], "reason": row["reason"]}
        return Result(task.pairs, 1, self._model_id(row["mode"], 1.0, 0), details)

    def summary(self) -> dict[str, float]:
        """Mode → validation NDCG@10 with the most training that it got."""
        last = {name: (name, share, 0) for name, share, seed in sorted(self.gains) if seed == 0}
        return {name: round(float(self.gains[key].mean()), 5) for name, key in last.items()}

    def _folder(self, name: str, share: float, seed: int) -> Path:
        return self.task.work / "models" / f"{name}-{share}-{seed}"

    def _model_id(self, name: str, share: float, seed: int) -> str:
        said = hashlib.sha256(f"{self.task.run} {name} {share} {seed}".encode()).hexdigest()[:12]
        return f"{self.task.job.ds}-{said}"
