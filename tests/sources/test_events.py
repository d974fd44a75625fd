"""Logs of every format arrive as the same rows; what cannot be read is a problem of its own row, or the file is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from sources.log_files import IDS, NOON, ROW, csv_text, parquet, read, text

from metarec_spark.config.inputs import Source
from metarec_spark.errors import DataError, unreadable
from metarec_spark.sources.events import open_events
from metarec_spark.sources.files import list_files


def test_every_format_gives_the_same_rows(spark: SparkSession, tmp_path: Path):
    expected = [("u1", "i1", "shop", "click", NOON, "4.5")]
    table = parquet(tmp_path / "parquet" / "log.parquet", ROW)
    spark.read.parquet(table).write.format("delta").save(str(tmp_path / "delta"))
    assert read(spark, table) == expected
    assert read(spark, tmp_path / "delta", format="delta") == expected
    assert read(spark, text(tmp_path / "log.json", json.dumps(ROW)), format="json") == expected
    assert read(spark, text(tmp_path / "log.csv", csv_text(ROW)), format="csv") == expected


def test_names_are_mapped_and_numbers_become_ids(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "log.parquet", {"uid": 7, "sku.no": 8, "TS": NOON, "stars": 3, "kind": 1})
    columns = {"user_id": "uid", "item_id": "sku.no", "event_time": "ts", "value": "stars", "event_type": "kind"}
    assert read(spark, path, columns=columns, domain="shop") == [("7", "8", "shop", "1", NOON, "3.0")]


def test_nested_fields_are_named_by_dotted_paths(spark: SparkSession, tmp_path: Path):
    row = {"user": {"id": 7, "name": "x"}, "_id": {"$oid": "i"}, "event_time": NOON}
    mapped = {"user_id": "user.id", "item_id": "_id.$oid"}
    for path, form in ((parquet(tmp_path / "a.parquet", row), "parquet"), (text(tmp_path / "a.json", json.dumps(row)), "json")):
        assert read(spark, path, *IDS, format=form, columns=mapped, domain="shop") == [("7", "i", None)]
    with pytest.raises(DataError, match=r"column 'user' is an object; map user_id to one of user\.id, user\.name"):
        read(spark, tmp_path / "a.json", format="json", columns={"user_id": "user"}, domain="shop")


def test_csv_files_of_a_folder_are_read_by_their_own_headers(spark: SparkSession, tmp_path: Path):
    text(tmp_path / "a.csv", csv_text({"user_id": "u1", "item_id": '27" "x", y', "event_time": NOON}))
    text(
        tmp_path / "b.csv",
        csv_text({"item_id": "l1\nl2", "event_time": NOON, "more": "", "USER_ID": "José"}, separator=";"),
        "latin-1",
    )
    text(
        tmp_path / "ds=007" / "c.csv",
        csv_text({"event_type": "buy", "event_time": NOON, "user_id": "ß", "item_id": "é"}, separator="\t"),
        "utf-16",
    )
    (tmp_path / "2024" / "01").mkdir(parents=True)
    (tmp_path / "2024" / "01" / "d.csv.gz").write_bytes(gzip.compress(b"user_id|item_id|event_time\n101.0|NULL|20240110\n"))
    text(tmp_path / "empty.csv", "")
    text(tmp_path / "header.csv", "user_id,item_id,event_time\n")
    assert read(spark, tmp_path, "user_id", "item_id", "event_type", "problem", format="csv", domain="shop") == [
        ("101", None, "event", None),
        ("José", "l1\nl2", "event", None),
        ("u1", '27" "x", y', "event", None),
        ("ß", "é", "buy", None),
    ]


def test_csv_without_a_header_line_has_the_names_that_are_given(spark: SparkSession, tmp_path: Path):
    text(tmp_path / "u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t242\t3\n")
    given = {"format": "csv", "names": ["user_id", "item_id", "value", "event_time"], "domain": "films"}
    assert read(spark, tmp_path, "user_id", "item_id", "value", "problem", **given) == [
        ("186", "302", "3.0", None),
        ("196", "242", "3.0", None),
        (None, None, None, "bad_row"),
    ]


def test_broken_rows_are_problems_and_cost_no_other_row(spark: SparkSession, tmp_path: Path):
    good = "u1,i1,2024-01-10"
    broken = ["u2", "u3,i3,2024-01-10,more", '"u4"x,i4,2024-01-10', 'u5,"i5,2024-01-10', "user_id,item_id,event_time"]
    text(tmp_path / "a.csv", "\n".join(["user_id,item_id,event_time", good, *broken, good, ""]))
    rows = read(spark, tmp_path / "a.csv", *IDS, format="csv", domain="shop")
    assert rows == [*[("u1", "i1", None)] * 2, *[(None, None, "bad_row")] * 5]
    text(
        tmp_path / "a.json",
        "\n".join(
            [json.dumps(ROW), "{broken", "", "[1, 2]", '{"user_id": 1, "user_id": 2}', json.dumps(ROW | {"user_id": {"a": 1}})]
        ),
    )
    rows = read(spark, tmp_path / "a.json", *IDS, format="json")
    assert rows[0] == ("u1", "i1", None) and [row[2] for row in rows[1:]] == ["bad_row"] * 4


def test_json_in_lines_in_arrays_and_over_lines(spark: SparkSession, tmp_path: Path):
    rows = [ROW | {"user_id": f"u{i}"} for i in range(3)]
    text(tmp_path / "lines.json", "\n".join(map(json.dumps, rows)))
    text(tmp_path / "array.json", json.dumps(rows, indent=2), "utf-16")
    text(tmp_path / "one.json", json.dumps(rows))
    text(tmp_path / "values.json", "".join(json.dumps(row, indent=1) for row in rows))
    text(tmp_path / "none.json", "[]")
    assert read(spark, tmp_path, "user_id", format="json") == [(f"u{i}",) for i in range(3) for _ in range(4)]


def test_json_keys_count_whenever_they_first_appear(spark: SparkSession, tmp_path: Path):
    first = {name: ROW[name] for name in ("user_id", "item_id", "event_time")}
    text(tmp_path / "log.json", "\n".join(map(json.dumps, [*[first] * 9000, ROW | {"User_ID": "other"}])))
    rows = read(spark, tmp_path / "log.json", "event_type", "value", format="json", domain="shop", columns={"value": "rating"})
    assert rows.count(("event", None)) == 9000 and rows.count(("click", "4.5")) == 1


def test_json_that_is_cut_short_is_told(spark: SparkSession, tmp_path: Path):
    path = text(tmp_path / "log.json", json.dumps([ROW, ROW])[:-1] + " " * 300_000)
    with pytest.raises(Exception, match="cut short") as error:
        read(spark, path, format="json")
    assert unreadable(error.value) == f"file:{path}: ends within an array: it was cut short"


def test_folders_are_text_and_may_change_their_depth(spark: SparkSession, tmp_path: Path):
    for folder, name in (("dt=007", "a"), ("dt=2024-01-10", "b"), ("dt=a%2Fb c/hour=3", "c")):
        parquet(tmp_path / folder / f"{name}.parquet", ROW | {"user_id": name})
        text(tmp_path / "csv" / folder / f"{name}.csv", csv_text(ROW | {"user_id": name}))
    expected = [("a", "007"), ("b", "2024-01-10"), ("c", "a/b c")]
    columns = {"event_type": "dt"}
    rows = read(spark, f"{tmp_path}/dt=*", "user_id", "event_type", columns=columns)
    assert rows == expected == read(spark, tmp_path / "csv", "user_id", "event_type", format="csv", columns=columns)


@pytest.mark.parametrize("day", ["2024-01-10", "20240110", "2024_01_10"])
def test_the_day_column_says_when_a_row_arrived(spark: SparkSession, tmp_path: Path, day: str):
    text(tmp_path / f"ds={day}" / "a.csv", csv_text(ROW) + "broken\n")
    text(tmp_path / "ds=x" / "a.csv", csv_text(ROW))
    rows = read(spark, tmp_path, "arrival", "problem", format="csv", day_column="ds")
    assert rows == sorted([("2024-01-10", None), ("2024-01-10", "bad_row"), (None, "bad_day")], key=str)


def test_a_namespace_is_put_before_users_but_not_before_nobody(spark: SparkSession, tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", ROW, ROW | {"user_id": None}, ROW | {"user_id": " "})
    assert read(spark, path, "user_id", user_namespace="shop") == [("shop:u1",), (None,), (None,)]


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"user_id": datetime(2024, 1, 1)}, {}, "column 'user_id' is timestamp_ntz; user_id must be text or whole numbers"),
        ({"when": True}, {"columns": {"event_time": "when"}}, "column 'when' is boolean; event_time must be a timestamp, a date"),
        ({"rating": [1]}, {}, "column 'rating' is array<bigint>; value must be a number"),
        ({"event_type": [1]}, {}, "column 'event_type' is array<bigint>; event_type must be text"),
        ({}, {"columns": {"user_id": "uid"}}, "no column 'uid' among user_id, item_id"),
        ({}, {"day_column": "ds"}, "no column 'ds' among user_id"),
        (
            {"User_ID": 1, "USER_ID": 2},
            {"columns": {"user_id": "user_iD"}},
            "'user_iD' may be 'user_id' or 'User_ID' or 'USER_ID'",
        ),
    ],
)
def test_a_column_that_cannot_be_used_is_told(spark: SparkSession, tmp_path: Path, row: dict, settings: dict, message: str):
    path = parquet(tmp_path / "log.parquet", ROW | row)
    with pytest.raises(DataError) as error:
        open_events(spark, Source(path=path, **settings), 2)
    assert str(error.value).startswith(f"sources[2] {path}: file:{path}: ") and message in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("userid", "did you mean columns = { user_id = 'userid' }?"), ("person", "map it: columns = { user_id = ")],
)
@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_a_missing_column_is_told_with_its_file_and_the_nearest(
    spark: SparkSession, tmp_path: Path, name: str, hint: str, form: str
):
    write: dict[str, Callable[[Path, dict], str]] = {
        "parquet": parquet,
        "csv": lambda file, row: text(file, csv_text(row)),
        "json": lambda file, row: text(file, json.dumps(row)),
    }
    path = write[form](tmp_path / f"log.{form}", {name: "u1", "item": "i1", "event_time": NOON})
    with pytest.raises(DataError) as error:
        open_events(spark, Source(path=path, format=form, domain="shop"), 0)
    assert f"file:{path}: no column 'user_id' among {name}, item, event_time" in str(error.value) and hint in str(error.value)


@pytest.mark.parametrize("form", ["parquet", "json", "csv", "delta"])
@pytest.mark.parametrize("make", [Path.mkdir, Path.exists], ids=["an empty folder", "nothing"])
def test_a_source_without_files_is_told(spark: SparkSession, tmp_path: Path, form: str, make: Callable[[Path], object]):
    make(tmp_path / "log")
    with pytest.raises(DataError, match=rf"sources\[0\] {tmp_path}/log: cannot be read as {form}: no .*; check path and format"):
        open_events(spark, Source(path=f"{tmp_path}/log", format=form), 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.parquet", "is not a Parquet file"), ("a.csv", "is Parquet, not text"), ("a.csv.gz", "not a gzip file")],
)
def test_a_file_of_another_format_is_told(spark: SparkSession, tmp_path: Path, name: str, message: str):
    (tmp_path / name).write_bytes(b"PAR1 and more")
    with pytest.raises(DataError, match=message) as error:
        open_events(spark, Source(path=str(tmp_path), format="parquet" if "parquet" in name else "csv", domain="shop"), 0)
    assert f"file:{tmp_path}/{name}" in str(error.value)


def test_a_row_says_which_file_it_is_from(spark: SparkSession, tmp_path: Path):
    names = ["a b+c%20é.json", "ds=2024-01-10/[b],{c}.json", "100%/x.json"]
    for name in names:
        text(tmp_path / "json" / name, json.dumps(ROW | {"user_id": name}))
        parquet(tmp_path / "parquet" / name.replace(".json", ".parquet"), ROW | {"user_id": name})
    for form in ("json", "parquet"):
        files = [file.path for file in list_files(spark, f"{tmp_path}/{form}")]
        source = Source(path=f"{tmp_path}/{form}", format=form)
        rows = dict(open_events(spark, source, 0, files).select("file", "user_id").collect())
        assert rows == {f"file:{tmp_path}/{form}/{name.replace('.json', f'.{form}')}": name for name in names}
        assert [row[0] for row in open_events(spark, source, 0, files[:1]).select("file").collect()] == files[:1]
    with pytest.raises(DataError, match="no such file; was it removed"):
        open_events(spark, source, 0, [f"file:{tmp_path}/gone"])


def test_hidden_files_are_no_data(spark: SparkSession, tmp_path: Path):
    for name in ("_SUCCESS", ".a.json", "_temporary/a.json", "a.json._COPYING_"):
        text(tmp_path / name, "no data")
    text(tmp_path / "a.json", json.dumps(ROW))
    assert [file.path for file in list_files(spark, str(tmp_path))] == [f"file:{tmp_path}/a.json"]
