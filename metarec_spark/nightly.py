"""nightly: extract → train (when due) → evaluate → recommend, each step only after the one before."""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.evaluation.run import evaluate
from metarec_spark.features.run import extract
from metarec_spark.job import Job, Result, log
from metarec_spark.scoring.run import recommend
from metarec_spark.training.run import train


def nightly(job: Job) -> Result:
    """The night's run. A rejected model is not used: the newest approved one makes the lists, and the exit code is 4."""
    steps = {"extract": extract(job)}
    rejected = False
    if _due(job):
        steps["train"] = train(job)
        steps["evaluate"] = evaluate(job)
        rejected = steps["evaluate"].exit_code != 0
    else:
        log.info("no training: the newest approved model is younger than train.every_days = %d", job.config.train.every_days)
    steps["recommend"] = recommend(job)
    details = {name: {"rows_in": r.rows_in, "rows_out": r.rows_out, **r.details} for name, r in steps.items()}
    last = steps["recommend"]
    exit_code = steps["evaluate"].exit_code if rejected else 0
    return Result(steps["extract"].rows_in, last.rows_out, last.model_id, {"steps": details}, exit_code)


def _due(job: Job) -> bool:
    """Whether no approved model is young enough, counted in days before the job's."""
    if not job.warehouse.exists(c.MODELS):
        return True
    oldest = job.ds - timedelta(days=job.config.train.every_days - 1)
    young = F.col("ds").between(F.lit(oldest), F.lit(job.ds)) & (F.col("status") == "approved") & (F.col("kind") == "base")
    return job.warehouse.read(c.MODELS).where(young).isEmpty()
