"""Days that a quality gate stopped: the table ``stopped_days``, and what an operator decides about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.features.quality import few
from metarec_spark.job import Details, Job, Result, log

STOPPED, ACCEPTED, PASSED = "stopped", "accepted", "passed"


@dataclass(frozen=True)
class AcceptDetails(Details):
    """What accept reports beside its counts."""

    accepted: list[str]
    """Days that were accepted."""


class StoppedDays:
    """Rows of the table ``stopped_days``: a few days in a year."""

    def __init__(self, job: Job) -> None:
        self._job = job
        exists = job.warehouse.exists(c.STOPPED_DAYS)
        rows = job.warehouse.read(c.STOPPED_DAYS).collect() if exists else []
        self._rows: dict[date, dict[str, Any]] = {row["day"]: row.asDict() for row in rows}

    def with_status(self, status: str) -> set[date]:
        """Days of a status."""
        return {day for day, row in self._rows.items() if row["status"] == status}

    def stopped_before(self, day: date) -> bool:
        """Whether a run of an earlier day has stopped it."""
        row = self._rows.get(day)
        return row is not None and row["status"] == STOPPED and row["stopped_by"] < self._job.ds

    def stop(self, reasons: Mapping[date, str]) -> None:
        """Enter days that are not published, each with its reason."""
        rows = []
        for day, reason in reasons.items():
            row = self._rows.get(day)
            stopped_by = row["stopped_by"] if row and row["status"] == STOPPED else self._job.ds
            rows.append({"day": day, "status": STOPPED, "reason": reason, "stopped_by": min(stopped_by, self._job.ds)})
        self._write(rows)

    def set_status(self, days: Collection[date], status: str) -> None:
        """Change the status of days that are in the table."""
        self._write([{**self._rows[day], "status": status} for day in days])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        rows = [{**row, "changed_by": self._job.ds} for row in rows]
        changed = [row for row in rows if row != self._rows.get(row["day"])]
        if changed:
            self._job.warehouse.merge_records(c.STOPPED_DAYS, changed, self._job.commit())
            self._rows |= {row["day"]: row for row in changed}


def accept(job: Job, days: Collection[date]) -> Result:
    """Accept stopped days: the next run publishes their rows, whatever the gates find.

    Parameters
    ----------
    days
        Days to accept; empty: all days that are stopped.

    Raises
    ------
    DataError
        If one of them is not stopped.
    """
    table = StoppedDays(job)
    stopped = table.with_status(STOPPED)
    others = set(days) - stopped
    if others or not stopped:
        known = f"stopped are {few(stopped)}" if stopped else "no day is stopped"
        named = f"{few(others)}: not stopped; " if others else ""
        raise DataError(f"{named}{known} (table {c.STOPPED_DAYS} in {job.warehouse.root})")
    accepted = set(days) or stopped
    table.set_status(accepted, ACCEPTED)
    log.info("accepted: %s; the next run reads their rows again and publishes them", few(accepted))
    details = AcceptDetails(sorted(str(day) for day in accepted))
    return Result(rows_in=len(stopped), rows_out=len(accepted), details=details)
