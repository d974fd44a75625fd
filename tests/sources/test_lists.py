"""Lists of items are whole: their rows are read as logs are, and one that cannot be read stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from metarec_spark import config
from metarec_spark.config.inputs import Cap, ItemList
from metarec_spark.errors import DataError
from metarec_spark.sources.events import open_events
from metarec_spark.sources.items import open_information
from metarec_spark.sources.lists import open_groups, open_list


def rows(spark: SparkSession, path: Path, content: str) -> list[tuple]:
    path.write_text(content)
    frame = open_list(spark, ItemList(path=str(path), format="csv", domain="shop"), "block[0]")
    return sorted(tuple(row) for row in frame.select("item_id", "listed").collect())


def test_quotes_and_numbers_are_those_of_the_log(spark: SparkSession, tmp_path: Path):
    content = 'item_id;listed\n"27"" monitor, 4K";yes\n101.0;1.0\nb;0\nNULL;1\n'
    assert rows(spark, tmp_path / "a.csv", content) == [("101", True), ('27" monitor, 4K', True), ("b", False)]
    assert rows(spark, tmp_path / "b.csv", "item_id\na\nb\n") == [("a", True), ("b", True)]


@pytest.mark.parametrize(
    ("content", "problem"), [('item_id,listed\n"a"b,1\n', "bad_row"), ("item_id,listed\na,b,1\n", "bad_row")]
)
def test_a_row_that_cannot_be_read_stops(spark: SparkSession, tmp_path: Path, content: str, problem: str):
    with pytest.raises(DataError, match=rf"block\[0\]: file:{tmp_path}/a.csv: 1 rows cannot be read \({problem}\)"):
        rows(spark, tmp_path / "a.csv", content)


def test_logs_items_and_lists_name_a_platform_by_one_name(spark: SparkSession, tmp_path: Path):
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,domain,event_time\nu,a,store,2024-01-05\nu,b,web,2024-01-05\nu,c,,2024-01-05\n"
    )
    (tmp_path / "items.csv").write_text("item_id,domain,title\na,store,A\nb,shop,B\n")
    (tmp_path / "block.csv").write_text("item_id\na\n")
    both = {"format": "csv"}
    settings = config.parse(
        {
            "warehouse": str(tmp_path / "warehouse"),
            "platforms": {"alias": {"store": "shop", "web": "shop"}},
            "sources": [both | {"path": str(tmp_path / "log.csv")}],
            "items": [both | {"path": str(tmp_path / "items.csv")}],
            "block": [both | {"path": str(tmp_path / "block.csv"), "domain": "store"}],
        }
    )
    opened = (
        open_events(spark, settings.sources[0], 0),
        open_information(spark, settings.items),
        open_list(spark, settings.block[0], "block[0]"),
    )
    names = [sorted((row.item_id, row.domain) for row in rows.select("item_id", "domain").collect()) for rows in opened]
    assert names == [[("a", "shop"), ("b", "shop"), ("c", "")], [("a", "shop"), ("b", "shop")], [("a", "shop")]]


def test_groups_are_texts_numbers_or_lists(spark: SparkSession, tmp_path: Path):
    (tmp_path / "a.json").write_text(
        '{"item_id": 1.0, "group": ["x", ["y"]]}\n{"item_id": "2", "group": 7.0}\n{"item_id": "3", "group": null}\n{"item_id": "4", "group": "a|b"}'
    )
    groups = open_groups(spark, Cap(path=str(tmp_path / "a.json"), format="json", domain="shop", at_most=1), "cap[0]")
    assert sorted((row.item_id, row.group) for row in groups.collect()) == [("1", "x"), ("1", "y"), ("2", "7"), ("4", "a|b")]
