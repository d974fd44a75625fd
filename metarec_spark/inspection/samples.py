"""Read how files begin: their format, their names, and some values of each column."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice

from pyspark.sql import SparkSession

from metarec_spark.config.inputs import File, Format
from metarec_spark.errors import DataError
from metarec_spark.sources.dialects import csv_dialect, json_dialect
from metarec_spark.sources.files import Head, SourceFile, heads, literal
from metarec_spark.sources.parquet import exact
from metarec_spark.sources.records import csv_records

ROWS = 2_000
"""Most rows of a file that are looked at."""


@dataclass(frozen=True)
class Sample:
    """How a file, or a Delta table, begins."""

    format: Format
    names: tuple[str, ...]
    """Dotted paths of its columns, those of its folders ``name=value`` included."""
    values: dict[str, list[str]]
    """Values of each column, as text, without empty ones."""
    folders: tuple[str, ...] = ()
    """Names of the folders ``name=value``."""


def samples(spark: SparkSession, files: Sequence[SourceFile]) -> list[Sample | None]:
    """Return how each file begins; None for an empty one.

    Raises
    ------
    DataError
        If a file is neither Parquet, nor CSV with a header, nor JSON.
    """
    return [_sample(spark, file, head) for file, head in zip(files, heads(spark, files), strict=True)]


def delta_sample(spark: SparkSession, path: str) -> Sample:
    """Return how a Delta table begins."""
    return _typed(spark, "delta", path, {})


def _sample(spark: SparkSession, file: SourceFile, head: Head) -> Sample | None:
    try:
        if head.data.startswith(b"PAR1"):
            return _typed(spark, "parquet", literal(file.path), file.partitions)
        if not head.data.strip():
            return None
        text = head.data.lstrip(b"\xef\xbb\xbf \t\r\n\xff\xfe\x00")[:1]
        return _json(file, head) if text in (b"{", b"[") else _csv(file, head)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from None


def _typed(spark: SparkSession, form: Format, path: str, partitions: Mapping[str, str | None]) -> Sample:
    rows = exact(spark).read.format(form).load(path).limit(ROWS).toLocalIterator()
    return _collected(form, (row.asDict(recursive=True) for row in rows), partitions)


def _csv(file: SourceFile, head: Head) -> Sample:
    dialect = csv_dialect(head.data, head.whole, File(path=file.path, format="csv"), ())
    if len(dialect.header) < 2 or any(name and name.replace(".", "").isdigit() for name in dialect.header):
        shown = ", ".join(dialect.header)[:100]
        raise DataError(
            f"its first line is no header: {shown!r}. Name its {len(dialect.header)} columns in a configuration written by hand: "
            'names = ["user_id", "item_id", …]; docs/your-log.md shows one'
        )
    lines = io.StringIO(_cut(head, dialect.encoding), newline="")
    for _ in range(dialect.skip_lines):
        next(lines)
    records = csv_records(iter(lines), dialect.separator, dialect.skip_blanks)
    next(records)
    whole = (record for record in records if record and len(record) == len(dialect.header))
    return _collected("csv", (dict(zip(dialect.header, record, strict=True)) for record in whole), file.partitions)


def _json(file: SourceFile, head: Head) -> Sample:
    _, values = json_dialect(head.data, head.whole, File(path=file.path, format="json"))
    return _collected("json", (value for value in values if isinstance(value, dict)), file.partitions)


def _cut(head: Head, encoding: str) -> str:
    """Return the text of whole lines."""
    text = head.data.decode(encoding, "replace").removeprefix("\ufeff")
    return text if head.whole else text[: text.rfind("\n") + 1]


def _collected(form: Format, rows: Iterator[dict], partitions: Mapping[str, str | None]) -> Sample:
    values: dict[str, list[str]] = {name: [] for name in partitions}
    for row in islice(rows, ROWS):
        for name, value in [*_flat(row), *partitions.items()]:
            text = _text(value)
            values.setdefault(name, []).extend([text] if text.strip() else [])
    return Sample(form, tuple(values), values, tuple(partitions))


def _flat(row: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name:
            yield f"{prefix}{name}", value


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
