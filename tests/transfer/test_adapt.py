"""adapt: a platform appears the day after a base model was trained."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from training.warehouses import DAY, ITEMS, NEXT, WAREHOUSE, event, job_at, rows_of, walkers, write_log

from metarec_spark.config.sections import Adapt, Split
from metarec_spark.demo import transfer_shown
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.evaluation.evaluate import evaluate
from metarec_spark.features.catalogue import TRANSITIONS, catalogue_transitions
from metarec_spark.features.extract import extract
from metarec_spark.model import artifact
from metarec_spark.scoring.recommend import recommend
from metarec_spark.training.train import train
from metarec_spark.transfer.adapt import adapt, distinct, trials
from metarec_spark.transfer.modes import MODES
from metarec_spark.transfer.task import Task
from metarec_spark.warehouse.storage import uri

TRANSFERS = sorted(name for name, mode in MODES.items() if not mode.baseline)
SMALL = {"training_events": 3000, "source_events": 60, "seeds": 2, "modes": TRANSFERS}
BOOKS = [row for row in walkers(40) if row[1] == "books"]
# Readers of books walk through songs too, in the same order.
SONGS = [
    event(f"u{user}", "songs", f"s{(user + step) % ITEMS}", DAY - timedelta(days=4 - step), 15)
    for user in range(25)
    for step in range(4)
]


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapt")
    write_log(folder / "log" / "1.parquet", BOOKS)
    for work in (extract, train, evaluate):
        work(job_at(spark, folder, work.__name__))
    write_log(folder / "log" / "2.parquet", SONGS)
    extract(job_at(spark, folder, "extract", NEXT), history=True)
    return folder


@pytest.fixture(scope="module")
def adapted(spark, folder):
    return adapt(job_at(spark, folder, "adapt", NEXT, adapt=SMALL), "songs")


def models(spark, folder) -> dict[str, dict]:
    return {row["model_id"]: row.asDict() for row in job_at(spark, folder, "adapt").warehouse.read("models").collect()}


def test_the_domain_gets_an_approved_model_of_its_own(spark, folder, adapted):
    row = models(spark, folder)[adapted.model_id]
    (base,) = (row for row in models(spark, folder).values() if row["kind"] == "base")
    assert (row["kind"], row["status"], row["domains"], row["parent"]) == ("adapted", "approved", ["songs"], base["model_id"])
    made = artifact.load(folder / WAREHOUSE / row["path"])
    twin, songs = artifact.load(artifact.measured(str(made.folder))), made.catalogue.of_domain[made.domains.index("songs")]
    assert (made.catalogue.events[songs].sum(), twin.catalogue.events[songs].sum()) == (len(SONGS), len(SONGS) - 2 * 25)
    assert made.manifest.tuned == twin.manifest.tuned and made.manifest.model_id == twin.manifest.model_id
    assert "songs" in made.domains and "songs" not in artifact.load(folder / WAREHOUSE / base["path"]).domains
    assert row["reason"] == adapted.reason
    assert not list((folder / WAREHOUSE / "_training").iterdir())


def test_what_was_tried_is_on_record(spark, folder, adapted):
    rows = [row.asDict() for row in job_at(spark, folder, "adapt").warehouse.read("transfer_runs").collect()]
    assert {row["mode"] for row in rows} == set(MODES) - {"fine_tuned_from_meta"}
    assert {row["share"] for row in rows if row["mode"] == "from_scratch"} == {1.0}
    assert len([row for row in rows if row["share"] == 0.5]) == 2, "of four transfers with an encoder, two go on"
    assert {row["mode"] for row in rows if row["used"]} == {adapted.details.used}
    facts = rows[0]["statistics"]
    assert (facts["users"], facts["items"], facts["events"], facts["shared_users"]) == (25, ITEMS, 50, 1.0)


def test_the_trials_of_an_adaptation_are_its_transfers_with_the_largest_share_of_the_budget(spark, folder, adapted):
    job = job_at(spark, folder, "adapt")
    rows = [row.asDict() for row in job.warehouse.read("transfer_runs").where("seed = 0").collect()]
    found = {trial.mode: trial for trial in trials(job)}
    assert set(found) == set(TRANSFERS) - {"fine_tuned_from_meta"}
    for name, trial in found.items():
        longest = max((row for row in rows if row["mode"] == name), key=lambda row: row["share"])
        assert (trial.task, trial.gain, trial.meta_features) == (longest["run_id"], longest["gain"], longest["statistics"])


def test_no_transfer_is_trained_that_is_identical_to_another():
    def without(method: str, source_events: int, **settings) -> set[str]:
        chosen = Adapt(source_events=100, **{"modes": TRANSFERS} | settings)
        return set(chosen.modes) - {mode.name for mode in distinct(chosen, method, source_events)}

    assert without("joint", 101) == {"fine_tuned_from_meta"}
    assert without("joint", 100) == {"fine_tuned_from_meta", "importance_sampled"}, "joint is trained on everybody"
    assert without("reptile", 101) == without("fomaml", 101) == {"fine_tuned"}
    assert without("reptile", 100, modes=["importance_sampled", "fine_tuned"]) == set(), "nothing else is identical"


def test_each_domain_is_served_by_its_newest_model(spark, folder, adapted):
    job = job_at(spark, folder, "recommend", NEXT)
    recommend(job)
    by = {(row["domain"], row["model_id"]) for row in job.warehouse.read("recommendations").collect()}
    (base,) = (model_id for model_id, row in models(spark, folder).items() if row["kind"] == "base")
    assert by == {("books", base), ("songs", adapted.model_id)}


def test_the_demo_shows_each_candidate_and_the_verdict(spark, folder, adapted):
    job = job_at(spark, folder, "recommend", NEXT)
    recommend(job)
    table, verdict = transfer_shown(job.warehouse, "songs", NEXT, NEXT)
    shown = {column.header: list(column.cells) for column in table.columns}
    whole = job.warehouse.read("transfer_runs").where("share = 1 and seed = 0").collect()
    assert sorted(shown["candidate"]) == sorted(row["mode"] for row in whole)
    assert [mode for mode, serves in zip(shown["candidate"], shown[""], strict=True) if serves] == [adapted.details.used]
    assert verdict == f"The verdict: {adapted.reason}."


def test_the_same_day_again_ends_in_the_same_tables(spark, folder, adapted):
    job = job_at(spark, folder, "adapt", NEXT, adapt=SMALL)
    before = [rows_of(job, name) for name in ("models", "transfer_runs")]
    extract(job_at(spark, folder, "extract", NEXT))  # writes a version of events, with the same rows
    assert adapt(job, "songs").model_id == adapted.model_id
    assert [rows_of(job, name) for name in ("models", "transfer_runs")] == before


def test_snapshots_have_the_tasks_transitions_but_the_one_with_all_events(spark, folder):
    task = Task.from_tables(job_at(spark, folder, "adapt", NEXT, adapt=SMALL | {"source_events": 61}), "songs")
    snapshots = [*task.snapshots(["own", "uniform"]).values(), task.all_events("uniform")]
    expected = sorted(catalogue_transitions(task.tables["item_transitions"]).collect())
    same = [sorted(spark.read.parquet(f"{uri(one.folder)}/{TRANSITIONS}").collect()) == expected for one in snapshots]
    assert expected and same == [True, True, False], "the last one counts held-out events"


def test_a_domain_without_items_is_an_error(spark, folder):
    with pytest.raises(DataError, match="'games' has no item; known are books, songs"):
        adapt(job_at(spark, folder, "adapt", NEXT), "games")


def test_nothing_held_out_is_an_error(spark, folder):
    with pytest.raises(ConfigError, match="leave_one_out"):
        adapt(job_at(spark, folder, "adapt", NEXT, split={"protocol": "none"}), "songs")


def test_if_days_are_held_out_the_first_event_of_a_later_day_is_predicted(spark, folder):
    split = {"protocol": "temporal", "test_days": 3}
    found = adapt(job_at(spark, folder, "adapt", NEXT, split=split, adapt={"training_events": 3000}), "songs")
    assert found.rows_in == 25, "a pair of each reader: the step of the day before the test"
    manifest = artifact.read_manifest(folder / WAREHOUSE / models(spark, folder)[found.model_id]["path"])
    assert manifest.split == Split(protocol="temporal", test_days=3, validation_days=1)
    expected = {"heuristic", "ranker", "from_scratch", "meta_trained_ranker", "fine_tuned"}
    assert set(found.details.validation_ndcg) == expected, "the candidates by default"
