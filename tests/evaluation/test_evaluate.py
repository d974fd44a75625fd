"""evaluate: metrics rows, and what becomes of the model."""

from __future__ import annotations

import shutil

import pytest
from training.warehouses import DAY, copied, job_at, rows_of, stages

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.errors import DataError
from metarec_spark.evaluation.approval import Decision
from metarec_spark.evaluation.champion import Comparison
from metarec_spark.evaluation.evaluate import EvaluateDetails, _beside_champions, _entered, evaluate
from metarec_spark.job import Result
from metarec_spark.model import artifact
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.training.train import train
from metarec_spark.warehouse.storage import local_path


@pytest.fixture
def folder(spark, tmp_path, tmp_path_factory):
    return copied(stages(spark, tmp_path_factory).evaluated, tmp_path)


@pytest.fixture
def extracted(spark, tmp_path, tmp_path_factory):
    return copied(stages(spark, tmp_path_factory).extracted, tmp_path)


def test_a_rejected_model_is_entered_as_such_and_gives_the_commands_exit_code(spark, folder):
    job = job_at(spark, folder, "evaluate")
    model = job.warehouse.read("models").first()
    row, decision = registry.chosen(job, None), Decision("rejected", "too weak", weak=False)
    assert _entered(job, row, decision, Result(details=EvaluateDetails("rejected"))).exit_code == 4
    (after,) = job.warehouse.read("models").collect()
    assert after.asDict() == model.asDict() | {"status": "rejected", "reason": "too weak"}


def test_every_scorer_and_domain_is_measured_over_all_users(spark, folder):
    job = job_at(spark, folder, "evaluate")
    rows = job.warehouse.read("metrics").where("segment = 'all' AND metric = 'ndcg' AND k = 10").collect()
    users = {(row["split"], row["domain"], row["scorer"]): row["users"] for row in rows}
    pairs = {"books": 31, "films": 15}
    assert users == {("test", domain, s): n for domain, n in pairs.items() for s in c.SCORERS}
    assert all(0 < row["value"] <= 1 for row in rows)
    (model,) = job.warehouse.read("models").collect()
    assert (model["status"], model["reason"][:8]) == ("approved", "NDCG@10 ")


def test_the_same_model_again_gives_the_same_rows_whatever_came_since(spark, folder):
    job = job_at(spark, folder, "evaluate")
    before = {name: rows_of(job, name) for name in ("metrics", "models")}
    result = evaluate(job_at(spark, folder, "evaluate"))
    assert {name: rows_of(job, name) for name in before} == before
    assert (result.exit_code, result.rows_in, result.details.status) == (0, 46, "approved")


def test_a_model_is_judged_at_ten_whatever_cutoffs_are_reported(spark, folder):
    evaluate(job_at(spark, folder, "evaluate", evaluate={"cutoffs": [3]}))


def test_a_model_with_nothing_held_out_is_approved_as_unmeasured(spark, extracted):
    train(job_at(spark, extracted, "train", split={"protocol": "none"}, train={"epochs": 1}))
    job = job_at(spark, extracted, "evaluate")
    assert evaluate(job).exit_code == 0
    (model,) = job.warehouse.read("models").collect()
    assert (model["status"], model["reason"]) == ("approved", "not measured: split.protocol is none")
    assert not job.warehouse.exists("metrics")


def test_the_twin_is_measured_and_the_reason_and_the_report_say_so(spark, folder, tmp_path, tmp_path_factory):
    def figures(warehouse) -> list[tuple]:
        return sorted(map(tuple, job_at(spark, warehouse, "evaluate").warehouse.read("metrics").drop("model_id").collect()))

    (model,) = job_at(spark, folder, "evaluate").warehouse.read("models").collect()
    place = local_path(job_at(spark, folder, "evaluate").warehouse.path(model["path"]))
    said = "the twin, which has not learnt the held-out events"
    assert said in model["reason"] and said in (place / "report.html").read_text() and said in (place / "report.json").read_text()
    extracted = copied(stages(spark, tmp_path_factory).extracted, tmp_path / "without refit")
    train(job_at(spark, extracted, "train", train={"refit_epochs": 0}))
    assert evaluate(job_at(spark, extracted, "evaluate")).reason.endswith("; of what serves")
    assert figures(extracted) == figures(folder)

    shutil.rmtree(place / "twin")
    with pytest.raises(DataError, match=r"twin: no manifest.json; the folder is not a whole model"):
        evaluate(job_at(spark, folder, "evaluate"), model["model_id"])


def test_the_report_lies_beside_the_model_and_shows_what_was_measured(spark, folder):
    job = job_at(spark, folder, "evaluate")
    model = job.warehouse.read("models").first()
    row = job.warehouse.read("metrics").where(
        "split = 'test' AND segment = 'all' AND scorer = 'model' AND domain = 'books' AND metric = 'ndcg' AND k = 10"
    ).first()  # fmt: skip
    text = (local_path(job.warehouse.path(model["path"])) / "report.html").read_text()
    assert f"{row['value']:.4f}" in text and model["model_id"] in text
    assert text.count("u1") and "books" in text


def test_a_model_can_be_chosen_and_of_several_the_one_not_yet_judged_comes_first(spark, folder):
    job = job_at(spark, folder, "evaluate")
    (judged,) = job.warehouse.read("models").collect()
    later = judged.asDict() | {"model_id": "0", "status": "candidate"}
    job.warehouse.merge_records("models", [later], job.commit())
    assert registry.chosen(job, None).model_id == "0"
    assert registry.chosen(job, judged["model_id"]).model_id == judged["model_id"]
    with pytest.raises(DataError, match="no model nothing on or before"):
        registry.chosen(job, "nothing")


def entered(job, served, model_id: str, *spoiled: str) -> None:
    """Enter a copy of a model's twin that scores all items the same on some domains, so that every target is last."""
    twin = artifact.load(artifact.measured(job.warehouse.path(served["path"])))
    nothing = {
        name: twin.manifest.tuned[name].model_copy(update={"fusion": Fusion(encoder=0, transitions=0)}) for name in spoiled
    }
    manifest = twin.manifest.model_copy(update={"model_id": model_id, "tuned": twin.manifest.tuned | nothing})
    folder = job.warehouse.path(f"_models/{model_id}")
    artifact.save(folder, manifest, twin.model, twin.catalogue, twin.item_ids())
    registry.enter(job, manifest, folder)


def test_a_platform_on_which_a_candidate_is_worse_beyond_noise_stays_with_the_model_that_serves_it(spark, folder):
    job = job_at(spark, folder, "evaluate")
    (served,) = job.warehouse.read("models").collect()
    entered(job, served, f"{DAY}-y", "films")
    result = evaluate(job, f"{DAY}-y")
    assert (result.details.status, result.exit_code) == ("approved", 0)
    assert ", films -0." in result.reason and f" beside {served['model_id']}, which goes on serving it" in result.reason
    assert {name: row.model_id for name, row in registry.serving_rows(job).items()} == {
        "books": f"{DAY}-y",
        "films": served["model_id"],
    }
    assert result.details.serving["books"]["lead"] == 0 and result.details.serving["films"]["lead"] < 0
    before = rows_of(job, "models")
    evaluate(job_at(spark, folder, "evaluate"), f"{DAY}-y")
    assert rows_of(job, "models") == before

    entered(job, served, f"{DAY}-z")
    evaluate(job, f"{DAY}-z")
    assert {row.model_id for row in registry.serving_rows(job).values()} == {f"{DAY}-z"}, "not worse, so the newest serves"


def test_a_model_that_is_worse_on_every_platform_is_rejected_and_the_reason_says_so_first():
    approved, lost = Decision("approved", "not worse than popularity's", weak=False), Comparison("m", -0.2, 0.1, 9)
    decision, serves = _beside_champions(approved, ["books"], {"books": lost})
    assert (decision.status, decision.weak, serves) == ("rejected", True, [])
    assert decision.reason.startswith(
        "worse than the serving model on every platform; not worse than popularity's; books -0.2000"
    )
    decision, serves = _beside_champions(approved, ["books", "films"], {"books": lost})
    assert (decision.status, decision.weak, serves) == ("approved", True, ["films"])
    assert decision.reason.startswith("not worse than popularity's; books -0.2000")


def test_there_must_be_a_model(spark, folder):
    with pytest.raises(DataError, match="no model on or before 2024-01-09 .*metarec train"):
        evaluate(job_at(spark, folder, "evaluate", DAY.replace(day=9)))
