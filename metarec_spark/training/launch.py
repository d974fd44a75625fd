"""How the ranks of a training run are started, and what is said where one of them failed."""

from __future__ import annotations

import subprocess
import sys

from pyspark.sql import SparkSession

from metarec_spark.errors import TrainingError
from metarec_spark.storage import Place, beside, names, read_json, remove
from metarec_spark.training.distributed import Alone, on_executors
from metarec_spark.training.worker import main, train

# Horovod's launcher takes its ranks with it, however it ends. It ends when its standard input does: with the process that
# started it, or else ranks of a job that was killed would go on beside those of the next. (Not read through sys.stdin: that
# holds its lock meanwhile, and Horovod forks a process which closes it.) Where its ranks meet is open to whoever reaches it
# (CVE-2026-31234): to nobody outside this machine.
_LAUNCHER = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
from horovod.runner.http import http_server
from horovod.runner.launch import run_commandline
find_port = http_server.find_port
http_server.find_port = lambda server: find_port(lambda address: server(("127.0.0.1", address[1])))
run_commandline()
"""
_ERRORS = "errors"
"""Folder beside the spec where ranks leave what went wrong."""
_LOST = "HorovodInternalError"
"""What ranks say of one that has gone."""


def launch(spec: Place, processes: int, launcher: str, spark: SparkSession | None, timeout: int) -> None:
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
        train(spec, Alone())
        return
    remove(beside(spec, _ERRORS))  # of a run before
    if launcher == "local":
        _launch_local(spec, processes, timeout)
    else:
        _launch_spark(spec, processes, timeout, spark)


def _launch_local(spec: Place, processes: int, timeout: int) -> None:
    run = [sys.executable, "-m", "metarec_spark.training.worker", str(spec)]
    horovod = [sys.executable, "-c", _LAUNCHER, "-np", str(processes), "-H", f"localhost:{processes}", "--gloo"]
    horovod += ["--network-interfaces", "lo", "--start-timeout", str(timeout), *run]
    with subprocess.Popen(horovod, stdin=subprocess.PIPE, stdout=sys.stderr) as launcher:
        ended = launcher.wait()
    if ended:
        raise TrainingError(_why(spec, f"horovod ended with {ended}"))


def _launch_spark(spec: Place, processes: int, timeout: int, spark: SparkSession) -> None:
    loopback = spark.sparkContext.master.startswith("local") or "127.0.0.1" in spark.sparkContext.master
    try:
        on_executors(_rank_on_executor, str(spec), processes, timeout, "lo" if loopback else None)
    except Exception as error:
        raise TrainingError(_why(spec, f"horovod on Spark ended with: {str(error).splitlines()[0]}")) from None


def _rank_on_executor(spec: str) -> None:
    main(spec)


def _why(spec: Place, ended: str) -> str:
    """The first error of its own that a rank left beside the spec, or how the run ended."""
    folder = beside(spec, _ERRORS)
    said = [read_json(f"{folder}/{name}") for name in names(folder) if name.endswith(".json")]
    said = [error for error in said if not error["error"].startswith(_LOST)]
    if not said:
        return (
            f"{ended}; a rank ended without an error of its own: killed, for want of memory perhaps; see the log above and run "
            "again: training goes on from its last checkpoint"
        )
    first = min(said, key=lambda error: error["time"])
    return f"rank {first['rank']} failed: {first['error']}; {ended}"
