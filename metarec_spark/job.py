"""What every job shares: its context, the result line on standard output, the exit code, and its row in ``runs``."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime
from typing import Literal

from pyspark.sql import SparkSession

from metarec_spark.config import Config
from metarec_spark.errors import Conflict, DataError, MetarecError, first_line, unreadable
from metarec_spark.runtime import logs
from metarec_spark.runtime.interrupts import Interrupted, interruptible
from metarec_spark.runtime.isolation import isolated_environment
from metarec_spark.runtime.logs import log, redacted
from metarec_spark.runtime.session import java_end, session
from metarec_spark.warehouse.lock import warehouse_lock
from metarec_spark.warehouse.run_records import RunRecord, enter, enter_unfinished, leave_note
from metarec_spark.warehouse.storage import exists
from metarec_spark.warehouse.tables import CONFLICTS, Commit, Warehouse

_LONGEST_ERROR = 500
_LAST_ROW_SECONDS, _NEW_JAVA_SECONDS = 25.0, 120.0
"""For the row of a run that was interrupted, since schedulers kill a process 30 s after SIGTERM; and of one whose JVM ended."""
_SECRET = re.compile("secret|password|passwd|token|credential|access.?key|private.?key", re.IGNORECASE)


@dataclass
class Run:
    """One run of a job."""

    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    step: str | None = None
    """The step that runs; after an error, the one that failed."""


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
    run: Run = field(default_factory=Run)

    def commit(self, inputs: dict[str, int] | None = None, model_id: str | None = None, settings: str | None = None) -> Commit:
        """What a write of this job records in the table's history."""
        return Commit(self.name, self.ds, inputs or {}, model_id, settings)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Work in the block is that step of the job: in the log and, if it fails, in the result."""
        self.run.step = name
        with logs.step(name):
            yield
        self.run.step = None


@dataclass(frozen=True)
class Details:
    """What a job reports beside its counts; each job has a frozen dataclass of its own."""

    def to_json(self) -> dict[str, object]:
        """Fields that have a value, each under its ``key`` or, without one, its name."""
        values = asdict(self)
        keys = {item.name: item.metadata.get("key", item.name) for item in fields(self)}
        return {keys[name]: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class RowDetails(Details):
    """Rows by kind or by table."""

    rows: dict[str, int]


@dataclass(frozen=True)
class Result:
    """What a job reports; printed as the last line on standard output."""

    rows_in: int = 0
    rows_out: int = 0
    model_id: str | None = None
    details: Details = Details()
    exit_code: int = 0
    reason: str | None = None
    """Why a model was approved or rejected."""
    step: str | None = None
    """The step that failed, or that rejected a model."""

    def to_json(self) -> dict[str, object]:
        """Counts, details, and what else has a value, but the model and the exit code."""
        decision = {"reason": self.reason, "step": self.step}
        counts = {"rows_in": self.rows_in, "rows_out": self.rows_out}
        return counts | self.details.to_json() | {name: value for name, value in decision.items() if value is not None}


def run(name: str, config: Config, ds: date, work: Callable[[Job], Result], *, writes: bool = True) -> int:
    """Run one job: print its result as one JSON line, enter it in ``runs`` if it writes, and return its exit code.

    Jobs that write wait for each other. Every failure that the product explains is logged as one line; an unexpected one with
    its traceback, and exit code 1.
    """
    context, started, start = Run(), datetime.now(UTC), time.monotonic()
    logs.start_run(context.run_id)
    logs.hide(value for key, value in config.spark.conf.items() if _SECRET.search(key))
    note = RunRecord(context.run_id, name, ds, started)
    result, warehouse, failure = Result(), None, None
    with ExitStack() as stack:
        try:
            reinstall = stack.enter_context(interruptible())
            spark = session(config, f"metarec {name}")
            reinstall()
            opened = Warehouse(spark, config.warehouse)
            if writes:
                # If two processes commit a version to local files at the same moment, Delta can lose one. And what a job writes
                # follows from what it read some steps before: two jobs at once could give an item index twice.
                owner = f"{name} of {ds} (process {os.getpid()} on {platform.node()})"
                stack.enter_context(warehouse_lock(spark, opened.root, owner, config.lock.timeout_seconds))
                opened.check_writable()
                exists(opened.path("_models"))  # Python must be able to read the file system, too
                enter_unfinished(opened)
                leave_note(opened, note)
            warehouse = opened
            result = _translated(Job(name, config, ds, spark, warehouse, context), work)
        except (Exception, Interrupted, KeyboardInterrupt) as error:
            failure = _failure(error, f"{name} of {ds}", context.step)
            result = Result(exit_code=failure.exit_code, step=context.step)
        seconds = round(time.monotonic() - start, 1)
        if failure is None:
            done(result, seconds)
        versions = (dict(warehouse.versions_read), dict(warehouse.versions_written)) if warehouse else ({}, {})
        message = failure.message if failure else None
        report(name, ds, result, seconds, *versions, error=message, run_id=context.run_id)
        if warehouse and writes:
            record = replace(note, seconds=seconds, exit_code=result.exit_code, step=result.step, model_id=result.model_id)
            record = replace(record, rows_in=result.rows_in, rows_out=result.rows_out, error=_short(message, result))
            record = replace(record, versions_read=json.dumps(versions[0]), versions_written=json.dumps(versions[1]))
            _record(warehouse, config, record, failure)
    return result.exit_code


def _translated(job: Job, work: Callable[[Job], Result]) -> Result:
    """Do the work; errors that Delta and Spark raise become the product's own if it can explain them."""
    try:
        return work(job)
    except CONFLICTS as error:
        other = f"another run or program wrote to {job.warehouse.root} while {job.name} of {job.ds} did: {first_line(error)}"
        raise Conflict(f"{other}. Nothing half-written is left; run it again when the other has ended") from None
    except Exception as error:
        message = None if isinstance(error, MetarecError) else unreadable(error)
        if message is None:
            raise
        raise DataError(message) from None


@dataclass(frozen=True)
class _Failure:
    """How a run failed."""

    exit_code: int
    message: str
    lost: Literal["signal", "java"] | None = None
    """What ended it from outside, if anything did."""


def _failure(error: BaseException, what: str, step: str | None) -> _Failure:
    """Log an error, and what to do next."""
    left = f"the tables are as the last finished commits of {what} left them"
    java = java_end(error)
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        failure = _Failure(stop.exit_code, f"stopped by {stop.name}; {left}: run it again", "signal")
    elif java:
        memory = "If that was for want of memory, set spark.driver.memory so that Java and Python both fit into this machine's"
        failure = _Failure(1, f"the Java process of Spark {java}; {left}: run it again. {memory}", "java")
    elif isinstance(error, MetarecError):
        failure = _Failure(error.exit_code, redacted(str(error)))
    else:
        log.exception("%s failed; the tables are as their last finished commits left them: run it again", what)
        failure = _Failure(1, redacted(f"{type(error).__name__}: {first_line(error)}"))
    if failure.lost or isinstance(error, MetarecError):
        log.error("%s", failure.message)
    if step:
        first = "run it again" if failure.exit_code == 1 or failure.lost else "do what the error above says, then run it again"
        log.error("%s stopped in its step %s. Next: %s; the steps before it may be repeated", what, step, first)
    return failure


def _short(message: str | None, result: Result) -> str | None:
    """What the table ``runs`` says of a failure or a rejected model."""
    why = message or (result.reason if result.exit_code else None)
    return why and why.partition("\n")[0][:_LONGEST_ERROR]


def _record(warehouse: Warehouse, config: Config, record: RunRecord, failure: _Failure | None) -> None:
    """Enter a run in ``runs``. It has been reported before: a warehouse that does not take the row changes nothing about it."""
    if failure is None or failure.lost is None:
        enter(warehouse, record)
        return
    leave_note(warehouse, record)  # the next run enters the row if this one cannot
    if failure.lost == "signal":
        writer = threading.Thread(target=enter, args=(warehouse, record), daemon=True)
        writer.start()
        writer.join(_LAST_ROW_SECONDS)
    else:  # another process has another JVM
        command, settings = [sys.executable, "-m", "metarec_spark.job"], config.model_dump_json().encode()
        with suppress(subprocess.SubprocessError, OSError):
            subprocess.run(command, input=settings, env=isolated_environment(), capture_output=True, timeout=_NEW_JAVA_SECONDS)


def _enter_unfinished() -> None:
    """Enter the rows that this run's parent could not write; its configuration comes on standard input."""
    config = Config.model_validate_json(sys.stdin.read())
    enter_unfinished(Warehouse(session(config, "metarec runs"), config.warehouse))


def done(result: Result, seconds: float) -> None:
    """Log that a job, or a step of one, is done."""
    numbers = {"seconds": round(seconds, 1), "rows_in": result.rows_in, "rows_out": result.rows_out}
    log.info("done in %.1f s: %d rows in, %d rows out", *numbers.values(), extra=numbers)


def report(
    name: str,
    ds: date | None,
    result: Result,
    seconds: float,
    read: dict[str, int],
    written: dict[str, int],
    *,
    error: str | None = None,
    run_id: str | None = None,
) -> None:
    """Print a job's result: one JSON object, the last line on standard output."""
    line: dict[str, object] = {"job": name, "ds": ds.isoformat() if ds else None, "seconds": seconds}
    line |= {"rows_in": result.rows_in, "rows_out": result.rows_out, "tables_read": read, "tables_written": written}
    line |= {"model_id": result.model_id, "exit_code": result.exit_code}
    line |= ({"run_id": run_id} if run_id else {}) | result.to_json() | ({"error": error} if error else {})
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    _enter_unfinished()
