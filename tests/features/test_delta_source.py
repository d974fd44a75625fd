"""New rows of a Delta source, by its own log."""

from __future__ import annotations

from pathlib import Path

import pytest
from features.deliveries import Log, Row, row
from pyspark.sql import SparkSession

from metarec_spark import columns as c
from metarec_spark.features.delta_source import _Action, delta_changes, new_files

ADD, REMOVE = True, False


def of(*actions: tuple[int, bool, str, bool]) -> tuple[list[str], bool]:
    return new_files(_Action(*action) for action in actions)


@pytest.mark.parametrize(
    ("actions", "files"),
    [
        ([], ([], False)),
        ([(1, ADD, "a", True), (2, ADD, "b", True)], (["a", "b"], False)),
        ([(1, REMOVE, "old", True), (1, ADD, "a", True)], (["a"], True)),
        ([(1, REMOVE, "old", False), (1, ADD, "compacted", False), (2, ADD, "a", True)], (["a"], False)),
        ([(1, ADD, "a", True), (2, REMOVE, "a", False), (2, ADD, "compacted", False)], (["compacted"], True)),
        ([(1, ADD, "a", True), (2, REMOVE, "a", True)], ([], True)),
        ([(1, ADD, "a", True), (2, ADD, "a", True), (2, REMOVE, "a", True)], (["a"], True)),
    ],
    ids=[
        "nothing",
        "appends",
        "an update",
        "compaction of old files",
        "compaction of new files",
        "a deletion",
        "a deletion vector",
    ],
)
def test_files_with_new_rows(actions: list, files: tuple[list[str], bool]):
    assert of(*actions) == files


@pytest.fixture
def log(spark: SparkSession, tmp_path: Path) -> Log:
    log = Log(spark, tmp_path)
    log.sections = {"sources": [{"path": str(log.source() / "table"), "format": "delta"}]}
    return log


def append(log: Log, rows: list[Row]) -> None:
    names = "user_id string, item_id string, event_time string, domain string, event_type string, value double"
    frame = log.spark.createDataFrame(rows, names).coalesce(1)
    frame.write.format("delta").mode("append").save(str(log.source() / "table"))


def test_a_night_reads_the_new_versions_of_a_delta_table(spark: SparkSession, log: Log):
    append(log, [row(f"u{n}", "i", 1) for n in range(5)])
    log.ingest(1)
    append(log, [row(f"u{n}", "i", 2) for n in range(3)])
    append(log, [row("u0", "i", 1), row("u9", "i", 3)])
    counts = log.ingest(2)
    assert (counts.read, counts.rejected) == (4, {"duplicate": 1}), "one row is of a later day"
    table = f"delta.`{log.source() / 'table'}`"
    spark.sql(f"OPTIMIZE {table}")
    assert log.ingest(2).read == 0
    spark.sql(f"UPDATE {table} SET item_id = 'j' WHERE user_id = 'u1' AND event_time LIKE '2024-01-02%'")
    counts = log.ingest(3)
    assert (counts.read, counts.events) == (10, 9), "the row of day 3, the updated row, and the rows that were rewritten with it"
    assert log.days() == {1: 5, 2: 4, 3: 1} and log.outcomes() == {"kept": 10, "duplicate": 1}
    log.assert_consistent()
    assert log.ingest(3).read == 0
    assert log.read(c.INGESTED).select("version").collect() == [(4,)]


def test_what_cannot_be_known_from_the_log_is_read_whole(log: Log):
    for user in ("u0", "u1", "u2"):
        append(log, [row(user, "i", 1)])
    path = str(log.source() / "table")
    assert delta_changes(log.spark, path, 2).files == []
    assert len(delta_changes(log.spark, path, 0).files) == 2
    log.spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(log.spark._jsparkSession, path).checkpoint()
    next((log.source() / "table" / "_delta_log").glob("*1.json")).unlink()
    assert delta_changes(log.spark, path, 0).files is None
    assert delta_changes(log.spark, path, 7).files is None, "another table, made anew"
