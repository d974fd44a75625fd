"""The contracts in schemas/, and conforming rows to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, StructField, StructType

from metarec_spark.columns import ALL
from metarec_spark.errors import DataError
from metarec_spark.warehouse.contracts import conform, contract


def fields(schema: StructType) -> Iterator[StructField]:
    for field in schema:
        yield field
        kind = field.dataType.elementType if isinstance(field.dataType, ArrayType) else field.dataType
        if isinstance(kind, StructType):
            yield from fields(kind)


def test_every_table_has_a_contract_and_every_contract_a_table():
    files = (Path(__file__).parents[2] / "schemas").glob("*.json")
    assert sorted(file.stem for file in files) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_contract_says_what_each_column_holds(name: str):
    spec = contract(name)
    assert spec.name == name and spec.description.endswith(".")
    assert not [field.name for field in fields(spec.schema) if not field.metadata.get("comment")]
    assert {*spec.key, *spec.partition_by} <= set(spec.schema.names)
    assert not [field.name for field in spec.schema if field.name in spec.key and field.nullable]


def test_conforming_gives_the_contracts_columns_in_its_order(spark: SparkSession):
    shuffled = spark.createDataFrame([], contract("items").schema).select(
        "events", "last_day", "item_id", "first_day", "domain", "item_idx"
    )
    assert conform(shuffled, "items").columns == contract("items").schema.names


def test_every_column_that_differs_is_told_with_both_types(spark: SparkSession):
    rows = spark.createDataFrame(
        [], "item_idx bigint, domain string, item_id string, events bigint, first_day date, colour string"
    )
    with pytest.raises(DataError) as error:
        conform(rows, "items")
    said = str(error.value)
    assert said.startswith("table items: rows do not fit schemas/items.json: ")
    assert "item_idx: expected int, got bigint" in said
    assert "last_day: expected date, got nothing" in said
    assert "colour: not in the contract" in said
    assert "events:" not in said


def test_a_nested_type_that_differs_is_told(spark: SparkSession):
    rows = spark.createDataFrame([], "item_idx int, domain string, successors array<struct<item_idx:int,weight:float>>")
    with pytest.raises(
        DataError, match="successors: expected array<struct<item_idx:int,domain:string,weight:float,.*>>, got array"
    ):
        conform(rows, "item_transitions")
