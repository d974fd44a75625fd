"""maintain: fewer files, the same rows."""

from __future__ import annotations

from dataclasses import replace

from training.warehouses import NEXT, copied, job_at, rows_of, stages

from metarec_spark.operations.maintain import maintain, tables
from metarec_spark.registry import versions_in_use
from metarec_spark.warehouse.tables import Warehouse


def files(job, name: str) -> int:
    return len(job.warehouse.read(name).inputFiles())


def test_every_table_keeps_its_rows_and_has_one_file_a_day_at_most(spark, tmp_path, tmp_path_factory):
    job = job_at(spark, copied(stages(spark, tmp_path_factory).evaluated, tmp_path), "maintain")
    for user in ("x", "y"):  # two small commits to one day
        row = job.warehouse.read("rejected_events").schema
        rows = spark.createDataFrame([tuple(user if f.name in ("source", "reason") else None for f in row)], row)
        job.warehouse.append("rejected_events", rows, job.commit(), app=user, txn=1)
    names = job.warehouse.names()
    before, version = {name: rows_of(job, name) for name in names}, job.warehouse.version("rejected_events")
    assert files(job, "rejected_events") == 2
    result = maintain(job)
    assert (
        result.details.tables
        == names
        == [
            "events",
            "rejected_events",
            "quality",
            "ingested",
            "items",
            "user_sequences",
            "item_transitions",
            "item_content",
            "models",
            "metrics",
        ]
    )
    assert {name: rows_of(job, name) for name in names} == before
    assert files(job, "rejected_events") == 1
    # Nothing that is younger than the retention goes: the version of before can still be read.
    assert job.warehouse.read("rejected_events", version).count() == 2


class Old(Warehouse):
    """A warehouse whose versions were all replaced a hundred days ago; what it is asked to remove is kept here."""

    removed: dict[str, float]

    def hours_since(self, name: str, version: int) -> float:
        return 2400.0

    def vacuum(self, name: str, hours: float) -> None:
        self.removed[name] = hours


def test_versions_that_a_serving_model_was_trained_on_are_kept(spark, tmp_path, tmp_path_factory):
    job = job_at(spark, copied(stages(spark, tmp_path_factory).evaluated, tmp_path), "maintain")
    (model,) = job.warehouse.read("models").collect()
    assert model["status"] == "approved" and versions_in_use(job) == model["table_versions"]
    old = Old(spark, job.warehouse.root)
    old.removed = {}
    maintain(replace(job, warehouse=old))
    assert old.removed["user_sequences"] == 2401.0 and old.removed["metrics"] == 24.0 * job.config.maintain.retention_days


def test_without_a_model_no_version_is_in_use(job):
    assert versions_in_use(job("maintain")) == {}


def test_tables_are_told_with_their_last_writer(spark, tmp_path_factory):
    job = job_at(spark, stages(spark, tmp_path_factory).evaluated, "tables")
    found = {row.table: row for row in tables(job).details.tables}
    assert list(found) == job.warehouse.names()
    assert (found["events"].job, found["models"].job, found["events"].ds) == ("extract", "evaluate", NEXT.isoformat())
