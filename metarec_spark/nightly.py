"""nightly: extract → train (when due) → evaluate → recommend, each step only after the one before."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from metarec_spark import registry
from metarec_spark.evaluation.evaluate import evaluate
from metarec_spark.features.extract import extract
from metarec_spark.job import Job, Result, done, log
from metarec_spark.runtime.logs import step
from metarec_spark.scoring.recommend import recommend
from metarec_spark.training.train import train


def nightly(job: Job) -> Result:
    """The night's run. A rejected model is not used: the newest approved one makes the lists, and the exit code is 4."""
    steps = {"extract": _step(job, extract)}
    rejected = False
    if _due(job):
        steps["train"] = _step(job, train)
        steps["evaluate"] = _step(job, evaluate)
        rejected = steps["evaluate"].exit_code != 0
    else:
        log.info("no training: the newest approved model is younger than train.every_days = %d", job.config.train.every_days)
    steps["recommend"] = _step(job, recommend)
    details = {name: {"rows_in": r.rows_in, "rows_out": r.rows_out, **r.details} for name, r in steps.items()}
    last = steps["recommend"]
    found = Result(steps["extract"].rows_in, last.rows_out, last.model_id, {"steps": details})
    if rejected:
        of = steps["evaluate"]
        found.exit_code, found.details = of.exit_code, found.details | {"step": "evaluate", "reason": of.details["reason"]}
        said = "step evaluate rejected model %s: the lists are of %s. Next: see report.html in the rejected model's folder"
        log.error(said, of.model_id, last.model_id)
    return found


def _step(job: Job, work: Callable[[Job], Result]) -> Result:
    """Do one step; lines in the log, and an error, bear its name."""
    start = time.monotonic()
    with step(work.__name__):
        result = work(job)
        result.details["seconds"] = round(time.monotonic() - start, 1)
        done(result, result.details["seconds"])
    return result


def _due(job: Job) -> bool:
    """Whether no approved model is young enough, counted in days before the job's."""
    return not registry.trained_since(job, job.ds - timedelta(days=job.config.train.every_days - 1))
