"""Start the ranks of a training run, and report the error of one that failed."""

from __future__ import annotations

import os
import sys

from pyspark.sql import SparkSession

from metarec_spark.errors import TrainingError
from metarec_spark.job import Job
from metarec_spark.training.distributed import SingleProcess, run_on_executors, run_on_this_host
from metarec_spark.training.worker import main, train
from metarec_spark.warehouse.storage import Location, list_names, read_json, remove, sibling

_ERRORS = "errors"
"""Folder beside the spec in which ranks write their errors."""
_LOST_RANK = "HorovodInternalError"
"""Error of the ranks that lost another rank."""


def launch(spec: Location, processes: int, launcher: str, spark: SparkSession | None, timeout: int) -> None:
    """Train by a spec, in this process or on several ranks, and return when all ranks have ended.

    Parameters
    ----------
    spec
        File that every rank can read; see :class:`metarec_spark.training.spec.TrainSpec`.
    processes
        Number of ranks; 1: this process.
    launcher
        local: on this host. spark: on the executors of ``spark``.
    timeout
        Most seconds for all ranks to start.

    Raises
    ------
    TrainingError
        If a rank failed; with the rank's own error if it could write it.
    """
    if processes == 1:
        train(spec, SingleProcess())
        return
    remove(sibling(spec, _ERRORS))  # of a run before
    if launcher == "spark" and spark:
        _launch_spark(spec, processes, timeout, spark)
    else:
        _launch_local(spec, processes, timeout)


def _launch_local(spec: Location, processes: int, timeout: int) -> None:
    ended = run_on_this_host([sys.executable, "-m", "metarec_spark.training.worker", str(spec)], processes, timeout)
    if ended:
        raise TrainingError(_why(spec, f"horovod ended with {ended}"))


def _launch_spark(spec: Location, processes: int, timeout: int, spark: SparkSession) -> None:
    master = spark.sparkContext.master or ""
    loopback = master.startswith("local") or "127.0.0.1" in master
    try:
        run_on_executors(_rank_on_executor, str(spec), processes, timeout, "lo" if loopback else None)
    except Exception as error:
        raise TrainingError(_why(spec, f"horovod on Spark ended with: {str(error).splitlines()[0]}")) from None


def _rank_on_executor(spec: str) -> None:
    main(spec)


def _why(spec: Location, ended: str) -> str:
    """The first error that a rank wrote beside the spec, or how the run ended."""
    folder = sibling(spec, _ERRORS)
    errors = [read_json(f"{folder}/{name}") for name in list_names(folder) if name.endswith(".json")]
    errors = [error for error in errors if not error["error"].startswith(_LOST_RANK)]
    if not errors:
        return (
            f"{ended}; a rank ended without an error of its own: killed, for want of memory perhaps; see the log above and run "
            "again: training goes on from its last checkpoint"
        )
    first = min(errors, key=lambda error: error["time"])
    return f"rank {first['rank']} failed: {first['error']}; {ended}"


def threads(job: Job) -> int:
    """Threads of one rank: local ranks share the cores that this process may use; a rank on an executor has a task's cores."""
    train = job.config.train
    if train.threads != "auto":
        return train.threads
    if train.launcher == "spark" and train.processes > 1:
        return int(job.spark.conf.get("spark.task.cpus", "1") or 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has no affinity
    return max(1, cores // train.processes)
