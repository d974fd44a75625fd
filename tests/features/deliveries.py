"""A log whose files come, change, move and go, and a careful person's reading of it in plain Python."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.config import Config
from metarec_spark.features.ingestion import CleaningCounts, ingest
from metarec_spark.job import Job
from metarec_spark.warehouse.tables import Warehouse

CLOCK = count(int(datetime(2024, 1, 2, tzinfo=UTC).timestamp()))
"""Modification times: every write is later than the one before."""


class Row(NamedTuple):
    """A row of a log; the time is ``day hh:mm:ss``, or text that is no time."""

    user: str | None
    item: str | None
    time: str
    domain: str = "shop"
    kind: str = "click"
    value: float | None = None

    @property
    def day(self) -> date | None:
        """UTC date; None if the time cannot be read."""
        try:
            return datetime.fromisoformat(self.time).date()
        except ValueError:
            return None


def row(user: str, item: str, day: int | date, hour: int = 10, **more: object) -> Row:
    """A row at an hour of a day; days are of January 2024."""
    day = day if isinstance(day, date) else date(2024, 1, day)
    return Row(user, item, f"{day} {hour:02}:00:00", **more)


SCHEMA = pa.schema(
    [
        (name, pa.float64() if name == "value" else pa.string())
        for name in ("user_id", "item_id", "event_time", "domain", "event_type", "value")
    ]
)


class Log:
    """Folders of Parquet files, one a source, and a warehouse."""

    def __init__(self, spark: SparkSession, folder: Path, *deliveries: str, **sections: object) -> None:
        self.spark, self.folder, self.sections = spark, folder, sections
        self.deliveries = deliveries or ("added",)
        for number in range(len(self.deliveries)):
            self.source(number).mkdir(parents=True)

    def source(self, number: int = 0) -> Path:
        return self.folder / f"log{number}"

    def file(self, name: str, source: int = 0) -> Path:
        return self.source(source) / f"{name}.parquet"

    def write(self, name: str, rows: list[Row], source: int = 0) -> None:
        """Write a file, in place of one of that name."""
        path = self.file(name, source)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([dict(zip(SCHEMA.names, one, strict=True)) for one in rows], SCHEMA), path)
        time = next(CLOCK)
        os.utime(path, (time, time))

    def config(self, **sections: dict) -> Config:
        sources = [{"path": str(self.source(number)), "delivery": delivery} for number, delivery in enumerate(self.deliveries)]
        given = {"warehouse": str(self.folder / "warehouse"), "sources": sources} | self.sections
        return config.parse({name: {**given.get(name, {}), **values} for name, values in sections.items()} | {
            name: value for name, value in given.items() if name not in sections
        })  # fmt: skip

    def job(self, day: int | date, name: str = "extract", warehouse: type[Warehouse] = Warehouse, **sections: dict) -> Job:
        made = self.config(**sections)
        ds = day if isinstance(day, date) else date(2024, 1, day)
        return Job(name, made, ds, self.spark, warehouse(self.spark, made.warehouse))

    def ingest(self, day: int | date, name: str = "extract", *, history: bool = False, **sections: dict) -> CleaningCounts:
        return ingest(self.job(day, name, **sections), history=history)

    def warehouse(self) -> Warehouse:
        return self.job(1).warehouse

    def read(self, table: str):
        return self.warehouse().read(table)

    def days(self) -> dict[int, int]:
        """Day of January → events."""
        counts = self.read(c.EVENTS).groupBy(F.dayofmonth(c.EVENT_DATE)).count()
        return dict(sorted(tuple(one) for one in counts.collect()))

    def outcomes(self) -> dict[str, int]:
        """Outcome → rows, by the table quality."""
        counts = self.read(c.QUALITY).groupBy("outcome").agg(F.sum("rows"))
        return {one[0]: one[1] for one in counts.collect()}

    def tables(self) -> tuple[Counter, Counter]:
        """Events, and rejected rows with their reason: (source, file, user, item, time, domain, type, value)."""
        columns = [c.SOURCE, c.FILE, c.USER_ID, c.ITEM_ID, F.col(c.EVENT_TIME).cast("string"), c.DOMAIN, c.EVENT_TYPE, c.VALUE]
        events = Counter(tuple(one) for one in self.read(c.EVENTS).select(*columns).collect())
        rejected = Counter(tuple(one) for one in self.read(c.REJECTED_EVENTS).select(*columns, c.REASON).collect())
        return events, rejected

    def assert_consistent(self) -> None:
        """quality counts the other tables; every row of a file has one outcome."""
        events = self.read(c.EVENTS).select(c.SOURCE, c.DOMAIN, F.col(c.EVENT_DATE).alias("day"), F.lit("kept").alias("outcome"))
        rejected = self.read(c.REJECTED_EVENTS).select(c.SOURCE, c.DOMAIN, "day", F.col(c.REASON).alias("outcome"))
        counted = Counter(tuple(one) for one in events.unionByName(rejected).collect())
        quality = {
            tuple(one[:4]): one[4] for one in self.read(c.QUALITY).select(c.SOURCE, c.DOMAIN, "day", "outcome", "rows").collect()
        }
        assert quality == counted
        assert self.read(c.INGESTED).where("rows <> events + duplicates + rejected + forgotten").isEmpty()


@dataclass
class Reader:
    """A person who keeps a notebook of every file's rows, and knows what the product promises."""

    most_per_hour: int
    kinds: tuple[str, ...]
    complete: tuple[bool, ...]
    notebook: dict[tuple[int, str], Counter[Row]] = field(default_factory=lambda: defaultdict(Counter))
    """(source, file) → rows of it that count."""
    seen: dict[tuple[int, str], tuple[object, set[Row]]] = field(default_factory=dict)
    """(source, file) → its version when it was last read, and its rows of later days."""

    def night(self, files: dict[tuple[int, str], tuple[object, list[Row]]], ds: date, *, again: bool = False) -> None:
        """Read what is new: files that are new or changed, and rows of days that have come since.

        Parameters
        ----------
        files
            (source, file) → version and rows.
        again
            Read everything.
        """
        read: dict[tuple[int, str], list[Row]] = {}
        days_read: dict[tuple[int, str], set[date]] = {}
        for key, (version, rows) in files.items():
            before, later = self.seen.get(key, (None, set()))
            if again or before != version:
                later = set(rows)
                read[key] = [one for one in rows if (one.day or ds) <= ds]
                days_read[key] = {one.day for one in self.notebook[key]} | {one.day for one in rows}
            elif any(one.day <= ds for one in later):
                days_read[key] = {one.day for one in later if one.day <= ds}
                read[key] = [one for one in rows if one.day in days_read[key]]
            self.seen[key] = version, {one for one in later if one.day and one.day > ds}
        contained = {(source, one.day) for (source, _), rows in read.items() for one in rows if one.day}
        for (source, file), rows in self.notebook.items():
            if self.complete[source]:
                stays = (
                    set()
                    if (source, file) not in files
                    else set(rows) - {of for of in rows if of.day in days_read.get((source, file), ())}
                )
                for one in [of for of in rows if (source, of.day) in contained and of not in stays]:
                    del rows[one]
        for key, rows in read.items():
            self.notebook[key] |= Counter(rows)

    def tables(self, path: dict[tuple[int, str], str], labels: tuple[str, ...]) -> tuple[Counter, Counter]:
        """What :meth:`Log.tables` should give."""
        events, rejected = Counter(), Counter()
        usable: dict[tuple, list[tuple]] = defaultdict(list)
        for (source, file), rows in self.notebook.items():
            for one, number in rows.items():
                entry = (labels[source], path[source, file], one.user, one.item, one.time, one.domain, one.kind, one.value)
                reason = self._reason(one)
                if reason:
                    rejected[(*entry, reason)] += number
                else:
                    usable[one.user, one.item, one.time, one.domain, one.kind] += [entry] * number
        in_hour: dict[tuple, list[tuple]] = defaultdict(list)
        for entries in usable.values():
            first, *copies = sorted(entries, key=lambda entry: (entry[0], entry[7] is not None, entry[7] or 0.0, entry[1]))
            rejected.update((*entry, "duplicate") for entry in copies)
            in_hour[first[2], first[4][:13]].append(first)
        for entries in in_hour.values():
            if len(entries) > self.most_per_hour:
                rejected.update((*entry, "bot") for entry in entries)
            else:
                events.update(entries)
        return events, rejected

    def _reason(self, one: Row) -> str | None:
        if not one.user:
            return "null_user"
        if not one.item:
            return "null_item"
        if one.day is None:
            return "bad_time"
        return None if one.kind in self.kinds else "unknown_type"


TODAY = datetime.now(UTC).date()
LAST_JUNE = date(2023, 6, 15)
DAY = timedelta(days=1)
