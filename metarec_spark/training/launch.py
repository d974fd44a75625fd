"""How the ranks of a training run are started, and what is said where one of them failed."""

from __future__ import annotations

import os
import sys

from pyspark.sql import SparkSession

from metarec_spark.errors import TrainingError
from metarec_spark.job import Job
from metarec_spark.training.distributed import SingleProcess, on_executors, on_this_host
from metarec_spark.training.worker import main, train
from metarec_spark.warehouse.storage import Location, list_names, read_json, remove, sibling

_ERRORS = "errors"
"""Folder beside the spec where ranks leave what went wrong."""
_LOST = "HorovodInternalError"
"""What ranks say of one that has gone."""


def launch(spec: Location, processes: int, launcher: str, spark: SparkSession | None, timeout: int) -> None:
    """Train as ``spec`` says, in this process or on several ranks, and return when all ranks have ended.

    Parameters
    ----------
    spec
        JSON file that every rank can read; see :mod:`metarec_spark.training.worker`.
    processes
        Ranks; 1 is this process.
    launcher
        local: on this host. spark: on the executors of ``spark``.
    timeout
        Seconds, at most, for all ranks to start.

    Raises
    ------
    TrainingError
        Where a rank failed; with its own error where it could say it.
    """
    if processes == 1:
        train(spec, SingleProcess())
        return
    remove(sibling(spec, _ERRORS))  # of a run before
    if launcher == "local":
        _launch_local(spec, processes, timeout)
    else:
        _launch_spark(spec, processes, timeout, spark)


def _launch_local(spec: Location, processes: int, timeout: int) -> None:
    ended = on_this_host([sys.executable, "-m", "metarec_spark.training.worker", str(spec)], processes, timeout)
    if ended:
        raise TrainingError(_why(spec, f"horovod ended with {ended}"))


def _launch_spark(spec: Location, processes: int, timeout: int, spark: SparkSession) -> None:
    loopback = spark.sparkContext.master.startswith("local") or "127.0.0.1" in spark.sparkContext.master
    try:
        on_executors(_rank_on_executor, str(spec), processes, timeout, "lo" if loopback else None)
    except Exception as error:
        raise TrainingError(_why(spec, f"horovod on Spark ended with: {str(error).splitlines()[0]}")) from None


def _rank_on_executor(spec: str) -> None:
    main(spec)


def _why(spec: Location, ended: str) -> str:
    """The first error of its own that a rank left beside the spec, or how the run ended."""
    folder = sibling(spec, _ERRORS)
    said = [read_json(f"{folder}/{name}") for name in list_names(folder) if name.endswith(".json")]
    said = [error for error in said if not error["error"].startswith(_LOST)]
    if not said:
        return (
            f"{ended}; a rank ended without an error of its own: killed, for want of memory perhaps; see the log above and run "
            "again: training goes on from its last checkpoint"
        )
    first = min(said, key=lambda error: error["time"])
    return f"rank {first['rank']} failed: {first['error']}; {ended}"


def threads(job: Job) -> int:
    """Threads of one rank: this host's cores are shared by local ranks; a rank on an executor has a task's cores."""
    train = job.config.train
    if train.threads != "auto":
        return train.threads
    if train.launcher == "spark" and train.processes > 1:
        return int(job.spark.conf.get("spark.task.cpus", "1"))
    return max(1, (os.cpu_count() or 1) // train.processes)
