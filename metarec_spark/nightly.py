"""nightly: extract → train (when due) → evaluate → recommend, each step only after the one before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.evaluation.evaluate import evaluate
from metarec_spark.features.extract import extract
from metarec_spark.job import Details, Job, Result, done, log
from metarec_spark.scoring.recommend import recommend
from metarec_spark.training.train import train


@dataclass(frozen=True)
class Step:
    """A step that is done."""

    result: Result
    seconds: float


@dataclass(frozen=True)
class NightlyDetails(Details):
    """What nightly reports beside its counts."""

    steps: dict[str, Step]

    def to_json(self) -> dict[str, object]:
        """For each step the result that it has as a command, and its seconds."""
        return {"steps": {name: step.result.to_json() | {"seconds": step.seconds} for name, step in self.steps.items()}}


def nightly(job: Job) -> Result:
    """Run the night. A rejected model does not serve: the newest approved one makes the lists, and the exit code is 4."""
    steps = {"extract": _step(job, extract)}
    evaluated = None
    if _due(job):
        steps["train"] = _step(job, train)
        steps["evaluate"] = _step(job, evaluate)
        evaluated = steps["evaluate"].result
    else:
        log.info("no training: the newest approved model is younger than train.every_days = %d", job.config.train.every_days)
    steps["recommend"] = _step(job, recommend)
    lists = steps["recommend"].result
    night = Result(steps["extract"].result.rows_in, lists.rows_out, lists.model_id, NightlyDetails(steps))
    if evaluated is None or evaluated.exit_code == 0:
        return night
    message = "step evaluate rejected model %s: the lists are by %s. Next: see report.html in the rejected model's folder"
    log.error(message, evaluated.model_id, lists.model_id)
    return replace(night, exit_code=evaluated.exit_code, reason=evaluated.reason, step="evaluate")


def _step(job: Job, work: Callable[[Job], Result]) -> Step:
    """Do one step; its name stands in its log lines and, if it fails, in the result."""
    start = time.monotonic()
    with job.step(work.__name__):
        step = Step(work(job), round(time.monotonic() - start, 1))
        done(step.result, step.seconds)
    return step


def _due(job: Job) -> bool:
    """Whether no approved model is younger than ``train.every_days``, or none serves a platform with events."""
    if not registry.trained_since(job, job.ds - timedelta(days=job.config.train.every_days - 1)):
        return True
    rows = job.warehouse.read(c.ITEMS).where("events > 0").select(c.DOMAIN).distinct().toLocalIterator()
    platforms, served = {row[0] for row in rows}, registry.serving_rows(job).keys()
    if platforms and not platforms & served:
        text = "the approved models serve %s, but events are on %s: training at once. If one was renamed, set [platforms] alias"
        log.warning(text, ", ".join(sorted(served)), ", ".join(sorted(platforms)))
        return True
    return False
