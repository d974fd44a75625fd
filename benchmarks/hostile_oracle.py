"""What a careful person reads from the files of a hostile log: Python's csv, json and pyarrow, and plain rules. No Spark.

An event is (user, item, event type, microseconds since 1970 UTC, value); a row that is none is BROKEN.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

FIRST = datetime(1995, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BROKEN = ("broken",)
NOTHING = {"null", "\\n", "none", "nan", "nat", "n/a", "#n/a", "na", "<na>", "nil", "undefined", "(null)", "-"}


@dataclass
class Written:
    """How a file was written."""

    path: Path
    names: dict[str, str]
    """Our names of the columns that the file has → its own, dotted if nested."""
    time: Callable[[object], datetime | None]
    """Reads a time of the file; a naive one is of the log's zone."""
    encoding: str = "utf-8"
    separator: str = ","
    broken: list[str] = field(default_factory=list)
    """Lines that are no records."""


def records(file: Written) -> Iterator[dict[str, object] | None]:
    """Yield the records of a file by the file's names; None for a broken one."""
    if file.path.suffix == ".parquet":
        yield from pq.read_table(file.path).to_pylist()
        return
    data = file.path.read_bytes()
    data = gzip.decompress(data) if file.path.suffix == ".gz" else bz2.decompress(data) if file.path.suffix == ".bz2" else data
    text = data.decode(file.encoding, "replace").removeprefix("\ufeff")
    for line in file.broken:
        text = text.replace(line + "\n", "", 1)
        yield None
    if ".csv" in file.path.name:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=file.separator)
        header = next(rows, [])
        yield from (dict(zip(header, row, strict=True)) if len(row) == len(header) else None for row in rows if row)
    elif text.lstrip().startswith("["):
        yield from json.loads(text, parse_float=Decimal)
    else:
        decoder, text = json.JSONDecoder(parse_float=Decimal), text.strip()
        while text:
            value, end = decoder.raw_decode(text)
            yield value
            text = text[end:].strip()


def identity(value: object, in_csv: bool) -> str | None:
    """Text of an id; None for nothing."""
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        if value.strip(" ").lower() in NOTHING or not value.strip():
            return None
        return re.sub(r"^(-?(?:0|[1-9]\d*))\.0$", r"\1", value) if in_csv else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (float, Decimal)):
        return str(int(value)) if value == int(value) and (not isinstance(value, float) or abs(value) < 2**53) else "bad"
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(value: object) -> float | None:
    """A value as a number."""
    try:
        return None if value is None or str(value).strip().lower() in NOTHING else float(value)  # type: ignore[arg-type]
    except ValueError:
        return None


def read(files: list[Written], zone: str) -> Counter[tuple[object, ...]]:
    """Return the rows of a log, each with its number."""
    rows: Counter[tuple[object, ...]] = Counter()
    for file in files:
        for record in records(file):
            rows[_event(record, file, zone)] += 1
    return rows


def _event(record: dict[str, object] | None, file: Written, zone: str) -> tuple[object, ...]:
    if not isinstance(record, dict):
        return BROKEN
    values = {ours: _at(record, name) for ours, name in file.names.items()}
    in_csv = ".csv" in file.path.name
    user, item = identity(values["user_id"], in_csv), identity(values["item_id"], in_csv)
    kind = identity(values["event_type"], in_csv) if _has(record, file.names.get("event_type")) else "event"
    if "bad" in (user, item):
        return BROKEN
    if any("\ufffd" in (text or "") for text in (user, item, kind)):
        return BROKEN
    time = file.time(values["event_time"]) if values["event_time"] not in (None, "") else None
    if time is not None and time.tzinfo is None:
        time = time.replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))
        time = time if time.astimezone(UTC).astimezone(time.tzinfo).replace(tzinfo=None) == time.replace(tzinfo=None) else None
    micros = None if time is None or time < FIRST else (time - EPOCH) // timedelta(microseconds=1)
    return (user, item, kind, micros, number(values.get("value")))


def _has(record: dict[str, object], name: str | None) -> bool:
    return name is not None and (name in record or ("." in name and _at(record, name) is not None))


def _at(record: dict[str, object], name: str) -> object:
    for part in [name] if name in record else name.split("."):
        record = record.get(part) if isinstance(record, dict) else None  # type: ignore[assignment]
    return record
