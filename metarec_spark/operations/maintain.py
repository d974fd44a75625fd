"""maintain: compact small files, and remove versions that are older than the retention and that no model in use was made from.

tables: what the warehouse holds, and who wrote it last.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from metarec_spark.job import Details, Job, Result, log
from metarec_spark.registry import versions_in_use
from metarec_spark.warehouse.commits import Overview


@dataclass(frozen=True)
class MaintainDetails(Details):
    """What maintain reports beside its counts."""

    tables: list[str]


@dataclass(frozen=True)
class TablesDetails(Details):
    """What tables reports beside its counts."""

    tables: list[Overview]


def maintain(job: Job) -> Result:
    """OPTIMIZE and VACUUM every table that exists."""
    names, in_use = job.warehouse.names(), versions_in_use(job)
    for name in names:
        hours = 24.0 * job.config.maintain.retention_days
        if name in in_use:
            hours = max(hours, 1 + job.warehouse.hours_since(name, in_use[name]))
        job.warehouse.optimize(name, job.commit())
        job.warehouse.vacuum(name, hours)
        log.info("table %s: compacted; what was replaced more than %.0f days ago is removed", name, hours / 24)
    return Result(rows_in=len(names), rows_out=len(names), details=MaintainDetails(names))


def tables(job: Job) -> Result:
    """Size, version and last writer of every table, on standard error and in the result."""
    overviews = [job.warehouse.overview(name) for name in job.warehouse.names()]
    shown = Table(title=job.warehouse.root)
    for name in ("table", "version", "files", "size", "written by", "of day", "at"):
        shown.add_column(name, justify="right" if name in ("version", "files", "size") else "left")
    for row in overviews:
        numbers = (str(row.version), str(row.files), decimal(row.bytes))
        shown.add_row(row.table, *numbers, row.job or "", row.ds or "", row.written)
    Console(stderr=True, width=None if Console(stderr=True).is_terminal else 110).print(shown)
    return Result(rows_in=len(overviews), rows_out=len(overviews), details=TablesDetails(overviews))
