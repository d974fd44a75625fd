"""The table ``ingested``: which files were read into ``events``, in which state, and which of their days were not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features.quality import KEPT

FileKey = tuple[str, str]
"""(source, file)."""
_COUNTS = ("events", "duplicates", "rejected", "forgotten")


@dataclass(frozen=True)
class RowCount:
    """Rows of a file that count for one day."""

    source: str
    file: str
    day: date | None
    gate_day: date
    """The day; of rows without one, the day whose quality gate they count for."""
    forgotten: bool
    """Whether they are of erased users."""
    rows: int


@dataclass(frozen=True)
class FileState:
    """A file, or a Delta table, as it is now."""

    root: str
    """Folder of its source."""
    file: str
    """Relative to the root; of a Delta table, the name of its folder."""
    uri: str
    """Full path."""
    size: int | None
    modified: datetime | None
    version: int | None
    settings: str
    """Fingerprint of the source's configuration and the cleaning rules."""


@dataclass(frozen=True)
class Ingested:
    """A row of the table ``ingested``."""

    source: str
    file: str
    root: str
    version: int | None
    size: int | None
    modified: datetime | None
    rows: int
    events: int
    duplicates: int
    rejected: int
    forgotten: int
    pending: list[date]
    pending_undated: date | None
    settings: str
    ds: date
    read_at: datetime

    def is_file(self, state: FileState) -> bool:
        """Whether the file is the same as when it was read."""
        return (self.size, self.modified, self.version) == (state.size, state.modified, state.version)

    def due_days(self, ds: date) -> frozenset[date]:
        """Days up to ``ds`` of which its rows were not read yet."""
        return frozenset(day for day in self.pending if day <= ds)

    def is_due(self, ds: date) -> bool:
        """Whether it has rows that a run of ``ds`` can read and no run has read."""
        return bool(self.due_days(ds)) or (self.pending_undated is not None and self.pending_undated <= ds)


@dataclass(frozen=True)
class Reading:
    """Which rows of a file a run reads."""

    state: FileState
    again: bool = False
    """Whether the rows may be stored already."""
    unchanged: bool = False
    """Whether the file is the same as when it was read last: what is stored of it and is not read again was another reading."""
    days: frozenset[date] | None = None
    """Days whose rows are read; None: all days."""
    except_days: frozenset[date] = frozenset()
    """Days whose rows are not read."""
    undated: bool = True
    """Whether rows without a day are read."""
    undated_day: date | None = None
    """Stopped day that the rows without a day count for, if they were stopped before."""
    before: Ingested | None = None
    """What was read of the file before, if this reading adds to it."""


def read_ingested(rows: DataFrame | None) -> dict[str, dict[str, Ingested]]:
    """Rows of the table by source and file. Driver memory: a kilobyte for each file that was ever read."""
    by_source: dict[str, dict[str, Ingested]] = defaultdict(dict)
    if rows is not None:
        # As numbers: Spark gives Python times without their zone.
        for row in rows.withColumns({name: F.unix_millis(name) for name in ("modified", "read_at")}).collect():
            values = row.asDict() | {name: row[name] and _instant(row[name]) for name in ("modified", "read_at")}
            by_source[row[c.SOURCE]][row[c.FILE]] = Ingested(**values)
    return by_source


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def ingested_rows(
    readings: Mapping[FileKey, Sequence[Reading]],
    counts: Sequence[RowCount],
    outcomes: Sequence[tuple[str, str, str, int]],
    left_out: frozenset[date],
    ds: date,
    now: datetime,
) -> list[Ingested]:
    """Rows of the table for the files that a run read.

    Parameters
    ----------
    readings
        Readings of each file.
    counts
        All rows that were selected, by day.
    outcomes
        (source, file, outcome, rows) of the rows that were judged.
    left_out
        Stopped days, whose rows were not judged.
    """
    numbers: dict[FileKey, Counter[str]] = defaultdict(Counter)
    for source, file, outcome, rows in outcomes:
        numbers[source, file][{KEPT: "events", "duplicate": "duplicates"}.get(outcome, "rejected")] += rows
    pending: dict[FileKey, set[date]] = defaultdict(set)
    undated: dict[FileKey, date] = {}
    for n in counts:
        key = n.source, n.file
        if n.gate_day <= ds and n.gate_day not in left_out:
            numbers[key]["forgotten"] += n.rows if n.forgotten else 0
        elif n.day is None:
            undated[key] = n.gate_day
        else:
            pending[key].add(n.day)
    return [_row(key, parts, numbers[key], pending[key], undated.get(key), ds, now) for key, parts in readings.items()]


def _row(
    key: FileKey,
    readings: Sequence[Reading],
    numbers: Counter[str],
    pending: set[date],
    undated: date | None,
    ds: date,
    now: datetime,
) -> Ingested:
    state, before = readings[0].state, readings[0].before
    if before:
        numbers = numbers + Counter({name: getattr(before, name) for name in _COUNTS})
        pending = pending | set(before.pending).difference(*(reading.days or () for reading in readings))
        if not any(reading.undated_day for reading in readings):
            undated = undated or before.pending_undated
    events, duplicates, rejected, forgotten = (numbers[name] for name in _COUNTS)
    return Ingested(
        *key,
        root=state.root,
        version=state.version,
        size=state.size,
        modified=state.modified,
        rows=events + duplicates + rejected + forgotten,
        events=events,
        duplicates=duplicates,
        rejected=rejected,
        forgotten=forgotten,
        pending=sorted(pending),
        pending_undated=undated,
        settings=state.settings,
        ds=ds,
        read_at=now,
    )
