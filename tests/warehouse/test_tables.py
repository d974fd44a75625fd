"""Delta I/O: days replaced, state merged, appends written once, and what each commit says of itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from metarec_spark.columns import ALL, WRITTEN_BY
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.job import Job
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.tables import Commit, Warehouse

COMMIT = Commit(job="extract", ds=date(2024, 1, 10), inputs={"events": 3}, settings="abc")
NINTH, TENTH, ELEVENTH = date(2024, 1, 9), date(2024, 1, 10), date(2024, 1, 11)


@pytest.fixture
def warehouse(job: Callable[..., Job]) -> Warehouse:
    return job().warehouse


def rejected(spark: SparkSession, *rows: tuple[str | None, str]) -> DataFrame:
    """Rows of rejected_events from (day, user)."""
    columns = "'0:json' AS source, CAST(day AS DATE) AS day, 'bot' AS reason, user_id"
    nothing = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in NOTHING.items()]
    return spark.createDataFrame(list(rows), "day string, user_id string").selectExpr(*columns.split(", "), *nothing)


NOTHING = {
    "domain": "STRING",
    "item_id": "STRING",
    "event_type": "STRING",
    "event_time": "STRING",
    "value": "DOUBLE",
    "file": "STRING",
}


def items(spark: SparkSession, *rows: tuple[int, int | None], **more: object) -> DataFrame:
    """Rows of items from (item_idx, events)."""
    frame = spark.createDataFrame(list(rows), "item_idx int, events long").withColumns(
        {"domain": F.lit("shop"), "item_id": F.lit("i")}
    )
    frame = frame.withColumns({"first_day": F.lit(None).cast("date"), "last_day": F.lit(None).cast("date")})
    return frame.withColumns({name: F.expr(str(value)) for name, value in more.items()})


def held(warehouse: Warehouse, name: str, *columns: str, version: int | None = None) -> list[tuple]:
    return sorted((tuple(row) for row in warehouse.read(name, version).select(*columns).collect()), key=str)


def test_replacing_days_leaves_other_days_and_may_be_repeated(spark: SparkSession, warehouse: Warehouse):
    def replace(*rows: tuple[str | None, str], first: date = TENTH, last: date = TENTH, undated: bool = False) -> list[tuple]:
        warehouse.replace_days("rejected_events", rejected(spark, *rows), "day", [(first, last)], COMMIT, undated=undated)
        return held(warehouse, "rejected_events", "day", "user_id")

    replace(("2024-01-09", "a"), ("2024-01-10", "b"), ("2024-01-11", "c"), (None, "d"), first=NINTH, last=ELEVENTH, undated=True)
    expected = [(None, "d"), (TENTH, "new"), (ELEVENTH, "c"), (NINTH, "a")]
    assert replace(("2024-01-10", "new")) == expected
    assert replace(("2024-01-10", "new")) == expected
    assert replace((None, "e"), undated=True) == [(None, "e"), (ELEVENTH, "c"), (NINTH, "a")]


def test_rows_outside_the_days_that_are_replaced_are_refused(spark: SparkSession, warehouse: Warehouse):
    for expected in [[], [(NINTH,)]]:  # in a table without rows, and in one that has some
        with pytest.raises(Exception, match="DELTA_REPLACE_WHERE_MISMATCH"):
            warehouse.replace_days("rejected_events", rejected(spark, ("2024-01-11", "a")), "day", [(TENTH, TENTH)], COMMIT)
        assert held(warehouse, "rejected_events", "day") == expected
        warehouse.replace_days("rejected_events", rejected(spark, ("2024-01-09", "a")), "day", [(NINTH, NINTH)], COMMIT)


def test_a_null_where_the_contract_has_none_is_refused_and_nothing_is_written(spark: SparkSession, warehouse: Warehouse):
    with pytest.raises(Exception, match="DELTA_NOT_NULL_CONSTRAINT_VIOLATED"):
        nobody = "CASE WHEN item_idx = 0 THEN 'i' END"
        warehouse.replace_all("items", items(spark, (0, 1), (1, 1), item_id=nobody), COMMIT)
    assert held(warehouse, "items", "item_idx") == []
    assert warehouse.versions_written == {}


def test_rows_that_do_not_fit_are_refused_by_every_write(spark: SparkSession, warehouse: Warehouse):
    wrong = items(spark, (0, 1)).drop("events")
    writes = [
        lambda: warehouse.replace_all("items", wrong, COMMIT),
        lambda: warehouse.append("items", wrong, COMMIT, app="a", txn=1),
        lambda: warehouse.merge("items", wrong, COMMIT),
        lambda: warehouse.merge("items", wrong.withColumn("gone", F.lit(False)), COMMIT, delete="gone"),
    ]
    for write in writes:
        with pytest.raises(DataError, match="events: expected bigint, got nothing"):
            write()


def test_merging_updates_inserts_deletes_and_reports_the_difference(spark: SparkSession, warehouse: Warehouse):
    warehouse.merge("items", items(spark, (0, 1), (1, 1), (2, 1)), COMMIT)
    first = warehouse.version("items")

    changed = items(spark, (0, 1), (1, 5), (2, 1), (3, 1), (4, 1), gone="item_idx IN (2, 4)")
    warehouse.merge("items", changed, COMMIT, delete="gone")
    second = warehouse.version("items")
    assert held(warehouse, "items", "item_idx", "events") == [(0, 1), (1, 5), (3, 1)]
    assert held(warehouse, "items", "item_idx", "events", version=first) == [(0, 1), (1, 1), (2, 1)]

    changes = warehouse.changes("items", first, second).select("_change_type", "item_idx", "events").collect()
    expected = [("delete", 1, 1), ("delete", 2, 1), ("insert", 1, 5), ("insert", 3, 1)]
    assert sorted(tuple(row) for row in changes) == expected
    assert warehouse.changes("items", second, second).count() == 0
    assert "_change_type" in warehouse.changes("items", second, second).columns

    warehouse.merge("items", changed.limit(0), COMMIT, delete="gone")
    assert warehouse.version("items") == second, "a merge of nothing makes no version"
    warehouse.merge("items", items(spark, (0, 1), (1, 5)), COMMIT)
    assert warehouse.changes("items", second, warehouse.version("items")).count() == 0, "equal rows are no change"
    assert spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None


def test_the_first_merge_looks_for_nothing(spark: SparkSession, warehouse: Warehouse):
    rows = items(spark, (0, 1), (1, 1), gone="item_idx = 1")
    warehouse.merge("items", rows, COMMIT, delete="gone")
    assert held(warehouse, "items", "item_idx") == [(0,)]
    assert warehouse.last_commit("items", "extract") == COMMIT
    assert [(row[0], row[1]) for row in warehouse.changes("items", 0, 1).select("_change_type", "item_idx").collect()] == [
        ("insert", 0)
    ]
    newest = DeltaTable.forPath(spark, warehouse.path("items")).history(1).first()
    assert (newest.version, newest.operation) == (1, "WRITE")


def test_a_run_sees_one_version_and_the_next_run_what_others_wrote_meanwhile(spark: SparkSession, warehouse: Warehouse):
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    assert warehouse.version("items") == 1
    other = Warehouse(spark, warehouse.root)
    other.replace_all("items", items(spark, (0, 2)), Commit(job="train", ds=ELEVENTH))
    assert (warehouse.version("items"), held(warehouse, "items", "events")) == (1, [(1,)])
    assert warehouse.last_commit("items") == COMMIT and next(warehouse.commits("items")).version == 1
    warehouse.merge("items", items(spark, (1, 1)), COMMIT)
    assert (warehouse.version("items"), held(warehouse, "items", "events")) == (3, [(1,), (2,)])
    assert [logged.version for logged in warehouse.commits("items")] == [3, 2, 1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "mended by Bob",
        "[1]",
        "null",
        "{}",
        '{"job": "x"}',
        '{"job": "x", "ds": 7}',
        '{"job": "x", "ds": "2024-01-01", "inputs": {"a": "b"}}',
    ],
)
def test_a_commit_of_another_program_is_one_without_metadata(spark: SparkSession, warehouse: Warehouse, text: str):
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    append = items(spark, (1, 1)).write.format("delta").mode("append").option("userMetadata", text)
    append.save(warehouse.path("items"))
    reader = Warehouse(spark, warehouse.root)
    newest = next(reader.commits("items"))
    assert (newest.version, newest.operation, newest.metadata) == (2, "WRITE", None)
    assert reader.last_commit("items", "extract") == reader.last_commit("items") == COMMIT
    assert (reader.overview("items").job, reader.overview("items").ds) == (None, None)


def test_a_commit_whose_information_comes_last_is_read(warehouse: Warehouse, spark: SparkSession):
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    log = Path(warehouse.path("items").removeprefix("file:")) / "_delta_log"
    for version, lines in (
        (2, ['{"txn":{"appId":"a","version":1}}', '{"commitInfo":{"timestamp":1,"operation":"MERGE"}}']),
        (3, ['{"txn":{"appId":"b","version":1}}']),
    ):
        (log / f"{version:020}.json").write_text("\n".join(lines) + "\n")
    third, second, *_ = Warehouse(spark, warehouse.root).commits("items")
    assert (second.operation, second.written.year, second.metadata) == ("MERGE", 1970, None)
    assert (third.operation, third.metadata) == ("", None) and third.written.year > 2000


def test_deleting_leaves_other_rows_and_says_who_did(spark: SparkSession, warehouse: Warehouse):
    warehouse.replace_all("items", items(spark, (0, 1), (1, 1)), COMMIT)
    warehouse.delete("items", F.col("item_idx").isin([1]), Commit(job="forget", ds=ELEVENTH))
    assert held(warehouse, "items", "item_idx") == [(0,)]
    assert warehouse.last_commit("items", "forget") == Commit(job="forget", ds=ELEVENTH)
    assert warehouse.versions_written["items"] == warehouse.version("items")


def test_changes_that_can_no_longer_be_read_are_none(spark: SparkSession, warehouse: Warehouse):
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    warehouse.replace_all("items", items(spark, (0, 2)), COMMIT)
    delta = spark._jvm.org.apache.spark.sql.delta.DeltaLog
    delta.forTable(spark._jsparkSession, warehouse.path("items")).checkpoint()
    for old in (0, 1):  # as Delta cleans a log up
        (Path(warehouse.path("items").removeprefix("file:")) / f"_delta_log/{old:020}.json").unlink()
    delta.clearCache()
    assert warehouse.changes("items", 0, 2) is None
    assert warehouse.changes("items", 1, 2).count() == 2


@pytest.mark.parametrize("hours", [0, 24 * 7])
def test_changes_whose_files_were_vacuumed_are_none(spark: SparkSession, warehouse: Warehouse, hours: int):
    for events in (1, 2, 3):
        warehouse.merge("items", items(spark, (0, events)), COMMIT)
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        warehouse.vacuum("items", hours)
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    found = warehouse.changes("items", 1, 3)
    assert found is None if hours == 0 else found.count() == 4
    newest = warehouse.version("items")
    assert warehouse.changes("items", newest, newest).count() == 0, "nothing is asked of what is gone"


def test_a_table_whose_first_commit_was_never_finished_is_made_anew(spark: SparkSession, warehouse: Warehouse):
    log = Path(warehouse.path("items").removeprefix("file:")) / "_delta_log"
    log.mkdir(parents=True)
    (log / ".00000000000000000000.json.1f.tmp").write_text("{")
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    assert held(warehouse, "items", "item_idx") == [(0,)]


def test_a_log_that_holds_a_commit_is_never_removed(spark: SparkSession, warehouse: Warehouse):
    log = Path(warehouse.path("items").removeprefix("file:")) / "_delta_log"
    log.mkdir(parents=True)
    commit = log / f"{7:020}.json"
    commit.write_text("not a commit")
    with pytest.raises(Exception, match="(?i)delta"):
        warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    assert commit.read_text() == "not a commit"


def test_an_append_is_written_once_for_each_transaction(spark: SparkSession, warehouse: Warehouse):
    for txn in (1, 1, 2, 1):
        warehouse.append("items", items(spark, (txn, txn)), COMMIT, app="nightly", txn=txn)
    warehouse.append("items", items(spark, (9, 9)), COMMIT, app="other", txn=1)
    assert held(warehouse, "items", "item_idx") == [(1,), (2,), (9,)]


def test_records_are_merged_by_key(warehouse: Warehouse):
    record = {"item_idx": 0, "domain": "shop", "item_id": "i", "events": 1, "first_day": TENTH, "last_day": TENTH}
    warehouse.merge_records("items", [record], COMMIT)
    warehouse.merge_records("items", [record | {"events": 2}], COMMIT)
    assert held(warehouse, "items", "events", "first_day", "last_day") == [(2, TENTH, TENTH)]


def test_a_commit_says_who_wrote_from_what(spark: SparkSession, warehouse: Warehouse):
    assert warehouse.last_commit("items", "extract") is None
    warehouse.merge("items", items(spark, (0, 1)), COMMIT)
    warehouse.replace_all("items", items(spark, (0, 2)), Commit(job="train", ds=ELEVENTH, model_id="m"))
    assert warehouse.last_commit("items", "extract") == COMMIT
    assert warehouse.last_commit("items", "train") == Commit(job="train", ds=ELEVENTH, model_id="m")
    assert warehouse.last_commit("items", "evaluate") is None
    assert warehouse.last_commit("items") == warehouse.last_commit("items", "extract"), "the newest that names its settings"


def test_versions_that_were_read_and_written_are_kept(spark: SparkSession, warehouse: Warehouse):
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    warehouse.replace_all("items", items(spark, (0, 2)), COMMIT)
    assert warehouse.versions_written == {"items": 2} and warehouse.versions_read == {}
    warehouse.read("items")
    assert warehouse.versions_read == {"items": 2}
    warehouse.read("items", 1)
    assert warehouse.versions_read == {"items": 1}
    assert warehouse.names() == ["items"]


@pytest.mark.parametrize("name", ALL)
def test_reading_a_missing_table_names_the_command_that_writes_it(warehouse: Warehouse, name: str):
    assert not warehouse.exists(name)
    with pytest.raises(DataError, match=f"table {name} is not in .*; run `metarec {WRITTEN_BY[name]}` first"):
        warehouse.read(name)


def test_a_warehouse_that_cannot_be_written_is_told(spark: SparkSession, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written: .*Set warehouse to a folder that this user may write"):
        Warehouse(spark, (tmp_path / "file" / "warehouse").as_uri()).check_writable()
    with pytest.raises(ConfigError, match="cannot be written"):
        Warehouse(spark, "nosuch://bucket/warehouse").check_writable()


@pytest.mark.parametrize("name", [name for name in ALL if contract(name).checks])
def test_delta_refuses_rows_that_break_a_check(spark: SparkSession, warehouse: Warehouse, name: str):
    warehouse.ensure(name)
    said = {row["key"] for row in spark.sql(f"SHOW TBLPROPERTIES delta.`{warehouse.path(name)}`").collect()}
    assert {f"delta.constraints.{check}" for check in contract(name).checks} <= said


def test_a_write_that_breaks_a_check_is_refused_whole(spark: SparkSession, warehouse: Warehouse):
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    for write in (warehouse.replace_all, warehouse.merge):
        with pytest.raises(Exception, match="numbers_start_at_0"):
            write("items", items(spark, (0, 2), (1, -1)), COMMIT)
    with pytest.raises(Exception, match="days_are_in_order"):
        days = {"first_day": "DATE'2024-01-02'", "last_day": "DATE'2024-01-01'"}
        warehouse.replace_all("items", items(spark, (0, 1), **days), COMMIT)
    assert held(warehouse, "items", "item_idx", "events") == [(0, 1)]


def other(warehouse: Warehouse, name: str, schema: StructType) -> None:
    """A table of another contract."""
    DeltaTable.create(warehouse.spark).location(warehouse.path(name)).addColumns(schema).execute()


def test_a_table_gains_a_column_that_may_be_null(spark: SparkSession, warehouse: Warehouse):
    schema = contract("items").schema
    before = StructType([field for field in schema if field.name != "last_day"])
    other(warehouse, "items", before)
    row = items(spark, (0, 1)).select(*before.names)
    row.write.format("delta").mode("append").save(warehouse.path("items"))
    warehouse.merge("items", items(spark, (1, 2), last_day="DATE'2024-01-02'"), COMMIT)
    assert held(warehouse, "items", "item_idx", "last_day") == [(0, None), (1, date(2024, 1, 2))]
    assert warehouse.read("items").schema.names == [*before.names, "last_day"]


def test_a_table_of_another_contract_is_refused(spark: SparkSession, warehouse: Warehouse):
    wrong = StructType().add("item_idx", "long").add("domain", "string").add("item_id", "string").add("first_day", "date")
    other(warehouse, "items", wrong.add("colour", "string"))
    with pytest.raises(DataError) as error:
        warehouse.merge("items", items(spark, (0, 1)), COMMIT)
    said = str(error.value)
    assert "events: missing, and may not be null; item_idx: bigint there, int here; colour: there alone" in said
    assert "`metarec extract` makes it anew" in said
    assert warehouse.version("items") == 0


def test_the_overview_says_who_wrote_last(spark: SparkSession, warehouse: Warehouse):
    warehouse.replace_all("items", items(spark, (0, 1)), COMMIT)
    said = warehouse.overview("items")
    assert (said.table, said.version, said.files, said.job, said.ds) == ("items", 1, 1, "extract", "2024-01-10")
    assert said.bytes > 0 and datetime.now(UTC) - datetime.fromisoformat(said.written) < timedelta(minutes=5)


def test_hours_since_a_version_was_superseded(spark: SparkSession, warehouse: Warehouse):
    for events in (1, 2):
        warehouse.replace_all("items", items(spark, (0, events)), COMMIT)
    assert 0 < warehouse.hours_since("items", 1) < 0.1
    assert warehouse.hours_since("items", 2) == 0


def test_checking_leaves_nothing_behind(spark: SparkSession, tmp_path: Path):
    Warehouse(spark, (tmp_path / "warehouse").as_uri()).check_writable()
    assert [file.name for file in (tmp_path / "warehouse").iterdir() if not file.name.startswith(".")] == []
