"""A night scores whom something changed for, and its lists are those of a full run, to the last bit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from training.warehouses import NEXT, copied, event, job_at, rows_of, stages, write_log

from metarec_spark.features.extract import extract
from metarec_spark.scoring import incremental
from metarec_spark.scoring.recommend import recommend
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.storage import local_path

LATER = NEXT + timedelta(days=1)


@pytest.fixture(scope="module")
def day_after(spark, tmp_path_factory):
    """Lists of NEXT are there; the day after it brings events of two users, and of one who is new."""
    made = copied(stages(spark, tmp_path_factory).evaluated, tmp_path_factory.mktemp("increment"))
    assert recommend(job_at(spark, made, "recommend", NEXT)).details.scored_users == 33
    rows = [event("u1", "books", "b0", LATER), event("u2", "films", "f9", LATER), event("late", "books", "b2", LATER)]
    write_log(made / "log" / "3.parquet", rows)
    extract(job_at(spark, made, "extract", LATER))
    return made


@pytest.fixture
def folder(day_after, tmp_path):
    return copied(day_after, tmp_path)


def night(spark, folder, ds=LATER, **section) -> tuple[int, list[tuple]]:
    """Users scored, and the day's rows."""
    job = job_at(spark, folder, "recommend", ds, recommend=section)
    scored = recommend(job).details.scored_users
    return scored, [row for row in rows_of(job, "recommendations") if row[0] == ds]


def test_those_with_events_are_scored_and_the_table_is_that_of_a_full_run(spark, folder):
    scored, rows = night(spark, folder)
    assert scored == 3
    everyone, full = night(spark, folder, mode="full")
    assert (everyone, rows) == (34, full)
    assert {"u1", "late"} <= {row[1] for row in rows}
    assert night(spark, folder) == (0, full), "the same day again: nobody changed"
    assert len(rows_of(job_at(spark, folder, "recommend"), "recommendations")) > len(full), "the day before is still there"


def test_lists_of_another_job_are_reused_alike(spark, folder):
    """``nightly`` makes lists, too; what stands in the table is what the last of them made."""
    night(spark, folder)
    recommend(job_at(spark, folder, "nightly", LATER, recommend={"top_n": 2}))
    scored, rows = night(spark, folder)
    assert scored == 34
    assert (34, rows) == night(spark, folder, mode="full")


def test_everyone_is_scored_where_the_sequences_were_made_anew(spark, folder, tmp_path):
    warehouse = job_at(spark, folder, "recommend").warehouse
    rows = warehouse.read("user_sequences").collect()
    Path(local_path(warehouse.path("user_sequences"))).rename(tmp_path / "lost")
    spark.catalog.clearCache()
    sequences = spark.createDataFrame(rows, contract("user_sequences").schema)
    later = job_at(spark, folder, "extract", LATER)
    later.warehouse.replace_all("user_sequences", sequences, later.commit())
    assert night(spark, folder)[0] == 34


def test_everyone_is_scored_where_last_bits_depend_on_the_others(spark, folder, monkeypatch):
    monkeypatch.setattr(incremental, "WIDTHS", 3)
    assert night(spark, folder)[0] == 34


def test_a_user_who_was_erased_meanwhile_has_no_list(spark, folder):
    warehouse = job_at(spark, folder, "recommend").warehouse
    DeltaTable.forPath(spark, warehouse.path("user_sequences")).delete("user_id = 'u5'")
    scored, rows = night(spark, folder)
    assert scored == 3 and "u5" not in {row[1] for row in rows}
    assert (33, rows) == night(spark, folder, mode="full")


def test_everyone_is_scored_where_the_settings_changed(spark, folder):
    assert night(spark, folder, top_n=3)[0] == 34
    assert night(spark, folder, top_n=3)[0] == 0
    assert night(spark, folder, users="all", top_n=3)[0] == 34


def test_a_day_that_is_run_late_is_scored_anew_and_is_no_start_for_another(spark, folder, caplog):
    with caplog.at_level("INFO", "metarec_spark"):
        scored, rows = night(spark, folder, NEXT)
    assert scored == 33 and f"there are events after {NEXT}" in caplog.text
    assert "late" not in {row[1] for row in rows}
    assert night(spark, folder)[0] == 34
    assert night(spark, folder)[0] == 0


def test_everyone_is_scored_where_it_is_not_on_record_what_changed(spark, folder, caplog):
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        job_at(spark, folder, "recommend").warehouse.vacuum("user_sequences", 0)
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    with caplog.at_level("INFO", "metarec_spark"):
        scored, rows = night(spark, folder)
    assert scored == 34 and "not on record any more" in caplog.text
    assert (0, rows) == night(spark, folder)
