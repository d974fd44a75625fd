"""train: from tables to a model folder and its row in ``models``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import urlparse

import pytest
from training.warehouses import DAY, copied, job_at, rows_of, stages

from metarec_spark.errors import DataError
from metarec_spark.model import bundle
from metarec_spark.training.run import train


@pytest.fixture
def extracted(spark, tmp_path, tmp_path_factory):
    return copied(stages(spark, tmp_path_factory).extracted, tmp_path)


def models(job) -> list[dict]:
    return [row.asDict() for row in job.warehouse.read("models").collect()]


def test_a_model_is_trained_once_and_keeps_what_was_decided_of_it(spark, extracted):
    job = job_at(spark, extracted, "train")
    result = train(job)
    (row,) = models(job)
    assert (row["model_id"], row["status"], row["kind"], row["ds"]) == (result.model_id, "candidate", "base", DAY)
    assert row["table_versions"] == {name: job.warehouse.version(name) for name in row["table_versions"]}
    assert json.loads(row["metrics"]) == result.details["metrics"]
    assert 0 < result.details["metrics"]["validation_ndcg@10"] <= 1

    folder = Path(urlparse(row["path"]).path)
    manifest = bundle.read_manifest(folder)
    assert (manifest["domains"], manifest["event_types"], manifest["items"]) == (["books", "films"], ["event"], 20)
    assert manifest["sequences"] == result.rows_in == manifest["metrics"]["history"][0]["sequences"] == 31
    assert len(manifest["metrics"]["history"]) == 4
    assert sorted(bundle.load(folder).item_ids().to_pylist()) == sorted(
        [f"b{i}" for i in range(10)] + [f"f{i}" for i in range(10)]
    )
    assert not (extracted / "warehouse" / "_training" / row["model_id"]).exists()

    job.warehouse.merge_records("models", [row | {"status": "approved"}], job.commit())
    before, weights = rows_of(job, "models"), (folder / "model.safetensors").stat().st_mtime_ns
    assert train(job_at(spark, extracted, "train")).model_id == result.model_id
    assert rows_of(job, "models") == before
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights


def test_a_model_file_without_its_row_is_entered(spark, extracted, tmp_path_factory):
    done = stages(spark, tmp_path_factory).evaluated
    job = job_at(spark, extracted, "train")
    shutil.copytree(done / "warehouse" / "_models", extracted / "warehouse" / "_models")
    result = train(job)
    (row,) = models(job)
    assert (row["model_id"], row["status"]) == (result.model_id, "candidate")
    assert (done / "warehouse" / "_models" / result.model_id).exists()


def test_more_ranks_than_sequences_is_an_error_that_says_what_to_do(spark, extracted):
    with pytest.raises(
        DataError, match=r"31 users with two or more training events in books, films; 64 rank.*lower train.processes"
    ):
        train(job_at(spark, extracted, "train", train={"processes": 64}))


def test_spark_launches_the_ranks_too(spark, extracted):
    job = job_at(spark, extracted, "train", train={"processes": 2, "launcher": "spark", "epochs": 1})
    result = train(job)
    manifest = bundle.read_manifest(Path(urlparse(models(job)[0]["path"]).path))
    assert manifest["metrics"]["history"][0]["sequences"] == result.rows_in == 31
