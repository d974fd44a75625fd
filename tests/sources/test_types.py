"""Ids, times and values mean the same whatever their type, or they are told apart."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from sources.log_files import IDS, NOON, ROW, parquet, read, text

from metarec_spark.config.inputs import Source
from metarec_spark.sources.events import open_events


def test_ids_are_the_same_text_whatever_the_type(spark: SparkSession, tmp_path: Path):
    kinds = [
        pa.int8(),
        pa.int32(),
        pa.int64(),
        pa.uint64(),
        pa.float32(),
        pa.float64(),
        pa.decimal128(38, 0),
        pa.decimal128(10, 2),
    ]
    for i, kind in enumerate(kinds):
        value = Decimal(101) if pa.types.is_decimal(kind) else 101
        parquet(tmp_path / f"{i}.parquet", ROW | {"user_id": value}, ROW | {"user_id": None}, types={"user_id": kind})
    others = {"s": pa.string(), "l": pa.large_string(), "b": pa.binary(), "d": pa.dictionary(pa.int32(), pa.string())}
    for name, kind in others.items():
        array = pa.array(["101", None]).dictionary_encode() if name == "d" else pa.array(["101", None]).cast(kind)
        pq.write_table(
            pa.table({"user_id": array, "item_id": ["i", "i"], "event_time": [NOON, NOON], "domain": ["s", "s"]}),
            tmp_path / f"{name}.parquet",
        )
    assert read(spark, tmp_path, "user_id", "problem") == sorted([("101", None), (None, None)] * 12, key=str)


def test_numbers_that_are_no_ids_are_problems(spark: SparkSession, tmp_path: Path):
    parquet(tmp_path / "a.parquet", *[ROW | {"user_id": n} for n in (1.5, 2.0**53, float("nan"), 2.0**53 - 1)])
    assert read(spark, tmp_path, "user_id", "problem") == sorted(
        [(None, "bad_id")] * 2 + [(None, None), ("9007199254740991", None)], key=str
    )
    text(tmp_path / "a.json", "\n".join(json.dumps(ROW | {"user_id": n}) for n in (1.5, 101.0, 2**70, "101.0", True)))
    rows = [("101", None), ("101.0", None), (str(2**70), None), (None, "bad_id"), ("true", None)]
    assert read(spark, tmp_path / "a.json", "user_id", "problem", format="json") == sorted(rows, key=str)
    text(tmp_path / "a.csv", "user_id,item_id,event_time\n101.0,1.10,2024-01-10\n1.23457E+11,007.0,2024-01-10\n")
    rows = [("101", "1.10", None), (None, "007.0", "bad_id")]
    assert read(spark, tmp_path / "a.csv", *IDS, format="csv", domain="shop") == sorted(rows, key=str)


def test_ids_whose_bytes_are_no_text_are_problems(spark: SparkSession, tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("user_id,item_id,event_time\nJosé,Ünï,2024-01-10\n".encode() + b"Jos\xe9,i,2024-01-10\n")
    rows = [("José", "Ünï", None), ("Jos\ufffd", "i", "bad_encoding")]
    assert read(spark, tmp_path / "a.csv", *IDS, format="csv", domain="shop") == sorted(rows, key=str)
    parquet(tmp_path / "a.parquet", ROW | {"user_id": b"\xff"})
    assert read(spark, tmp_path / "a.parquet", "user_id", "problem") == [("\ufffd", "bad_encoding")]


def test_words_for_nothing_are_nothing(spark: SparkSession, tmp_path: Path):
    words = ["NULL", "\\N", "None", "nan", "NaN", "N/A", "null", "<NA>", "undefined", " null ", "-"]
    path = parquet(tmp_path / "a.parquet", *[ROW | {"user_id": word} for word in words], ROW | {"user_id": "Nullarbor"})
    assert read(spark, path, "user_id") == sorted([("Nullarbor",), *[(None,)] * len(words)], key=str)
    assert ("NULL",) in read(spark, path, "user_id", null_values=[])


def test_times_of_every_type_are_utc(spark: SparkSession, tmp_path: Path):
    noon, naive = datetime(2024, 1, 10, 12, tzinfo=UTC), datetime(2024, 1, 10, 13)
    counts = [1_704_888_000 * per_second for per_second in (1, 10**3, 10**6, 10**9)]
    files: dict[str, tuple[object, pa.DataType | None]] = {
        "us": (noon, pa.timestamp("us", "UTC")), "ns": (noon, pa.timestamp("ns", "UTC")), "ms": (noon, pa.timestamp("ms", "UTC")),
        "naive": (naive, pa.timestamp("us")), "naive_ns": (naive, pa.timestamp("ns")),
        "float": (1_704_888_000.0, None), "decimal": (Decimal("1704888000.000"), None), "text": ("2024-01-10 13:00:00", None),
        **{f"count{count}": (count, None) for count in counts}, "digits": (20240110130000, None),
    }  # fmt: skip
    for name, (value, kind) in files.items():
        parquet(
            tmp_path / f"{name}.parquet",
            ROW | {"user_id": name, "event_time": value},
            types={"event_time": kind} if kind else None,
        )
    rows = read(spark, tmp_path, "user_id", "event_time", time_zone="Europe/Berlin")
    assert rows == [(name, NOON) for name in sorted(files)]


def test_times_of_pandas_and_spark(spark: SparkSession, tmp_path: Path):
    times = pd.to_datetime(["2024-01-10 12:00:00.123456789", None])
    pd.DataFrame({"user_id": [1.0, 2.0], "item_id": pd.Categorical(["a", "b"]), "event_time": times}, index=[5, 6]).to_parquet(
        tmp_path / "a.parquet"
    )
    table = pa.table({"user_id": [3], "item_id": ["c"], "event_time": pa.array([datetime(2024, 1, 10, 12)], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "b.parquet", use_deprecated_int96_timestamps=True)
    rows = read(spark, tmp_path, "user_id", "item_id", "event_time", domain="shop")
    assert rows == [("1", "a", f"{NOON}.123456"), ("2", "b", None), ("3", "c", NOON)]


def test_whole_days_are_read_as_days(spark: SparkSession, tmp_path: Path):
    for name, value in {"date": date(2024, 1, 10), "int": 20240110, "float": 20240110.0, "text": "20240110"}.items():
        parquet(tmp_path / f"{name}.parquet", ROW | {"event_time": value})
    assert read(spark, tmp_path, "event_time") == [("2024-01-10 00:00:00",)] * 4


def test_a_time_before_the_first_day_is_none(spark: SparkSession, tmp_path: Path):
    times = ["1994-12-31 23:59:59", "1995-01-01 00:00:00", "1970-01-20 17:34:48"]
    path = parquet(tmp_path / "a.parquet", *[ROW | {"event_time": time} for time in times])
    assert read(spark, path, "event_time", "time_text") == sorted(
        [(None, times[0]), (times[1], times[1]), (None, times[2])], key=str
    )
    early = open_events(spark, Source(path=path), 0, first_day=date(1970, 1, 1))
    assert early.where("event_time IS NULL").isEmpty()


def test_a_unit_that_is_set_is_taken_at_its_word(spark: SparkSession, tmp_path: Path):
    numbers = [1_704_888_000, 1_704_888_000_000, -1, 2**62, 20240110]
    path = parquet(tmp_path / "a.parquet", *[ROW | {"event_time": number} for number in numbers])
    assert [row for row in read(spark, path, "event_time", time_unit="ms") if row[0]] == [(NOON,)]


def test_a_time_that_arrives_as_one_has_a_text_only_if_it_is_none(spark: SparkSession, tmp_path: Path):
    times = [datetime(2024, 1, 10, 12, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]
    path = parquet(tmp_path / "a.parquet", *[ROW | {"event_time": time} for time in times])
    assert read(spark, path, "event_time", "time_text") == [(NOON, None), (None, "1969-12-31 00:00:00")]


def test_values_are_numbers_or_none(spark: SparkSession, tmp_path: Path):
    ratings = {3: "3.0", "4": "4.0", "4,5": "4.5", "good": None, "1,234": None, "1d": None, True: None, "": None}
    path = text(tmp_path / "log.json", "\n".join(json.dumps(ROW | {"user_id": i, "rating": r}) for i, r in enumerate(ratings)))
    assert [value for _, value in read(spark, path, "user_id", "value", format="json")] == list(ratings.values())
