"""Logs of every format arrive as the same rows, and what cannot be read is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.sections import ItemSource, Source
from metarec_spark.errors import DataError
from metarec_spark.sources import list_files, open_events, open_items

NOON = "2024-01-10 12:00:00"
ROW = {"user_id": "u1", "item_id": "i1", "domain": "shop", "event_type": "click", "event_time": NOON, "rating": 4.5}


def parquet(folder: Path, *rows: dict) -> str:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "log.parquet")
    return str(folder)


def lines(file: Path, *texts: str) -> str:
    file.write_text("".join(f"{text}\n" for text in texts))
    return str(file)


def read(spark: SparkSession, path: str, *columns: str, **settings: object) -> list[tuple]:
    """The columns of a source's rows, as text."""
    frame = open_events(spark, Source(path=path, **settings), 0)
    shown = frame.select(
        *[F.col(name).cast("string") for name in columns or ("user_id", "item_id", "domain", "event_type", "event_time", "value")]
    )
    return sorted((tuple(row) for row in shown.collect()), key=str)


def test_every_format_gives_the_same_rows(spark: SparkSession, tmp_path: Path):
    expected = [("u1", "i1", "shop", "click", NOON, "4.5")]
    table = parquet(tmp_path / "parquet", ROW)
    spark.read.parquet(table).write.format("delta").save(str(tmp_path / "delta"))
    csv = lines(tmp_path / "log.csv", ",".join(ROW), ",".join(str(value) for value in ROW.values()))
    assert read(spark, table) == expected
    assert read(spark, str(tmp_path / "delta"), format="delta") == expected
    assert read(spark, lines(tmp_path / "log.json", json.dumps(ROW)), format="json") == expected
    assert read(spark, csv, format="csv") == expected


def test_names_are_mapped_and_numbers_become_ids(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "log", {"uid": 7, "sku.no": 8, "ts": NOON, "stars": 3, "kind": 1})
    columns = {"user_id": "uid", "item_id": "sku.no", "event_time": "ts", "value": "stars", "event_type": "kind"}
    assert read(spark, path, columns=columns, domain="shop") == [("7", "8", "shop", "1", NOON, "3.0")]


def test_optional_columns_may_be_missing(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "log", {"user_id": "u1", "item_id": "i1", "event_time": NOON})
    assert read(spark, path, "event_type", "value", "arrival", "source", domain="shop") == [("event", None, None, "0:parquet")]


def test_a_namespace_is_put_before_users_but_not_before_nobody(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "log", ROW, ROW | {"user_id": None}, ROW | {"user_id": " "})
    assert read(spark, path, "user_id", user_namespace="shop") == [("shop:u1",), (None,), (None,)]


def test_the_day_column_says_when_a_row_arrived(spark: SparkSession, tmp_path: Path):
    for day in ("2024-01-10", "2024-01-11"):
        parquet(tmp_path / f"ds={day}", ROW)
    assert read(spark, str(tmp_path), "arrival", day_column="ds") == [("2024-01-10",), ("2024-01-11",)]


@pytest.mark.parametrize("format", ["parquet", "json", "csv"])
@pytest.mark.parametrize(
    ("unit", "number", "time"),
    [
        ("s", 1_704_888_000, NOON),
        ("ms", 1_704_888_000_123, f"{NOON}.123"),
        ("us", 1_704_888_000_123_457, f"{NOON}.123457"),
    ],
)
def test_numeric_times_count_from_1970_in_their_unit(
    spark: SparkSession, tmp_path: Path, format: str, unit: str, number: int, time: str
):
    row = ROW | {"event_time": number}
    written = {
        "parquet": lambda: parquet(tmp_path / "log", row),
        "json": lambda: lines(tmp_path / "log.json", json.dumps(row)),
        "csv": lambda: lines(tmp_path / "log.csv", ",".join(row), ",".join(str(value) for value in row.values())),
    }
    path = written[format]()
    assert read(spark, path, "event_time", "time_text", format=format, time_unit=unit) == [(time, str(number))]


def test_times_are_read_from_text_or_are_none(spark: SparkSession, tmp_path: Path):
    given = {
        "2024-01-10T12:00:00Z": NOON,
        "2024-01-10T13:00:00+01:00": NOON,
        "2024-01-10": "2024-01-10 00:00:00",
        "1969-12-31 23:59:59": None,
        "20240110": None,
        "yesterday": None,
        "": None,
    }
    path = parquet(tmp_path / "log", *[ROW | {"event_time": text} for text in given])
    assert dict(read(spark, path, "time_text", "event_time")) == given


def test_a_time_that_arrives_as_one_has_a_text_only_where_it_is_none(spark: SparkSession, tmp_path: Path):
    times = [datetime(2024, 1, 10, 12, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]
    path = parquet(tmp_path / "log", *[ROW | {"event_time": time} for time in times])
    assert read(spark, path, "event_time", "time_text") == [(NOON, None), (None, "1969-12-31 00:00:00")]


def test_numbers_that_are_no_time_are_none(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "log", *[ROW | {"event_time": number} for number in (-1, 2**62, None)])
    assert [row[0] for row in read(spark, path, "event_time")] == [None] * 3


def test_a_value_that_is_no_number_is_none(spark: SparkSession, tmp_path: Path):
    path = lines(tmp_path / "log.json", *[json.dumps(ROW | {"rating": rating}) for rating in (3, "4", "good")])
    assert read(spark, path, "value", format="json") == [("3.0",), ("4.0",), (None,)]


def test_odd_json_lines_change_no_other_row(spark: SparkSession, tmp_path: Path):
    odd = ["{broken", "", "[1, 2]", json.dumps(ROW | {"user_id": 5, "more": {"a": 1}}), json.dumps(ROW | {"item_id": True})]
    path = lines(tmp_path / "log.json", json.dumps(ROW), *odd)
    users = [row for row in read(spark, path, "user_id", "item_id", "event_time", format="json") if row[0]]
    assert users == [("5", "i1", NOON), ("u1", "i1", NOON), ("u1", "true", NOON)]


def test_a_broken_json_line_is_a_row_to_reject(spark: SparkSession, tmp_path: Path):
    path = lines(tmp_path / "log.json", json.dumps(ROW), "{broken")
    assert read(spark, path, "user_id", "event_time", format="json") == [("u1", NOON), (None, None)]


@pytest.mark.parametrize(
    ("row", "settings", "said"),
    [
        (
            {"user_id": 1.5},
            {},
            "column 'user_id' is double; user_id must be one of string, byte, short, integer, long: map another column or convert it",
        ),
        ({"when": 1.5}, {"columns": {"event_time": "when"}}, "column 'when' is double; event_time must be one of timestamp"),
        ({"rating": [1]}, {}, "column 'rating' is array<bigint>; rating must be one of"),
        ({"event_type": [1]}, {}, "column 'event_type' is array<bigint>; event_type must be one of string"),
        ({}, {"columns": {"user_id": "uid"}}, "no column 'uid' among user_id, item_id"),
        ({}, {"day_column": "ds"}, "no column 'ds' among user_id"),
    ],
)
def test_a_column_that_cannot_be_used_is_told(spark: SparkSession, tmp_path: Path, row: dict, settings: dict, said: str):
    path = parquet(tmp_path / "log", ROW | row)
    with pytest.raises(DataError) as error:
        open_events(spark, Source(path=path, **settings), 2)
    assert str(error.value).startswith(f"sources[2] {path}: ") and said in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "hint"),
    [("userid", "did you mean columns = { user_id = 'userid' }?"), ("person", "map it: columns = { user_id = ")],
)
def test_a_missing_column_is_told_with_the_nearest(spark: SparkSession, tmp_path: Path, theirs: str, hint: str):
    path = parquet(tmp_path / "log", {theirs: "u1", "item": "i1", "event_time": NOON})
    with pytest.raises(DataError) as error:
        open_events(spark, Source(path=path, domain="shop"), 0)
    assert f"no column 'user_id' among {theirs}, item, event_time" in str(error.value) and hint in str(error.value)


@pytest.mark.parametrize("format", ["parquet", "json", "csv", "delta"])
def test_a_missing_source_is_told(spark: SparkSession, tmp_path: Path, format: str):
    with pytest.raises(
        DataError, match=rf"sources\[0\] {tmp_path}/none: cannot be read as {format}: no .*; check path and format"
    ):
        open_events(spark, Source(path=f"{tmp_path}/none", format=format), 0)


@pytest.mark.parametrize(
    ("format", "said"),
    [("parquet", "no parquet data in it"), ("json", "no JSON objects in it"), ("delta", "no Delta table there")],
)
def test_an_empty_folder_is_told(spark: SparkSession, tmp_path: Path, format: str, said: str):
    with pytest.raises(DataError, match=said):
        open_events(spark, Source(path=str(tmp_path), format=format), 0)


def test_an_empty_folder_of_csv_lacks_its_columns(spark: SparkSession, tmp_path: Path):
    with pytest.raises(DataError, match="sources"):
        open_events(spark, Source(path=str(tmp_path), format="csv"), 0)


def test_item_information_is_read_without_rows_that_name_no_item(spark: SparkSession, tmp_path: Path):
    full = {"id": 1, "domain": "shop", "title": "Red Shoe", "attributes": ["red"], "content": [0.5, 1.0]}
    path = parquet(tmp_path / "items", full, full | {"id": None}, full | {"domain": " "})
    (row,) = open_items(spark, ItemSource(path=path, columns={"item_id": "id"}), 0).collect()
    assert tuple(row) == ("shop", "1", "Red Shoe", ["red"], [0.5, 1.0])


def test_item_information_may_be_the_ids_alone(spark: SparkSession, tmp_path: Path):
    (row,) = open_items(spark, ItemSource(path=parquet(tmp_path / "items", {"item_id": "i"}), domain="shop"), 0).collect()
    assert tuple(row) == ("shop", "i", None, None, None)


def test_item_information_of_a_wrong_type_is_told(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "items", {"item_id": "i", "attributes": "red, blue"})
    with pytest.raises(DataError, match=r"items\[0\] .*: column 'attributes' is string; attributes must be one of array"):
        open_items(spark, ItemSource(path=path, domain="shop"), 0)


def test_a_row_says_which_file_it_is_from(spark: SparkSession, tmp_path: Path):
    for name in ("a b+c%20é.json", "ds=2024-01-10/b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        lines(tmp_path / name, json.dumps(ROW | {"user_id": name}))
    files = [file.path for file in list_files(spark, str(tmp_path))]
    source = Source(path=str(tmp_path), format="json")
    found = dict(open_events(spark, source, 0, files).select("file", "user_id").collect())
    assert found == {f"file:{tmp_path}/{name}": name for name in ("a b+c%20é.json", "ds=2024-01-10/b.json")}
    assert [row[0] for row in open_events(spark, source, 0, files[:1]).select("file").collect()] == files[:1]
