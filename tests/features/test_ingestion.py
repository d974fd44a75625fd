"""Ingestion knows what it has read: files that come, change, move and go, in the cases that operators meet."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest
from features.deliveries import LAST_JUNE, Log, Row, row
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.features.deliveries import source_settings
from metarec_spark.features.ingestion import ingest
from metarec_spark.warehouse.tables import Warehouse


def rows(day: int | date, users: int = 5, item: str = "i") -> list[Row]:
    """A row of each of some users."""
    return [row(f"u{user}", item, day) for user in range(users)]


@pytest.fixture
def log(spark: SparkSession, tmp_path: Path) -> Log:
    return Log(spark, tmp_path)


def test_how_a_source_is_read_follows_from_the_keys_that_differ_from_their_defaults():
    def settings(**keys: object) -> str:
        made = config.parse({"warehouse": "/w", "sources": [{"path": "/log"} | keys]})
        return source_settings(made, made.sources[0])

    plain = settings()
    assert plain == settings(format="parquet", separator="auto", names=[]) == settings(path="/moved", name="shop")
    others = settings(format="csv"), settings(time_zone="Europe/Berlin"), settings(format="csv", names=["user_id"])
    assert len({plain, *others}) == 4


def test_a_file_that_is_overwritten_every_night_adds_its_days(log: Log):
    for day in (1, 2):
        log.write("today", rows(day))
        log.ingest(day)
    assert log.days() == {1: 5, 2: 5}
    log.write("today", [*rows(2), *rows(3)])
    counts = log.ingest(3)
    assert (counts.read, counts.events, counts.rejected) == (10, 10, {}), "rows that are read again are no copies"
    assert log.days() == {1: 5, 2: 5, 3: 5} and log.outcomes() == {"kept": 15}
    log.assert_consistent()


def test_days_whose_files_were_cleaned_up_stay_and_nothing_new_writes_nothing(log: Log):
    for day in (1, 2, 3):
        log.write(f"{day}", rows(day))
    log.ingest(3, "nightly")
    log.file("1").unlink()
    version = log.warehouse().version(c.EVENTS)
    assert log.ingest(3, "extract").read == 0
    assert log.days() == {1: 5, 2: 5, 3: 5} and log.warehouse().version(c.EVENTS) == version
    assert log.ingest(4, "extract", history=True).events == 10
    assert log.days() == {1: 5, 2: 5, 3: 5}
    log.assert_consistent()


def test_other_cleaning_rules_between_two_nights_lose_nothing_for_good(log: Log):
    for day in (1, 2):
        log.write(f"{day}", [*rows(day), row("u0", "j", day, kind="buy")])
    log.ingest(1, "nightly")
    log.ingest(2, "extract", features={"event_types": ["buy"]})
    assert log.days() == {1: 1, 2: 1} and log.outcomes() == {"kept": 2, "unknown_type": 10}
    log.file("1").unlink()
    log.ingest(2, "nightly")
    assert log.days() == {1: 1, 2: 6}, "events and rejected rows of a file that is gone stay as they are"
    assert log.outcomes() == {"kept": 7, "unknown_type": 5}
    log.assert_consistent()


def test_a_delivery_of_any_day_is_read_and_copies_of_stored_events_are_copies(log: Log):
    log.write("1", rows(1))
    log.ingest(1)
    log.write("backfill", [*rows(LAST_JUNE), *rows(1, 7), *rows(3)])
    log.write("1 again", rows(1))
    counts = log.ingest(2)
    assert (counts.read, counts.events, counts.rejected) == (22 - 5, 7, {"duplicate": 10}), "rows after the day wait"
    assert log.read(c.EVENTS).count() == 12
    assert log.ingest(3).events == 5
    assert log.read(c.EVENTS).where(F.col(c.EVENT_DATE) == F.lit(LAST_JUNE)).count() == 5
    assert log.ingest(3).read == 0
    log.assert_consistent()


def test_a_user_who_is_a_bot_only_together_with_stored_events_is_one(log: Log):
    limit = {"features": {"max_events_per_hour": 3}}
    log.write("1", [*(row("bot", f"i{n}", 1) for n in range(3)), row("u", "i0", 1)])
    log.ingest(1, **limit)
    assert log.days() == {1: 4}
    log.write("late", [row("bot", "i9", 1)])
    log.ingest(2, **limit)
    assert log.days() == {1: 1} and log.outcomes() == {"kept": 1, "bot": 4}
    log.write("later", [row("bot", "i8", 1)])
    log.ingest(3, **limit)
    assert log.days() == {1: 1} and log.outcomes() == {"kept": 1, "bot": 5}
    log.assert_consistent()


def test_a_new_source_and_a_moved_file_are_read_and_sources_cannot_change_places(spark: SparkSession, tmp_path: Path):
    log = Log(spark, tmp_path, "added", "added")
    log.write("1", rows(1))
    log.deliveries = ("added",)
    log.ingest(1)
    log.deliveries = ("added", "added")
    log.write("1", rows(1, 2, "other"), source=1)
    shutil.move(log.file("1"), log.source() / "moved.parquet")
    counts = log.ingest(2)
    assert (counts.read, counts.events, counts.rejected) == (7, 2, {"duplicate": 5})
    assert log.days() == {1: 7}
    swapped = [{"path": str(log.source(1))}, {"path": str(log.source(0))}]
    with pytest.raises(ConfigError, match="name='1:parquet'"):
        log.sections = {"sources": swapped}
        log.ingest(3)
    log.sections = {"sources": [one | {"name": f"{1 - n}:parquet"} for n, one in enumerate(swapped)]}
    log.write("2", rows(2), source=1)
    assert log.ingest(3).events == 5
    log.assert_consistent()


class Killed(Warehouse):
    """A warehouse whose process dies before it writes events."""

    def append(self, *_: object, **__: object) -> None:
        raise KeyboardInterrupt


def test_a_run_that_was_killed_before_it_wrote_events_has_changed_nothing(log: Log):
    log.write("1", [*rows(1), row("", "i", 1)])
    with pytest.raises(KeyboardInterrupt):
        ingest(log.job(1, warehouse=Killed))
    log.ingest(1)
    assert log.days() == {1: 5} and log.outcomes() == {"kept": 5, "null_user": 1}
    log.write("2", [*rows(2), row("", "i", 2), row("", "i", 1)])
    with pytest.raises(KeyboardInterrupt):
        ingest(log.job(2, warehouse=Killed))
    log.file("2").unlink()
    log.write("3", rows(3))
    log.ingest(3)
    assert log.days() == {1: 5, 3: 5} and log.outcomes() == {"kept": 10, "null_user": 1}
    assert sorted(one[0] for one in log.read(c.INGESTED).select(c.FILE).collect()) == ["1.parquet", "3.parquet"]
    log.assert_consistent()


def test_events_that_were_restored_by_hand_are_read_again(spark: SparkSession, log: Log):
    log.write("1", rows(1))
    log.ingest(1)
    version = log.warehouse().version(c.EVENTS)
    log.write("2", rows(2))
    log.ingest(2)
    spark.sql(f"RESTORE TABLE delta.`{log.warehouse().path(c.EVENTS)}` TO VERSION AS OF {version}")
    assert log.days() == {1: 5}
    assert log.ingest(2).events == 5
    assert log.days() == {1: 5, 2: 5}
    log.assert_consistent()


def test_a_commit_of_another_program_stops_nothing(log: Log):
    log.write("1", rows(1))
    log.ingest(1)
    other = log.read(c.EVENTS).limit(1).withColumn(c.USER_ID, F.lit("bob"))
    place = log.warehouse().path(c.EVENTS)
    other.write.format("delta").mode("append").option("userMetadata", "mended by Bob").save(place)
    log.write("2", [*rows(2), row("bob", "j", 1)])
    log.ingest(2)
    assert log.days() == {1: 7, 2: 5}
    log.assert_consistent()


def test_a_complete_source_is_the_truth_of_the_days_that_its_files_contain(spark: SparkSession, tmp_path: Path):
    log = Log(spark, tmp_path, "complete", quality={"max_lost_share": 0.5})
    for name, day, users in (("1", 1, 5), ("2a", 2, 3), ("2b", 2, 5)):
        log.write(name, rows(day, users, name))
    log.ingest(2)
    log.file("1").unlink()
    log.write("2b", rows(2, 2, "2b"))
    log.write("3", rows(3))
    counts = log.ingest(3)
    assert log.days() == {1: 5, 2: 5, 3: 5} and counts.read == 7, "day 1 is in no file, and 2a is there still"
    log.write("2b", [row("u0", "2b", 2)])
    log.file("2a").unlink()
    with pytest.raises(DataError, match="2024-01-02 lost too much.*4 of 5 stored events are in none of its files"):
        log.ingest(4)
    assert log.days() == {1: 5, 2: 5, 3: 5}
    log.assert_consistent()


def test_rows_a_zone_ahead_of_their_folder_wait_for_their_day(spark: SparkSession, tmp_path: Path):
    log = Log(spark, tmp_path)
    log.write("ds=2024-01-02/a", [row("u0", "i", 2), row("u1", "i", 3, 8), row("u2", "i", 3, 20)])
    log.sections = {"sources": [{"path": str(log.source()), "day_column": "ds"}]}
    counts = log.ingest(2)
    assert (counts.read, counts.rejected) == (2, {"future_time": 1}), "a zone's width ahead is no future, and waits for its day"
    assert log.days() == {2: 1}
    log.ingest(3)
    assert log.days() == {2: 1, 3: 1}
    log.assert_consistent()


def test_a_warehouse_of_a_version_that_recorded_no_files_is_read_again_without_copies(spark: SparkSession, log: Log):
    log.write("1", [*rows(1), row("u0", "i", 1), row("", "i", 1)])
    log.write("gone", rows(1, 7))
    log.ingest(1)
    events, ingested = log.warehouse().path(c.EVENTS), Path(log.warehouse().path(c.INGESTED).removeprefix("file:"))
    for table in (c.EVENTS, c.REJECTED_EVENTS):
        path = log.warehouse().path(table)
        spark.sql(f"ALTER TABLE delta.`{path}` UNSET TBLPROPERTIES ('delta.dataSkippingStatsColumns')")
        older = spark.read.format("delta").load(path).drop(c.FILE).write.format("delta").mode("overwrite")
        metadata = '{"job": "extract", "ds": "2024-01-01", "settings": "older"}'
        older.option("overwriteSchema", "true").option("userMetadata", metadata).save(path)
    shutil.rmtree(ingested)
    log.file("gone").unlink()
    assert c.FILE not in spark.read.format("delta").load(events).columns
    counts = log.ingest(2)
    assert (counts.read, counts.events, counts.rejected) == (7, 5, {"duplicate": 1, "null_user": 1})
    assert log.days() == {1: 7} and log.outcomes() == {"kept": 7, "duplicate": 6, "null_user": 1}
    log.write("1", [*rows(1), row("u0", "i", 1), row("", "i", 1), *rows(2)])
    counts = log.ingest(2)
    assert (counts.read, counts.events, counts.rejected) == (12, 10, {"duplicate": 1, "null_user": 1})
    assert log.days() == {1: 7, 2: 5} and log.outcomes() == {"kept": 12, "duplicate": 6, "null_user": 1}
    log.assert_consistent()


def test_a_new_file_may_lack_an_optional_column_that_is_mapped(spark: SparkSession, tmp_path: Path):
    log = Log(spark, tmp_path)
    log.sections = {"sources": [{"path": str(log.source()), "format": "json", "columns": {"value": "stars"}}]}
    line = '{{"user_id": "u", "item_id": "i", "domain": "shop", "event_time": "2024-01-0{day}"{more}}}\n'
    for day, more in ((1, ', "start": 5'), (2, "")):
        (log.source() / f"{day}.json").write_text(line.format(day=day, more=more))
    with pytest.raises(DataError, match="no column 'stars'"):
        log.ingest(1)
    (log.source() / "1.json").write_text(line.format(day=1, more=', "stars": 5'))
    (log.source() / "2.json").unlink()
    log.ingest(1)
    (log.source() / "2.json").write_text(line.format(day=2, more=""))
    log.ingest(2)
    assert sorted(row[0] or 0.0 for row in log.read(c.EVENTS).select(c.VALUE).collect()) == [0.0, 5.0]
