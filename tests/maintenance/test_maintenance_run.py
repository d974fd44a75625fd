"""maintain: fewer files, the same rows."""

from __future__ import annotations

from training.warehouses import copied, job_at, rows_of, stages

from metarec_spark.maintenance.run import maintain


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
        result.details["tables"]
        == names
        == ["events", "rejected_events", "items", "user_sequences", "item_transitions", "item_content", "models", "metrics"]
    )
    assert {name: rows_of(job, name) for name in names} == before
    assert files(job, "rejected_events") == 1
    # Nothing that is younger than the retention goes: the version of before can still be read.
    assert job.warehouse.read("rejected_events", version).count() == 2
