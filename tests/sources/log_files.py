"""Small logs of each format, and their rows as the product reads them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.inputs import Source
from metarec_spark.sources.events import open_events

NOON = "2024-01-10 12:00:00"
ROW = {"user_id": "u1", "item_id": "i1", "domain": "shop", "event_type": "click", "event_time": NOON, "rating": 4.5}
IDS = ("user_id", "item_id", "problem")


def parquet(file: Path, *rows: dict, types: dict[str, pa.DataType] | None = None) -> str:
    """A Parquet file; ``types`` are of columns that Arrow would give another one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array([row[name] for row in rows], (types or {}).get(name)) for name in rows[0]})
    pq.write_table(table, file)
    return str(file)


def text(file: Path, content: str, encoding: str = "utf-8") -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode(encoding))
    return str(file)


def csv_text(*rows: dict, separator: str = ",") -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def read(spark: SparkSession, path: Path | str, *columns: str, **settings: object) -> list[tuple]:
    """Columns of a source's rows, as text, sorted."""
    frame = open_events(spark, Source(path=str(path), **settings), 0)
    shown = columns or ("user_id", "item_id", "domain", "event_type", "event_time", "value")
    return sorted((tuple(row) for row in frame.select(*[F.col(name).cast("string") for name in shown]).collect()), key=str)
