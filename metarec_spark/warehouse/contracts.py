"""The tables' contracts, read from schemas/NAME.json, and conforming a DataFrame to one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, NumericType, StringType, StructType, TimestampType

from metarec_spark import columns as c
from metarec_spark.errors import DataError

_ORDERED = (NumericType, StringType, DateType, TimestampType)


@dataclass(frozen=True)
class Contract:
    """What a table promises its readers."""

    name: str
    """Table name; also its folder under the warehouse."""
    schema: StructType
    """Columns with types, nullability and comments."""
    key: tuple[str, ...]
    """Columns that identify a row; empty where rows have no identity."""
    partition_by: tuple[str, ...]
    """Partition columns."""
    checks: dict[str, str]
    """Name → condition that holds for every row: Delta refuses a write that breaks one."""
    description: str
    """One sentence for the table's own metadata."""

    @property
    def comparable(self) -> list[str]:
        """Columns whose change makes a row worth rewriting; maps cannot be compared, and are set by the same key."""
        return [field.name for field in self.schema if field.name not in self.key and field.dataType.typeName() != "map"]

    @property
    def indexed(self) -> list[str]:
        """Columns of which Delta's log says what is smallest and largest in a file: not the user id, which the log would keep
        long after the rows."""
        left_out = (c.USER_ID, *self.partition_by)
        return [field.name for field in self.schema if field.name not in left_out and isinstance(field.dataType, _ORDERED)]


@cache
def contract(name: str) -> Contract:
    """Read the contract of one table."""
    raw = json.loads(_file(name).read_text(encoding="utf-8"))
    key, partition_by, checks = tuple(raw["key"]), tuple(raw["partition_by"]), raw.get("checks", {})
    return Contract(name, StructType.fromJson(raw), key, partition_by, checks, raw["description"])


def _file(name: str) -> Traversable:
    """schemas/NAME.json: in the package if it was built (wheel, zip), else at the top of the repository."""
    package = resources.files("metarec_spark")
    built = package / "schemas" / f"{name}.json"
    return built if built.is_file() else Path(str(package)).parent / "schemas" / f"{name}.json"


def conform(frame: DataFrame, name: str) -> DataFrame:
    """Select the contract's columns in its order.

    Nothing is filled in, dropped or cast: a missing, surplus or differently typed column is an error. Nullability is
    enforced by Delta when the rows are written.

    Raises
    ------
    DataError
        Listing every column that differs, with both types.
    """
    expected = {field.name: field.dataType.simpleString() for field in contract(name).schema}
    got = {field.name: field.dataType.simpleString() for field in frame.schema}
    problems = [
        f"{column}: expected {kind}, got {got.get(column, 'nothing')}"
        for column, kind in expected.items()
        if got.get(column) != kind
    ]
    problems += [f"{column}: not in the contract" for column in got if column not in expected]
    if problems:
        raise DataError(f"table {name}: rows do not fit schemas/{name}.json: {'; '.join(problems)}")
    return frame.select(*[F.col(column) for column in expected])


def only_where(rows: DataFrame, condition: str) -> DataFrame:
    """The rows, of which one that does not fulfil a condition is an error when it is written."""
    if condition == "true":
        return rows
    first = rows.columns[0]
    error = F.raise_error(F.lit(f"DELTA_REPLACE_WHERE_MISMATCH: a row is not one of those that are replaced: {condition}"))
    return rows.withColumn(first, F.when(F.expr(condition), F.col(first)).otherwise(error))


def digest(rows: DataFrame) -> str:
    """The same for the same rows, in whatever order."""
    hashes = rows.select(F.xxhash64("*").cast("decimal(38,0)").alias("hash"))
    return str(hashes.agg(F.count("*"), F.sum("hash")).first())
