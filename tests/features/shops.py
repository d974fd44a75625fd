"""A shop whose log grows by the night, and what its tables hold."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.features.extract import extract
from metarec_spark.job import Job, Result
from metarec_spark.warehouse.tables import Warehouse

LAST = 10
LOG = pa.schema([(name, pa.string()) for name in ("ds", "user_id", "item_id", "domain", "event_type", "event_time")])

# Night → (user, domain, item, type, time). The first night knows one item only.
NIGHTS = {
    7: [("u1", "shop", "a", "click", "2024-01-07 10:00:00"), ("u1", "shop", "a", "click", "2024-01-07 10:00:00")],
    8: [
        ("u1", "shop", "b", "click", "2024-01-08 10:00:00"),
        ("u2", "news", "a", "click", "2024-01-08 11:00:00"),
        ("u2", "shop", "c", "click", "2024-01-07 23:00:00"),  # a day late
        ("u2", "shop", None, "click", "2024-01-08 12:00:00"),
        ("u3", "shop", "a", "odd", "2024-01-08 13:00:00"),
    ],
    9: [("u1", "news", "d", "click", "2024-01-09 10:00:00"), ("u2", "shop", "a", "click", "2024-01-07 01:00:00")],  # too late
    10: [
        ("u3", "shop", "e", "click", "2024-01-10 10:00:00"),
        ("u1", "shop", "a", "click", "2024-01-10 11:00:00"),
        ("", "shop", "a", "click", "soon"),
    ],
}


class Shop:
    """A log, a file of items, and a warehouse."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.folder = spark, folder
        (folder / "log").mkdir(parents=True)

    def log(self, day: int, rows: list[tuple]) -> None:
        """The rows that arrive on a day, in place of those that arrived on it before."""
        rows = [(f"2024-01-{day:02}", user, item, *rest) for user, domain, item, *rest in rows for rest in [(domain, *rest)]]
        table = pa.Table.from_pylist([dict(zip(LOG.names, row, strict=True)) for row in rows], LOG)
        pq.write_table(table, self.folder / "log" / f"{day}.parquet")

    def arrive(self, day: int, rows: list[tuple] | None = None) -> None:
        """The night's rows and, from the second night on, an item that nobody has seen yet."""
        self.log(day, rows or NIGHTS[day])
        titles = {"a": "Red shoe"} | ({"unseen": "Blue shoe"} if day > min(NIGHTS) else {})
        (self.folder / "items.json").write_text(
            "\n".join(json.dumps({"domain": "shop", "item_id": i, "title": t}) for i, t in titles.items())
        )

    def job(self, day: int, warehouse: type[Warehouse] = Warehouse, **features: object) -> Job:
        source = {"path": str(self.folder / "log"), "day_column": "ds"}
        items = [{"path": str(self.folder / "items.json"), "format": "json"}] if (self.folder / "items.json").exists() else []
        given = {"sources": [source], "items": items, "features": {"late_days": 1, "max_length": 3} | features}
        made = config.parse({"warehouse": str(self.folder / "warehouse")} | given)
        return Job("extract", made, date(2024, 1, day), self.spark, warehouse(self.spark, made.warehouse))

    def extract(self, day: int, *, history: bool = False, **features: object) -> Result:
        return extract(self.job(day, **features), history=history)

    def indexes(self) -> dict[tuple[str, str], int]:
        return {(row.domain, row.item_id): row.item_idx for row in self.read(c.ITEMS).collect()}

    def read(self, name: str):
        return self.job(LAST).warehouse.read(name)

    def versions(self) -> dict[str, int]:
        warehouse = self.job(LAST).warehouse
        return {name: warehouse.version(name) for name in warehouse.names()}

    def tables(self) -> dict[str, list]:
        """What the tables hold, with items by name in place of index."""
        names = {index: f"{domain}/{item}" for (domain, item), index in self.indexes().items()}

        def rows(name: str) -> list[tuple]:
            return sorted((tuple(row) for row in self.read(name).drop(c.ITEM_IDX, c.FILE).collect()), key=str)

        users = self.read(c.USER_SEQUENCES).withColumn(c.EVENT_TIME, F.col(c.EVENT_TIME).cast("array<string>")).collect()
        named = {
            row.user_id: row.asDict()
            | {"item_idx": [names[i] for i in row.item_idx], "seen_items": sorted(names[i] for i in row.seen_items)}
            for row in users
        }
        successors = {
            names[row.item_idx]: {names[s.item_idx]: s.weight for s in row.successors}
            for row in self.read(c.ITEM_TRANSITIONS).collect()
        }
        same = {name: rows(name) for name in (c.EVENTS, c.REJECTED_EVENTS, c.QUALITY, c.ITEMS, c.ITEM_CONTENT)}
        return same | {c.USER_SEQUENCES: named, c.ITEM_TRANSITIONS: successors}
