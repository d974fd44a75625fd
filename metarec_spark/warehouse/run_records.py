"""Rows of ``runs``: one for each run, also for one that was killed.

A run leaves a note in ``_runs`` when it begins, and removes it when its row is in the table. A note that is still there belongs
to a run that could not write its row: the next run enters it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta

from metarec_spark import columns as c
from metarec_spark.errors import first_line
from metarec_spark.warehouse.commits import Commit
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.lock import can_lock
from metarec_spark.warehouse.storage import list_names, read_json, remove, write_json
from metarec_spark.warehouse.tables import Warehouse

_FOLDER = "_runs"
_KILLED = 128 + 9
_UNFINISHED = "ended without a result: it was killed, perhaps for want of memory, or its machine stopped"
_LONGEST_RUN = timedelta(days=2)
"""Without a lock, as on object stores, a note may belong to a run that still goes on; not if it is older than this."""
log = logging.getLogger("metarec_spark")


@dataclass(frozen=True)
class RunRecord:
    """A row of ``runs``; see schemas/runs.json."""

    run_id: str
    job: str
    ds: date
    started: datetime
    seconds: float = 0.0
    exit_code: int = _KILLED
    step: str | None = None
    error: str | None = _UNFINISHED
    rows_in: int = 0
    rows_out: int = 0
    model_id: str | None = None
    versions_read: str = "{}"
    versions_written: str = "{}"


def leave_note(warehouse: Warehouse, record: RunRecord) -> None:
    """Write what is known of a run where the next run finds it."""
    days = {"ds": record.ds.isoformat(), "started": record.started.isoformat()}
    write_json(warehouse.path(f"{_FOLDER}/{record.run_id}.json"), asdict(record) | days)


def enter(warehouse: Warehouse, record: RunRecord) -> None:
    """Append the run's row, once, and remove its note. If the table cannot be written, the log says so and the note stays."""
    try:
        rows = warehouse.spark.createDataFrame([asdict(record)], contract(c.RUNS).schema)
        warehouse.append(c.RUNS, rows, Commit(job=record.job, ds=record.ds), app=record.run_id, txn=0)
        remove(warehouse.path(f"{_FOLDER}/{record.run_id}.json"))
    except Exception as failure:
        log.warning("table %s lacks this run: %s", c.RUNS, first_line(failure))


def enter_unfinished(warehouse: Warehouse) -> None:
    """Enter the runs that could not write their row. The caller holds the warehouse's lock, so that none of them still runs."""
    for record in _notes(warehouse):
        what = f"{record.job} of {record.ds}, begun {record.started:%Y-%m-%d %H:%M} UTC"
        log.warning("an earlier run (%s) %s", what, record.error or "could not write its row in runs")
        enter(warehouse, record)


def _notes(warehouse: Warehouse) -> Iterator[RunRecord]:
    folder = warehouse.path(_FOLDER)
    for name in list_names(folder):
        try:
            values = read_json(f"{folder}/{name}")
            days = {"ds": date.fromisoformat(values["ds"]), "started": datetime.fromisoformat(values["started"])}
            record = RunRecord(**values | days)
        except (ValueError, TypeError, KeyError):  # cut by the end of its machine
            remove(f"{folder}/{name}")
            continue
        if can_lock(warehouse.root) or datetime.now(UTC) - record.started > _LONGEST_RUN:
            yield record
