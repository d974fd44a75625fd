"""What every job shares: its context, the result line on standard output, the exit code, and its row in ``runs``."""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from pyspark.sql import SparkSession

from metarec_spark import columns as c
from metarec_spark.config import Config
from metarec_spark.errors import Conflict, DataError, MetarecError, first_line, unreadable
from metarec_spark.runtime.logs import about, log
from metarec_spark.runtime.session import session
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.lock import warehouse_lock
from metarec_spark.warehouse.storage import exists
from metarec_spark.warehouse.tables import CONFLICTS, Commit, Warehouse

_LONGEST_ERROR = 500


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
    """Run one job: print its result as one JSON line, enter it in ``runs`` if it writes, and return its exit code.

    Jobs that write take turns. Every failure that the product explains is logged as one line; an unexpected one with its
    traceback, and exit code 1.
    """
    started, start = datetime.now(UTC), time.monotonic()
    about.run_id, about.step = uuid.uuid4().hex, None
    result, warehouse, error = Result(), None, None
    with ExitStack() as held:
        try:
            spark = session(config, f"metarec {name}")
            reached = Warehouse(spark, config.warehouse)
            if writes:
                # Of two processes that commit a version to files at the same moment, Delta loses one's. And what a job writes
                # follows from what it read some steps before: two at once would give an index twice.
                who = f"{name} of {ds} (process {os.getpid()} on {platform.node()})"
                held.enter_context(warehouse_lock(spark, reached.path("_turn"), who))
                reached.check_writable()
                exists(reached.path("_models"))  # what Python reads by itself must be within its reach
            warehouse = reached
            result = _worked(Job(name, config, ds, spark, warehouse), work)
        except MetarecError as failure:
            log.error("%s", failure)
            result.exit_code, error = failure.exit_code, str(failure)
        except Exception as failure:
            log.exception("%s of %s failed; the tables are as their last finished commits left them: run it again", name, ds)
            result.exit_code, error = 1, f"{type(failure).__name__}: {first_line(failure)}"
        seconds = round(time.monotonic() - start, 1)
        if error is None:
            done(result, seconds)
        elif about.step:
            result.details = {"step": about.step}
            first = "run it again" if result.exit_code == 1 else "do what the error above says, then run it again"
            log.error(
                "%s of %s stopped in its step %s. Next: %s; the steps before it may be repeated", name, ds, about.step, first
            )
        versions = (dict(warehouse.versions_read), dict(warehouse.versions_written)) if warehouse else ({}, {})
        report(name, ds, result, seconds, *versions, error=error, run_id=about.run_id)
        if warehouse and writes:
            _record(warehouse, name, ds, started, seconds, result, error)
    return result.exit_code


def done(result: Result, seconds: float) -> None:
    """Log that a job, or a step of one, is done."""
    numbers = {"seconds": round(seconds, 1), "rows_in": result.rows_in, "rows_out": result.rows_out}
    log.info("done in %.1f s: %d rows in, %d rows out", *numbers.values(), extra=numbers)


def _record(
    warehouse: Warehouse, name: str, ds: date, started: datetime, seconds: float, result: Result, error: str | None
) -> None:
    """Enter a run in ``runs``. It has been reported before: a warehouse that does not take the row changes nothing about it."""
    row = {"run_id": about.run_id, "job": name, "ds": ds, "started": started, "seconds": seconds, "exit_code": result.exit_code}
    why = error or (result.details.get("reason") if result.exit_code else None)
    row |= {"step": result.details.get("step"), "error": why and why.partition("\n")[0][:_LONGEST_ERROR]}
    row |= {"rows_in": result.rows_in, "rows_out": result.rows_out, "model_id": result.model_id}
    row |= {"versions_read": json.dumps(warehouse.versions_read), "versions_written": json.dumps(warehouse.versions_written)}
    try:
        rows = warehouse.spark.createDataFrame([row], contract(c.RUNS).schema)
        warehouse.append(c.RUNS, rows, Commit(job=name, ds=ds), app=about.run_id, txn=0)
    except Exception as failure:
        log.warning("table %s lacks this run: %s", c.RUNS, first_line(failure))


def _worked(job: Job, work: Callable[[Job], Result]) -> Result:
    try:
        return work(job)
    except CONFLICTS as error:
        said = f"another run or program wrote to {job.warehouse.root} while {job.name} of {job.ds} did: {first_line(error)}"
        raise Conflict(f"{said}. Nothing half-written is left; run it again when the other has ended") from None
    except Exception as error:
        said = unreadable(error)
        if said is None or isinstance(error, MetarecError):
            raise
        raise DataError(said) from None


def report(
    name: str,
    ds: date | None,
    result: Result,
    seconds: float,
    read: dict,
    written: dict,
    *,
    error: str | None = None,
    run_id: str | None = None,
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
    line |= {"run_id": run_id} if run_id else {}
    print(json.dumps(line | result.details | ({"error": error} if error else {})), flush=True)
