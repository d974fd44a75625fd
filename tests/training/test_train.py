"""train: from tables to a model folder and its row in ``models``."""

from __future__ import annotations

import json
import logging
import shutil
from datetime import timedelta

import numpy as np
import pytest
from training.warehouses import DAY, NEXT, WAREHOUSE, copied, job_at, rows_of, stages

from metarec_spark.errors import DataError, TrainingError
from metarec_spark.features.extract import extract
from metarec_spark.model import artifact
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.training.launch import launch
from metarec_spark.training.train import _inherited, _model_id, train
from metarec_spark.warehouse.storage import local_path


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
    assert json.loads(row["metrics"]) == result.details.metrics
    assert 0 < result.details.metrics["validation_ndcg@10"] <= 1

    folder = local_path(job.warehouse.path(row["path"]))
    manifest = artifact.read_manifest(folder)
    assert (manifest.domains, manifest.event_types, manifest.items) == (["books", "films"], ["event"], 20)
    assert manifest.sequences == result.rows_in == manifest.metrics.history[0].sequences == 31
    assert len(manifest.metrics.history) == 4
    assert sorted(artifact.load(folder).item_ids().to_pylist()) == sorted(
        [f"b{i}" for i in range(10)] + [f"f{i}" for i in range(10)]
    )
    assert not (extracted / WAREHOUSE / "_training" / row["model_id"]).exists()

    job.warehouse.merge_records("models", [row | {"status": "approved"}], job.commit())
    before, weights = rows_of(job, "models"), (folder / "model.safetensors").stat().st_mtime_ns
    assert train(job_at(spark, extracted, "train")).model_id == result.model_id
    assert rows_of(job, "models") == before
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights


def test_what_serves_has_learnt_all_events_with_what_its_twin_found_on_held_out_ones(spark, tmp_path_factory):
    folder = stages(spark, tmp_path_factory).evaluated
    job = job_at(spark, folder, "evaluate")
    (row,) = models(job)
    place = job.warehouse.path(row["path"])
    serves, twin = artifact.load(place), artifact.load(artifact.measured(place))
    assert twin.folder == serves.folder / "twin"
    assert serves.manifest.refitted and not twin.manifest.refitted
    users = job.warehouse.read("user_sequences", serves.manifest.table_versions["user_sequences"])
    events = sum(len(user["item_idx"]) for user in users.collect())
    held_out = 2 * (31 + 15)
    assert serves.catalogue.events.sum() == events == twin.catalogue.events.sum() + held_out
    assert serves.catalogue.successors.forward.sum() > twin.catalogue.successors.forward.sum()
    assert np.abs(serves.item_vectors - twin.item_vectors).max() > 0.01
    found = ("tuned", "model_id", "train", "domains", "event_types", "items", "table_versions")
    assert all(getattr(serves.manifest, name) == getattr(twin.manifest, name) for name in found)
    one, other = serves.manifest.metrics, twin.manifest.metrics
    assert (one.validation, one.history, one.kept_epoch) == (other.validation, other.history, other.kept_epoch)
    assert one.seconds > other.seconds and one.cpu_seconds >= other.cpu_seconds


def test_a_run_that_ends_between_twin_and_refit_leaves_no_model_and_the_next_one_only_refits(spark, extracted, monkeypatch):
    started = []

    def launched(spec, *settings):
        started.append("refit" if "/refit/" in str(spec) else "twin")
        if started == ["twin", "refit"]:
            raise TrainingError("killed")
        launch(spec, *settings)

    monkeypatch.setattr("metarec_spark.training.train.launch", launched)
    job = job_at(spark, extracted, "train", train={"epochs": 1})
    with pytest.raises(TrainingError, match="killed"):
        train(job)
    assert not job.warehouse.exists("models") and not (extracted / WAREHOUSE / "_models").exists()
    result = train(job_at(spark, extracted, "train", train={"epochs": 1}))
    assert started == ["twin", "refit", "refit"]
    assert artifact.measured(job.warehouse.path(f"_models/{result.model_id}")).endswith("/twin")


@pytest.mark.parametrize("sections", [{"train": {"epochs": 1, "refit_epochs": 0}}, {"split": {"protocol": "none"}}])
def test_without_held_out_events_or_without_a_refit_there_is_one_model(spark, extracted, sections):
    job = job_at(spark, extracted, "train", **{"train": {"epochs": 1}} | sections)
    place = job.warehouse.path(f"_models/{train(job).model_id}")
    assert artifact.measured(place) == place
    assert not local_path(f"{place}/twin").exists()


def test_meta_training_reads_a_row_for_each_user_and_domain(spark, extracted):
    result = train(job_at(spark, extracted, "train", train={"method": "fomaml", "epochs": 1, "refit_epochs": 0}))
    (row,) = models(job_at(spark, extracted, "train"))
    history = artifact.read_manifest(extracted / WAREHOUSE / row["path"]).metrics.history
    # 15 of the 31 have films too; 8 of those have trained on one book alone, their first event.
    assert result.rows_in == history[0].sequences == 31 + 15 - 8
    assert all(history[0].loss_by_domain)


def lent(job, model_id: str) -> dict[str, list]:
    """What a model knows of who follows whom."""
    (path,) = (job.warehouse.path(row["path"]) for row in models(job) if row["model_id"] == model_id)
    part = artifact.load(artifact.measured(path)).catalogue.successors
    return {name: getattr(part, name).tolist() for name in ("indptr", "indices", "forward", "backward")}


def test_transitions_count_no_held_out_event_whatever_split_the_table_was_made_by(spark, extracted):
    job = job_at(spark, extracted, "train", train={"epochs": 1, "refit_epochs": 0})
    expected = lent(job, train(job).model_id)
    extract(job_at(spark, extracted, "extract", split={"protocol": "none"}))
    everything = job_at(spark, extracted, "train", split={"protocol": "none"}, train={"epochs": 1})
    assert sum(lent(everything, train(everything).model_id)["forward"]) > sum(expected["forward"])
    again = job_at(spark, extracted, "train", train={"epochs": 1, "refit_epochs": 0, "seed": 1})
    assert lent(again, train(again).model_id) == expected


def test_an_older_day_that_is_run_again_counts_no_later_event(spark, tmp_path, tmp_path_factory):
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)  # extract of the next day was run
    job = job_at(spark, folder, "train", train={"epochs": 1, "refit_epochs": 0})
    (before,) = models(job)
    later, known = (lent(job, model_id) for model_id in (train(job).model_id, before["model_id"]))
    size = len(known["indptr"])
    assert later["indptr"][:size] == known["indptr"] and later["forward"] == known["forward"]


def test_a_model_file_without_its_row_is_entered(spark, extracted, tmp_path_factory):
    done = stages(spark, tmp_path_factory).evaluated
    job = job_at(spark, extracted, "train")
    shutil.copytree(done / WAREHOUSE / "_models", extracted / WAREHOUSE / "_models")
    result = train(job)
    (row,) = models(job)
    assert (row["model_id"], row["status"]) == (result.model_id, "candidate")
    assert (done / WAREHOUSE / "_models" / result.model_id).exists()


def test_a_night_without_validation_inherits_what_the_newest_approved_model_of_an_earlier_day_found(
    spark, tmp_path, tmp_path_factory, caplog
):
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)

    def night(ds, **train):
        return job_at(spark, folder, "train", ds, split={"protocol": "none"}, train={"epochs": 1, **train})

    (measured,) = models(night(NEXT))
    found = artifact.read_manifest(folder / WAREHOUSE / measured["path"]).tuned
    result = train(night(NEXT))
    (made,) = (row for row in models(night(NEXT)) if row["model_id"] == result.model_id)
    manifest = artifact.read_manifest(folder / WAREHOUSE / made["path"])
    assert manifest.inherited_from == measured["model_id"]
    assert {name: manifest.tuned[name] for name in found} == manifest.inherited == found
    assert manifest.tuned["games"].fusion == Fusion(), "no model knows it"
    assert any(settings.fusion != Fusion() for settings in found.values()), "else it shows nothing"

    night(NEXT).warehouse.merge_records("models", [made | {"status": "approved"}], night(NEXT).commit())
    assert train(night(NEXT)).model_id == result.model_id, "the day again, after its own model was approved"
    assert _inherited(night(NEXT + timedelta(days=1))) == (result.model_id, found), "handed on"
    assert len({_model_id(night(NEXT).config, {}, NEXT, of) for of in (None, measured["model_id"], result.model_id)}) == 3
    assert _inherited(night(NEXT + timedelta(days=1), tune=False)) == _inherited(night(DAY)) == (None, {})

    shutil.rmtree(folder / WAREHOUSE / made["path"])
    with caplog.at_level(logging.WARNING, "metarec_spark"):
        assert _inherited(night(NEXT + timedelta(days=1))) == (measured["model_id"], found)
    assert f"no settings are inherited from model {result.model_id}: model " in caplog.text
    night(NEXT).warehouse.merge_records("models", [measured | {"status": "rejected"}], night(NEXT).commit())
    assert _inherited(night(NEXT + timedelta(days=1))) == (None, {})


def test_more_ranks_than_sequences_is_an_error_that_says_what_to_do(spark, extracted):
    with pytest.raises(
        DataError, match=r"31 users with a training event after their first one in books, films; 64 rank.*lower train.processes"
    ):
        train(job_at(spark, extracted, "train", train={"processes": 64}))


def test_spark_launches_the_ranks_too(spark, extracted):
    job = job_at(spark, extracted, "train", train={"processes": 2, "launcher": "spark", "epochs": 1, "refit_epochs": 0})
    result = train(job)
    manifest = artifact.read_manifest(extracted / WAREHOUSE / models(job)[0]["path"])
    assert manifest.metrics.history[0].sequences == result.rows_in == 31
