"""adapt: the newest approved base model + a domain's few events → candidates → the negative-transfer test → an approved model."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from pyspark.sql import Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.config.sections import Adapt
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.model import artifact
from metarec_spark.training.launch import threads
from metarec_spark.transfer import predictor
from metarec_spark.transfer.candidates import Candidate, Candidates, model_id
from metarec_spark.transfer.halving import CandidateRecord, compare, records
from metarec_spark.transfer.modes import BASELINES, MODES, OLD_NAMES, Mode
from metarec_spark.transfer.negative_transfer import Decision
from metarec_spark.transfer.predictor import Trial
from metarec_spark.transfer.task import Task
from metarec_spark.warehouse.storage import remove

_MAX_TRIALS = 10_000


@dataclass(frozen=True)
class AdaptDetails(Details):
    """What adapt reports beside its counts; of an adaptation that was done before, only what the table holds of it."""

    used: str
    """Mode of the model that serves."""
    winner: str | None = None
    """Mode with the highest NDCG@100, a baseline or a transfer. A transfer serves unless it was refused."""
    lead: float | None = None
    """NDCG@100 of the winner less that of the strongest baseline."""
    error: float | None = None
    """Standard error of the lead."""
    test_ndcg: float | None = field(default=None, metadata={"key": "test_ndcg@10"})
    """Of the validation twin of the model that serves."""
    validation_ndcg: dict[str, float] | None = field(default=None, metadata={"key": "validation_ndcg@100"})
    """By mode."""


def adapt(job: Job, domain: str) -> Result:
    """Find the best model for one domain and enter it in ``models``.

    Candidates are compared on the domain's validation pairs; see :mod:`metarec_spark.transfer.halving`. The one that serves
    is entered as approved. If a transfer measured best and does not beat every baseline beyond noise, it is entered as rejected.

    Raises
    ------
    ConfigError
        If nothing is held out, or adapt.predictor is set and scikit-learn is missing.
    DataError
        If the domain has no items, or too few validation pairs to choose on.
    ModelRejected
        If there is no approved base model.
    """
    if job.config.adapt.predictor:
        predictor.check_installed()
    task = Task.from_tables(job, domain)
    if done := _recorded(task):
        return done
    config = job.config
    modes = distinct(config.adapt, artifact.read_manifest(task.base.path).train.method, task.source_events)
    candidates = Candidates(
        run=task.run,
        ds=job.ds.isoformat(),
        base=task.base.path,
        work=task.work,
        snapshots=task.snapshots(mode.events for mode in BASELINES),
        transitions=config.transitions,
        train=config.train,
        adapt=config.adapt,
        threads=threads(job),
        spark=job.spark,
    )
    heuristic = candidates.evaluate(Candidate(MODES["heuristic"]))
    meta_features = task.meta_features() | {"predictability": heuristic.mean}
    if config.adapt.predictor:
        modes = _advised(task, meta_features, modes)
    candidates.snapshots |= task.snapshots(mode.events for mode in modes)
    decision = compare(candidates, modes)
    log.log(logging.WARNING if decision.rejected else logging.INFO, "domain %s: %s", domain, decision.reason)
    served, test_ndcg = _enter(task, candidates, decision)
    rows = _rows(task, records(candidates, decision), decision, meta_features)
    job.warehouse.merge_records(c.TRANSFER_RUNS, rows, job.commit(inputs=task.versions, model_id=task.base.model_id))
    with suppress(OSError):  # leftovers do no harm
        remove(task.work)
    measured = round(test_ndcg, 5), _summary(candidates)
    details = AdaptDetails(decision.used, decision.winner, decision.lead, decision.error, *measured)
    return Result(task.pairs, 1, served, details, reason=decision.reason)


def distinct(settings: Adapt, method: str, source_events: int) -> list[Mode]:
    """Return the configured transfers without those that would train an identical model.

    Parameters
    ----------
    method
        How the base model was trained (train.method). If it was by episodes, fine_tuned is fine_tuned_from_meta; if not, there
        is no fine_tuned_from_meta.
    source_events
        Events of users who have none in the domain. If joint is trained on all of them, importance_sampled is too.
    """
    modes = [MODES[name] for name in settings.modes]
    same = {mode.name for mode in modes if mode.episodes and method == "joint"}
    if method != "joint" and any(mode.episodes for mode in modes):
        same.add("fine_tuned")
    if MODES["joint"] in modes and source_events <= settings.source_events:
        same.add("importance_sampled")
    return [mode for mode in modes if mode.name not in same]


def trials(job: Job) -> list[Trial]:
    """What the newest adaptations measured: of each task and mode, the first seed with the largest share of the budget."""
    if not job.warehouse.exists(c.TRANSFER_RUNS):
        return []
    largest = Window.partitionBy("run_id", "mode").orderBy(F.desc("share"))
    runs = job.warehouse.read(c.TRANSFER_RUNS).where("seed = 0").withColumn("number", F.row_number().over(largest))
    rows = runs.where("number = 1").orderBy(F.desc("ds"), "run_id", "mode").limit(_MAX_TRIALS).collect()
    if old := {row["mode"] for row in rows} & OLD_NAMES.keys():
        names = ", ".join(f"{name} is now {OLD_NAMES[name]}" for name in sorted(old))
        log.warning("table %s has modes by the names of an earlier version: %s", c.TRANSFER_RUNS, names)
    renamed = [(row, OLD_NAMES.get(row["mode"], row["mode"])) for row in rows]
    transfers = [(row, mode) for row, mode in renamed if mode in MODES and not MODES[mode].baseline]
    return [Trial(row["run_id"], mode, row["statistics"], row["gain"]) for row, mode in transfers]


def _advised(task: Task, meta_features: dict[str, float], modes: list[Mode]) -> list[Mode]:
    """The modes to try, without those that are hopeless by earlier adaptations."""
    advice = predictor.advise(trials(task.job), meta_features, [mode.name for mode in modes])
    if advice.predicted:
        gains = ", ".join(f"{name} {gain:+.1%}" for name, gain in advice.predicted.items())
        log.info("domain %s: predicted gains %s; not tried: %s", task.domain, gains, ", ".join(advice.hopeless) or "none")
    return [MODES[name] for name in advice.order]


def _enter(task: Task, candidates: Candidates, decision: Decision) -> tuple[str, float]:
    """Write the model that serves, and the rejected one if there is one, and enter them.

    Returns
    -------
    Id of the model that serves, and test NDCG@10 of its validation twin: what serves has learnt the test events.
    """
    job, used = task.job, Candidate(MODES[decision.used])

    def location(candidate: Candidate) -> str:
        return job.warehouse.path(f"_models/{candidates.model_id(candidate)}")

    served = candidates.save(used, location(used), task.all_events(used.mode.events))
    if decision.rejected:
        winner = Candidate(MODES[decision.winner])
        registry.enter(job, candidates.save_twin(winner, location(winner)), location(winner), "rejected", decision.reason)
    registry.enter(job, served, location(used), "approved", decision.reason)
    return served.model_id, float(candidates.evaluate(used).test_ndcg.mean())


def _rows(
    task: Task, records: list[CandidateRecord], decision: Decision, meta_features: dict[str, float]
) -> list[dict[str, object]]:
    """Rows of table ``transfer_runs``: one a candidate."""
    common: dict[str, object] = {"run_id": f"{task.job.ds}-{task.run}", "ds": task.job.ds, "domain": task.domain}
    common |= {"base_model_id": task.base.model_id, "statistics": meta_features, "reason": decision.reason}
    return [common | asdict(record) for record in records]


def _summary(candidates: Candidates) -> dict[str, float]:
    """Mode → validation NDCG@100 with the largest share of the budget."""
    by_share = sorted(candidates.evaluations.items(), key=lambda item: item[0].share)
    return {candidate.mode.name: round(evaluation.mean, 5) for candidate, evaluation in by_share if candidate.seed == 0}


def _recorded(task: Task) -> Result | None:
    """The result of the same adaptation if it was run before."""
    job = task.job
    if not job.warehouse.exists(c.TRANSFER_RUNS):
        return None
    same = (F.col("run_id") == F.lit(f"{job.ds}-{task.run}")) & F.col("used") & (F.col("seed") == 0)
    row = job.warehouse.read(c.TRANSFER_RUNS).where(same).first()
    if row is None:
        return None
    log.info("domain %s was adapted to before, on the same data: %s", task.domain, row["reason"])
    used = model_id(job.ds.isoformat(), task.run, Candidate(MODES[row["mode"]]))
    return Result(task.pairs, 1, used, AdaptDetails(row["mode"]), reason=row["reason"])
