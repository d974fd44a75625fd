"""What every job shares: its context, logging, the result line on standard output, and the exit code."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date

from pyspark.sql import SparkSession

from metarec_spark.config import Config
from metarec_spark.errors import Conflict, MetarecError, first_line
from metarec_spark.session import session
from metarec_spark.storage import local_path, turn
from metarec_spark.tables import CONFLICTS, Commit, Warehouse

log = logging.getLogger("metarec_spark")


@dataclass(frozen=True)
class Job:
    """What a job works with."""

    name: str
    """Job name, as in ``metarec NAME``."""
    config: Config
    """The checked configuration."""
    ds: date
    """The logical day: nothing newer than its end is read."""
    spark: SparkSession
    warehouse: Warehouse

    def commit(self, **said: object) -> Commit:
        """What this job's writes say of themselves."""
        return Commit(job=self.name, ds=self.ds, **said)


@dataclass
class Result:
    """What a job reports; printed as the last line on standard output."""

    rows_in: int = 0
    rows_out: int = 0
    model_id: str | None = None
    details: dict[str, object] = field(default_factory=dict)
    exit_code: int = 0


def run(name: str, config: Config, ds: date, work: Callable[[Job], Result], *, writes: bool = True) -> int:
    """Run one job: print its result as one JSON line and return its exit code.

    Jobs that write take turns. Every failure that the product explains is logged as one line; an unexpected one with its
    traceback, and exit code 1.
    """
    start = time.monotonic()
    result, warehouse, error = Result(), None, None
    try:
        spark = session(config, f"metarec {name}")
        warehouse = Warehouse(spark, config.warehouse)
        with _turn(warehouse, f"{name} of {ds}") if writes else nullcontext():
            if writes:
                warehouse.check_writable()
            result = _worked(Job(name, config, ds, spark, warehouse), work)
    except MetarecError as failure:
        log.error("%s", failure)
        result.exit_code, error = failure.exit_code, str(failure)
    except Exception as failure:
        log.exception("%s of %s failed; the tables are as their last finished commits left them: run it again", name, ds)
        result.exit_code, error = 1, f"{type(failure).__name__}: {first_line(failure)}"
    seconds = round(time.monotonic() - start, 1)
    versions = (warehouse.versions_read, warehouse.versions_written) if warehouse else ({}, {})
    report(name, ds, result, seconds, *versions, error=error)
    return result.exit_code


def _turn(warehouse: Warehouse, who: str) -> AbstractContextManager[None]:
    """One job at a time writes to a warehouse of files: there, of two processes that commit a version at the same moment, Delta
    loses one's. And what a job writes follows from what it read some steps before: two at once would give an index twice."""
    if not warehouse.root.startswith("file:"):
        return nullcontext()
    return turn(local_path(warehouse.path("_turn")), f"{who} (process {os.getpid()} on {platform.node()})")


def _worked(job: Job, work: Callable[[Job], Result]) -> Result:
    try:
        return work(job)
    except CONFLICTS as error:
        said = f"another run or program wrote to {job.warehouse.root} while {job.name} of {job.ds} did: {first_line(error)}"
        raise Conflict(f"{said}. Nothing half-written is left; run it again when the other has ended") from None


def report(
    name: str, ds: date | None, result: Result, seconds: float, read: dict, written: dict, *, error: str | None = None
) -> None:
    """Print a job's result: one JSON object, the last line on standard output."""
    line = {
        "job": name,
        "ds": ds.isoformat() if ds else None,
        "seconds": seconds,
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "tables_read": read,
        "tables_written": written,
        "model_id": result.model_id,
        "exit_code": result.exit_code,
    }
    print(json.dumps(line | result.details | ({"error": error} if error else {})), flush=True)


def start_logging(name: str, ds: date | None, *, verbose: bool = False) -> None:
    """Log to standard error, one line a record, with the job and its day."""
    day = f" {ds.isoformat()}" if ds else ""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, force=True, format=f"%(asctime)s %(levelname)s {name}{day}: %(message)s"
    )
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
