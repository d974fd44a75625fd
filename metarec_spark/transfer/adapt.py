"""adapt: the newest approved base model + a domain's few events → candidates, the guard → an approved model for the domain."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import __version__, registry
from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.config.sections import Adapt
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.features.as_of import transitions_as_of, users_as_of
from metarec_spark.features.split import held_out, train_part
from metarec_spark.job import Job, Result, log
from metarec_spark.model import artifact
from metarec_spark.model.ensemble.pair_ranker import ContentSimilarity
from metarec_spark.model.manifest import FORMAT, Manifest
from metarec_spark.training import snapshot
from metarec_spark.training.launch import threads
from metarec_spark.training.manifest import PINNED, KnownNames, draft, known_names
from metarec_spark.transfer import predictor, user_sampling
from metarec_spark.transfer.candidates import Snapshot
from metarec_spark.transfer.halving import SuccessiveHalving
from metarec_spark.transfer.modes import ALL, MODES, Mode
from metarec_spark.transfer.predictor import Trial
from metarec_spark.transfer.task_features import statistics
from metarec_spark.warehouse.storage import atomic_write, exists, local_copy, read_json, remove, write_json

_FEWEST_PAIRS, _MOST_TRIALS = 20, 10_000


def adapt(job: Job, domain: str) -> Result:
    """Find the best model for one domain and enter it in ``models``.

    Candidates compete on the domain's validation pairs; see :class:`metarec_spark.transfer.halving.SuccessiveHalving`. A refused
    transfer is entered as rejected, and the plain candidate as approved.

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
    halving = task.halving()
    if done := _recorded(task, halving):
        return done
    halving.plain()
    facts = statistics(train_part(task.users), task.tables[c.ITEM_CONTENT], domain)
    facts |= {"predictability": halving.mean(MODES["untrained"])}
    verdict = halving.hold(_advised(task, facts))
    log.info("domain %s: %s", domain, verdict.reason)
    used, winner = (_entered(task, halving, name) for name in (verdict.used, verdict.winner))
    if verdict.refused:
        registry.enter(job, *winner, "rejected", verdict.reason)
    registry.enter(job, *used, "approved", verdict.reason)
    of_task = {"run_id": f"{job.ds}-{task.run}", "ds": job.ds, "domain": domain, "base_model_id": task.base.model_id}
    rows = [{**of_task, "statistics": facts, **row} for row in halving.rows(verdict)]
    job.warehouse.merge_records(c.TRANSFER_RUNS, rows, job.commit(inputs=task.versions, model_id=task.base.model_id))
    with suppress(OSError):  # what is left harms nobody
        remove(task.work)
    details = {"used": verdict.used, "winner": verdict.winner, "gain": verdict.gain, "noise": verdict.noise}
    details |= {"reason": verdict.reason, "validation_ndcg@100": halving.summary()}
    return Result(rows_in=task.pairs, rows_out=1, model_id=used[0].model_id, details=details)


def distinct(settings: Adapt, method: str, others: int) -> list[Mode]:
    """The configured transfers, without those that would be another one once more.

    Parameters
    ----------
    method
        How the base model was trained: finetuned is meta where that was by episodes, and there is no meta where it was not.
    others
        Events of people who have none in the domain: where a pooled candidate learns all of them, none is weighted.
    """
    modes = [MODES[name] for name in settings.modes]
    twice = {"meta"} if method == "joint" else {"finetuned"} if MODES["meta"] in modes else set()
    if MODES["pooled"] in modes and others <= settings.source_events:
        twice.add("sample")
    return [mode for mode in modes if mode.name not in twice]


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
    base: registry.ModelRow
    versions: dict[str, int]
    run: str
    """Id of this adaptation: it follows from day, data, base model, configuration and code."""
    modes: list[Mode]
    """Transfers to try."""
    users: DataFrame
    """Everybody, with what is held out."""
    known: KnownNames
    tables: dict[str, DataFrame]
    pairs: int
    alike: dict[str, ContentSimilarity] = field(default_factory=dict)
    """What the snapshots found of the items, which are the same in all of them."""

    @classmethod
    def of(cls, job: Job, domain: str) -> _Task:
        config = job.config
        if config.split.protocol == "none":
            raise ConfigError("split.protocol = none: adapt chooses on held-out events; set it to leave_one_out or temporal")
        base = registry.newest_approved(job)
        versions = {name: job.warehouse.version(name) for name in PINNED}
        tables = {name: job.warehouse.read(name, versions[name]) for name in (c.ITEMS, c.ITEM_CONTENT)}
        users = users_as_of(job, job.ds, versions, config.features)
        known = known_names(users, tables[c.ITEMS], config)
        if domain not in known.domains:
            raise DataError(f"domain {domain!r} has no item; known are {', '.join(known.domains)}: extract its log first")
        labelled = held_out(users, config.split, job.ds)
        held = F.exists("targets", lambda t: (t["domain"] == domain) & (t["split"] == c.VALIDATION))
        elsewhere = F.when(~user_sampling.of_domain(labelled, domain), F.size(c.ITEM_IDX)).otherwise(0)
        pairs, others = labelled.agg(F.count(F.when(held, 1)), F.sum(elsewhere)).first()
        if pairs < _FEWEST_PAIRS:
            raise DataError(
                f"domain {domain!r} has {pairs} held-out validation events, {_FEWEST_PAIRS} are needed to choose on: wait for "
                "more events; until then the base model serves it"
            )
        shaping = [config.split, config.features, config.transitions, config.model, config.train, config.adapt]
        # Not of events: every extract writes a version of it.
        learnt = {name: version for name, version in versions.items() if name != c.EVENTS}
        about_all = [domain, base.model_id, learnt, job.ds.isoformat(), __version__, FORMAT]
        run = fingerprint(*shaping, *about_all)
        modes = distinct(config.adapt, artifact.read_manifest(base.path).train.method, others)
        task = cls(job, domain, base, versions, run, modes, labelled, known, tables, pairs)
        tables[c.ITEM_TRANSITIONS] = transitions_as_of(job, labelled, versions, f"{task.work}/{c.ITEM_TRANSITIONS}")
        return task

    @property
    def work(self) -> str:
        """Folder of everything that is made on the way."""
        return self.job.warehouse.path(f"_training/adapt-{self.run}")

    def halving(self) -> SuccessiveHalving:
        """The contest of its candidates."""
        job, config = self.job, self.job.config
        base, settings = self.base.path, (config.transitions, config.train, config.adapt)
        return SuccessiveHalving(
            self.run, job.ds.isoformat(), base, self.work, cache(self.snapshot), *settings, threads(job), spark=job.spark
        )

    def snapshot(self, learns: str) -> Snapshot:
        """The events that a kind of candidate learns; written once."""
        folder, done = f"{self.work}/{learns}", f"{self.work}/{learns}.json"
        mixed = self.snapshot("target") if learns == "own" else None
        if exists(done):
            return Snapshot(folder, Manifest.from_json(read_json(done)), self.domain, self.alike, mixed)
        adapt, job = self.job.config.adapt, self.job
        mine = self.users.where(user_sampling.of_domain(self.users, self.domain))
        known = replace(self.known, domains=[self.domain]) if learns == "own" else self.known
        learnt = mine
        if learns in ("uniform", "weighted"):
            others = self.users.where(~user_sampling.of_domain(self.users, self.domain))
            weight = None
            if learns == "weighted":
                others = others.join(user_sampling.likeness(self.users, self.tables[c.ITEM_CONTENT], self.domain), c.USER_ID)
                weight = F.col("weight")
            sample = user_sampling.sampled(others, adapt.source_events, weight, job.config.train.seed)
            learnt = mine.unionByName(sample.select(*mine.columns))
        pairs = {"validation_pairs": adapt.validation_pairs, "stacking_pairs": 0}
        settings = job.config.train.model_copy(update=pairs | {"method": "joint"})
        splits = (c.VALIDATION, c.TEST)
        # A candidate that starts from the base knows the items of all its events.
        counted = self.users if learns == "target" else learnt
        rows = snapshot.write(folder, learnt, mine, self.tables, known, [self.domain], settings, splits, counted)
        events = int(train_part(learnt).agg(F.sum(F.size(c.ITEM_IDX))).first()[0])
        adapted = {"kind": "adapted", "parent": self.base.model_id, "serves": [self.domain], "training_events": events}
        manifest = draft(job, "", self.versions, known, rows).model_copy(update=adapted)
        write_json(done, manifest.to_json())
        log.info("snapshot %s: %d sequences, %d events", learns, rows, events)
        return Snapshot(folder, manifest, self.domain, self.alike, mixed)


def _advised(task: _Task, facts: dict[str, float]) -> list[Mode]:
    """The modes to try, the likeliest first, without those that earlier adaptations say are hopeless."""
    advice = predictor.advise(trials(task.job), facts, [mode.name for mode in task.modes])
    if advice.predicted:
        told = ", ".join(f"{name} {gain:+.1%}" for name, gain in advice.predicted.items())
        log.info("domain %s: predicted gains %s; not tried: %s", task.domain, told, ", ".join(advice.hopeless) or "none")
    return [MODES[name] for name in advice.order]


def _entered(task: _Task, halving: SuccessiveHalving, name: str) -> tuple[Manifest, str]:
    """Manifest and place of a finalist, at the place where models stay."""
    place = task.job.warehouse.path(f"_models/{halving.model_id(name)}")
    if not artifact.saved(place):
        with atomic_write(place) as draft:
            shutil.copytree(local_copy(halving.folder(name)), draft, dirs_exist_ok=True)
    return artifact.read_manifest(place), place


def _recorded(task: _Task, halving: SuccessiveHalving) -> Result | None:
    """What the same adaptation came to when it was run before."""
    if not task.job.warehouse.exists(c.TRANSFER_RUNS):
        return None
    mine = (F.col("run_id") == F.lit(f"{task.job.ds}-{task.run}")) & F.col("used")
    row = task.job.warehouse.read(c.TRANSFER_RUNS).where(mine).first()
    if row is None:
        return None
    log.info("domain %s was adapted to before, on the same data: %s", task.domain, row["reason"])
    return Result(task.pairs, 1, halving.model_id(row["mode"]), {"used": row["mode"], "reason": row["reason"]})
