"""Days that lost too much stay out until they are mended or accepted, and every night says so."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path

import pytest
from features.deliveries import LAST_JUNE, Log, Row, row
from pyspark.sql import SparkSession

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.features.stopped_days import accept


@pytest.fixture
def log(spark: SparkSession, tmp_path: Path) -> Log:
    return Log(spark, tmp_path)


def good(day: int, users: int = 5) -> list[Row]:
    return [row(f"u{user}", "i", day) for user in range(users)]


def broken(day: int | date, rows: int = 100, **more: str) -> list[Row]:
    """Rows without an item."""
    return [row(f"u{n}", "", day, **more) for n in range(rows)]


def status(log: Log) -> dict[int, str]:
    return {one["day"].day: one["status"] for one in log.read(c.STOPPED_DAYS).collect()}


def test_a_stopped_day_stays_out_until_it_is_accepted(log: Log, caplog: pytest.LogCaptureFixture):
    log.write("10", good(10))
    log.ingest(10)
    version = log.warehouse().version(c.EVENTS)
    log.write("11", [*good(11), *broken(11)])
    for _ in range(2):  # a scheduler tries the night again
        with pytest.raises(DataError, match=r"2024-01-11 lost too much.*100 of 105 rows rejected.*metarec accept"):
            log.ingest(11)
    assert log.warehouse().version(c.EVENTS) == version and status(log) == {11: "stopped"}
    log.write("12", [*good(12), *good(10, 6)])
    with caplog.at_level(logging.WARNING, "metarec"):
        counts = log.ingest(12)
    assert "2024-01-11 is left out" in caplog.text
    assert (counts.read, counts.left_out) == (11, {date(2024, 1, 11): 105})
    assert log.days() == {10: 6, 12: 5}
    log.assert_consistent()
    assert accept(log.job(12), []).details.accepted == ["2024-01-11"]
    with pytest.raises(DataError, match="no day is stopped"):
        accept(log.job(12), [])
    assert log.ingest(13).left_out == {}
    assert log.days() == {10: 6, 11: 5, 12: 5} and log.outcomes() == {"kept": 16, "duplicate": 5, "null_item": 100}
    assert log.ingest(13).read == 0
    log.assert_consistent()


def test_a_stopped_day_that_is_mended_is_published(log: Log):
    log.write("10", good(10))
    log.ingest(10)
    log.write("11", broken(11))
    with pytest.raises(DataError, match="2024-01-11 lost too much"):
        log.ingest(11)
    log.write("11", good(11))
    log.ingest(11)
    assert log.days() == {10: 5, 11: 5} and log.outcomes() == {"kept": 10} and status(log) == {11: "passed"}
    log.assert_consistent()


def test_all_days_of_a_first_run_and_of_a_catch_up_are_judged_and_an_old_day_stops_nobody(log: Log):
    log.write("1", [*good(1), *broken(2), *good(3)])
    with pytest.raises(DataError, match="2024-01-02 lost too much"):
        log.ingest(3)
    accept(log.job(3), [date(2024, 1, 2)])
    log.ingest(3)
    log.write("2", [*broken(5), *good(6), *broken(LAST_JUNE)])
    with pytest.raises(DataError, match="2024-01-05 lost too much"):
        log.ingest(6)
    counts = log.ingest(7)
    assert counts.left_out == {date(2024, 1, 5): 100, LAST_JUNE: 100}, "June was left out at once"
    assert log.days() == {1: 5, 3: 5, 6: 5}
    log.assert_consistent()


def test_rows_without_a_time_are_few_or_many_beside_the_rows_of_their_file(log: Log):
    soon = [Row(f"u{n}", "i", "soon") for n in range(100)]
    log.write("a day", [*good(1, 30), *soon])
    with pytest.raises(DataError, match=r"lost too much.*100 of 130 rows rejected \{'bad_time': 100\}"):
        log.ingest(5)
    log.write("a day", [*(one for day in range(1, 6) for one in good(day, 30)), *soon])
    assert log.ingest(5).left_out == {}, "150 of 250 rows of the file have a time"
    assert log.outcomes() == {"kept": 150, "bad_time": 100}
    log.assert_consistent()


def test_rows_without_a_day_are_judged_with_the_day_of_the_run(log: Log):
    log.write("1", good(1))
    log.ingest(1)
    log.write("2", [Row(f"u{n}", "i", "soon") for n in range(100)])
    with pytest.raises(DataError, match="bad_time"):
        log.ingest(2)
    log.write("3", good(3))
    assert sum(log.ingest(3).left_out.values()) == 100
    assert log.days() == {1: 5, 3: 5} and log.outcomes() == {"kept": 10}
    accept(log.job(3), [])
    log.ingest(4)
    assert log.outcomes() == {"kept": 10, "bad_time": 100}
    log.assert_consistent()


def test_a_platform_that_anybody_can_make_up_stops_nobody(log: Log, caplog: pytest.LogCaptureFixture):
    log.write("1", good(1))
    log.ingest(1)
    log.write("2", [*good(2), *broken(2, domain="made up")])
    with caplog.at_level(logging.WARNING, "metarec"):
        log.ingest(2)
    assert "platforms without any event so far, set aside: 2024-01-02, source 0:parquet, domain 'made up'" in caplog.text
    assert log.days() == {1: 5, 2: 5} and log.outcomes() == {"kept": 10, "null_item": 100}
    log.assert_consistent()
