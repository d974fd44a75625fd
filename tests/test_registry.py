"""The model registry: a copy of a warehouse has its own models, and paths that older versions wrote are read."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from pyspark.sql import functions as F
from training.warehouses import WAREHOUSE, copied, job_at, stages

from metarec_spark import registry
from metarec_spark.errors import DataError, ModelRejected
from metarec_spark.evaluation.evaluate import evaluate
from metarec_spark.operations.promote import promote, rollback
from metarec_spark.scoring.serving import serving_models
from metarec_spark.warehouse.storage import local_path


def test_a_copied_warehouse_scores_with_its_own_models(spark, tmp_path, tmp_path_factory):
    first = copied(stages(spark, tmp_path_factory).evaluated, tmp_path / "first")
    copy = copied(first, tmp_path / "copy")
    (stored,) = job_at(spark, copy, "tables").warehouse.read("models").collect()
    assert stored["path"] == f"_models/{stored['model_id']}"
    job = job_at(spark, copy, "recommend")
    folder = copy / WAREHOUSE / "_models" / stored["model_id"]
    assert local_path(registry.newest_approved(job).path) == folder
    assert [local_path(model.folder) for model in serving_models(job)] == [folder]


def test_absolute_paths_of_older_versions_are_read_and_lose_to_the_warehouses_own_folder(spark, tmp_path, tmp_path_factory):
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)
    job = job_at(spark, folder, "recommend")
    model_id = registry.newest_approved(job).model_id
    own, other = folder / WAREHOUSE / "_models" / model_id, tmp_path / "elsewhere" / model_id
    shutil.copytree(own, other)
    job.warehouse.update("models", F.lit(True), {"path": F.lit(f"file:{other}")}, job.commit())
    assert local_path(registry.newest_approved(job).path) == own
    shutil.rmtree(own)
    assert local_path(registry.newest_approved(job).path) == other


def test_a_decision_keeps_the_path_relative(spark, tmp_path, tmp_path_factory):
    job = job_at(spark, copied(stages(spark, tmp_path_factory).evaluated, tmp_path), "evaluate")
    model = registry.newest_approved(job)
    registry.set_status(job, replace(model), "rejected", "weak")
    (row,) = job.warehouse.read("models").collect()
    assert (row["path"], row["status"]) == (f"_models/{model.model_id}", "rejected")
    assert registry.serving_ids(job) == []


def test_rollback_and_promote_change_which_model_serves_and_the_same_night_again_changes_nothing(
    spark, tmp_path, tmp_path_factory
):
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)
    job = job_at(spark, folder, "promote")
    first = registry.newest_approved(job)
    with pytest.raises(ModelRejected, match="the only approved model"):
        rollback(job)
    newer = f"{first.model_id}-newer"
    shutil.copytree(f"{folder / WAREHOUSE}/_models/{first.model_id}", f"{folder / WAREHOUSE}/_models/{newer}")
    registry._write(job, replace(first, model_id=newer, path=job.warehouse.path(f"_models/{newer}")))

    def serving() -> set[str]:
        return {row.model_id for row in registry.serving_rows(job).values()}

    assert serving() == {newer}
    assert rollback(job).details.serving == dict.fromkeys(first.domains, first.model_id)
    assert evaluate(job_at(spark, folder, "evaluate")).exit_code == 4 and serving() == {first.model_id}
    assert promote(job, newer).rows_out == 1 and serving() == {newer}
    assert promote(job, first.model_id).rows_out == 2 and serving() == {first.model_id}
    reasons = {row["model_id"]: (row["status"], row["reason"]) for row in job.warehouse.read("models").collect()}
    assert reasons[newer] == ("rejected", f"withdrawn: {first.model_id} was promoted")
    assert reasons[first.model_id] == ("approved", "promoted by hand")
    with pytest.raises(DataError, match="no model nothing on or before"):
        promote(job, "nothing")
