"""Item files are read as logs are, and what several rows say of an item is joined field by field."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from metarec_spark.config.inputs import ItemSource
from metarec_spark.errors import DataError, unreadable
from metarec_spark.sources.items import open_information, open_items, unescaped

FULL = {"item_id": 1, "domain": "shop", "title": "Red Shoe", "attributes": ["red"], "content": [0.5, 1.0]}
FIELDS = ("domain", "item_id", "title", "attributes", "content")


def parquet(file: Path, *rows: dict) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return str(file)


def items(spark: SparkSession, path: str, **settings: object) -> list[tuple]:
    return sorted(
        (tuple(row) for row in open_items(spark, ItemSource(path=path, **settings), 0).select(*FIELDS).collect()), key=str
    )


def test_rows_that_name_no_item_are_left_out(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", FULL, FULL | {"item_id": None}, FULL | {"domain": " "})
    assert items(spark, path) == [("shop", "1", "Red Shoe", ["red"], [0.5, 1.0])]
    assert items(spark, parquet(tmp_path / "b.parquet", {"item_id": "i"}), domain="shop") == [("shop", "i", None, None, None)]


def test_lists_of_lists_numbers_and_texts(spark: SparkSession, tmp_path: Path):
    nested = {"item_id": 1.0, "attributes": [["Clothing", "Shoes"], [None, "A &amp; B"]], "content": [1, 2.5]}
    expected = [("shop", "1", None, ["Clothing", "Shoes", "A & B"], [1.0, 2.5])]
    assert items(spark, parquet(tmp_path / "a.parquet", nested), domain="shop") == expected
    (tmp_path / "a.json").write_text(json.dumps(nested | {"content": "[1, 2.5]"}))
    assert items(spark, str(tmp_path / "a.json"), format="json", domain="shop") == expected
    (tmp_path / "a.csv").write_text('item_id,title,attributes,content\n1.0,NULL,Clothing| Shoes||A &amp; B,"[1, 2.5]"\n')
    assert items(spark, str(tmp_path / "a.csv"), format="csv", domain="shop", attribute_separator="|") == expected
    text = {"item_id": "1", "attributes": "Clothing|Shoes|A &amp; B", "content": [1.0, 2.5]}
    assert items(spark, parquet(tmp_path / "b.parquet", text), domain="shop", attribute_separator="|") == expected


def test_attributes_in_one_text_need_a_separator(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", {"item_id": "i", "attributes": "Action|Comedy"})
    with pytest.raises(DataError, match=r"column 'attributes' is string; attributes must be a list .* attribute_separator"):
        open_items(spark, ItemSource(path=path, domain="shop"), 0)
    (tmp_path / "a.csv").write_text("item_id,attributes\ni,Action|Comedy\n")
    with pytest.raises(Exception, match="attribute_separator") as error:
        items(spark, str(tmp_path / "a.csv"), format="csv", domain="shop")
    assert "a.csv: column 'attributes' holds the text 'Action|Comedy': set attribute_separator" in str(unreadable(error.value))


def test_entities_are_characters():
    texts = {
        "AT&amp;T &lt;3 &#233;&#xe9; &quot;x&quot;": 'AT&T <3 éé "x"',
        "Tom&notes R&D a & b;": "Tom&notes R&D a & b;",
        "&bogus;": "&bogus;",
    }
    assert {text: unescaped(text) for text in texts} == texts


def test_sources_are_joined_field_by_field(spark: SparkSession, tmp_path: Path):
    titles = parquet(tmp_path / "a.parquet", {"item_id": "1", "title": "A"}, {"item_id": "2", "title": None})
    more = parquet(
        tmp_path / "b.parquet", {"item_id": "1", "title": "B", "content": [1.0]}, {"item_id": "2", "title": "C", "content": None}
    )
    rows = open_information(spark, [ItemSource(path=path, domain="shop") for path in (titles, more)]).orderBy("item_id").collect()
    assert [tuple(row) for row in rows] == [("shop", "1", "A", None, [1.0], True), ("shop", "2", "C", None, None, False)]


def test_the_fuller_row_counts_and_then_the_newer(spark: SparkSession, tmp_path: Path):
    folder = tmp_path / "items"
    folder.mkdir()
    old = [{"item_id": "1", "title": "old", "content": [1.0]}, {"item_id": "2", "title": "old", "content": [1.0]}]
    new = [{"item_id": "1", "title": "new", "content": None}, {"item_id": "2", "title": "new", "content": [2.0]}]
    parquet(folder / "z.parquet", *old)
    parquet(folder / "a.parquet", *new)
    os.utime(folder / "z.parquet", (1_600_000_000, 1_600_000_000))
    rows = open_information(spark, [ItemSource(path=str(folder), domain="shop")]).orderBy("item_id").collect()
    assert [(row.title, row.content, row.conflict) for row in rows] == [("old", [1.0], True), ("new", [2.0], True)]


def test_attributes_and_numbers_in_columns_of_their_own(spark: SparkSession, tmp_path: Path):
    more = {"attribute_columns": ["brand", "Genres", "year"], "number_columns": ["price"]}
    rows = [
        {"item_id": "1", "attributes": ["new"], "brand": "A & B", "genres": ["x", None, "y"], "year": 1999, "price": 10.0},
        {"item_id": "2", "attributes": None, "brand": "NULL", "genres": None, "year": None, "price": -0.5},
        {"item_id": "3", "attributes": None, "brand": " ", "genres": [], "year": None, "price": float("nan")},
        {"item_id": "4", "attributes": None, "brand": None, "genres": None, "year": None, "price": 0.0},
    ]
    expected = {
        "1": ["new", "brand=A & B", "Genres=x", "Genres=y", "year=1999", "price~2^3.0", "price~2^3.5"],
        "2": ["price~-2^-1.0", "price~-2^-0.5"],
        "3": None,
        "4": ["price~0"],
    }
    found = items(spark, parquet(tmp_path / "a.parquet", *rows), domain="shop", **more)
    assert {row[1]: row[3] for row in found} == expected
    (tmp_path / "a.csv").write_text("item_id,brand,genres,year,price\n1,A &amp; B,x|y,1999,10\n2,,,,9.99\n")
    found = items(spark, str(tmp_path / "a.csv"), format="csv", domain="shop", attribute_separator="|", **more)
    assert {row[1]: row[3] for row in found} == {"1": expected["1"][1:], "2": ["price~2^3.0", "price~2^3.5"]}
    (tmp_path / "a.json").write_text('{"item_id": 1, "brand": "A & B", "genres": ["x", "y"], "year": 1999, "price": 10}')
    found = items(spark, str(tmp_path / "a.json"), format="json", domain="shop", **more)
    assert [row[3] for row in found] == [expected["1"][1:]]
    with pytest.raises(DataError, match="no column 'colour' among item_id, attributes, brand"):
        items(spark, str(tmp_path / "a.parquet"), domain="shop", attribute_columns=["colour"])
