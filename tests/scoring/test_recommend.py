"""recommend: the day's lists, checked against the tables that they were made from."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyspark.sql import functions as F
from training.warehouses import DAY, NEXT, copied, job_at, rows_of, stages

from metarec_spark.errors import ModelRejected
from metarec_spark.model import artifact
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring import batch
from metarec_spark.scoring.batch import contexts_of
from metarec_spark.scoring.recommend import _Workload, inputs, recommend
from metarec_spark.scoring.timings import Timings
from metarec_spark.warehouse.storage import local_path

KNOWN = {"books": {f"b{i}" for i in range(10)}, "films": {f"f{i}" for i in range(10)}}


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory):
    return copied(stages(spark, tmp_path_factory).evaluated, tmp_path_factory.mktemp("recommend"))


@pytest.fixture(scope="module")
def seen(spark, folder):
    found = defaultdict(set)
    for row in job_at(spark, folder, "recommend").warehouse.read("events").collect():
        found[row["user_id"], row["domain"]].add(row["item_id"])
    return dict(found)


def lists(spark, folder, **section) -> dict:
    """(user, domain) → row, after a run of NEXT."""
    job = job_at(spark, folder, "recommend", NEXT, recommend=section)
    recommend(job)
    rows = job.warehouse.read("recommendations").where(f"ds = DATE'{NEXT}'").collect()
    assert len({(row["user_id"], row["domain"]) for row in rows}) == len(rows)
    return {(row["user_id"], row["domain"]): row for row in rows}


def check_items(found, seen, n):
    for (user, domain), row in found.items():
        items, scores = [item["item_id"] for item in row["items"]], [item["score"] for item in row["items"]]
        unseen = KNOWN[domain] - seen.get((user, domain), set())
        assert len(items) == len(set(items)) == min(n, len(unseen))
        assert set(items) <= unseen
        assert scores == sorted(scores, reverse=True)


def test_active_users_get_as_many_unseen_items_of_their_domains_as_there_are(spark, folder, seen):
    found = lists(spark, folder)
    assert set(found) == {key for key in seen if key[1] in KNOWN}
    check_items(found, seen, 5)
    assert found["fan", "books"]["items"] == []
    # Unknown to the model: the item, so the user's list is by popularity, and says so.
    assert {user for (user, _), row in found.items() if row["kind"] == "popularity"} == {"new"}
    scores = [item["score"] for item in found["new", "books"]["items"]]
    assert min(scores) >= 1 and all(score == int(score) for score in scores)


def test_the_same_day_again_gives_the_same_rows_and_leaves_other_days(spark, folder):
    earlier = job_at(spark, folder, "recommend", DAY)
    recommend(earlier)
    job = job_at(spark, folder, "recommend", NEXT)
    recommend(job)
    before = rows_of(job, "recommendations")
    result = recommend(job_at(spark, folder, "recommend", NEXT))
    assert rows_of(job, "recommendations") == before
    assert {row[0] for row in before} == {DAY, NEXT}
    assert result.rows_out == sum(row[0] == NEXT for row in before)


def test_all_users_get_lists_in_all_domains_and_seen_items_where_they_are_wanted(spark, folder, seen):
    found = lists(spark, folder, users="all", top_n=20, exclude_seen=False)
    assert set(found) == {(user, domain) for user, _ in seen for domain in KNOWN}
    check_items(found, {}, 20)
    for (user, domain), row in found.items():
        by_events = "model" if (user, domain) in seen else "cold"
        assert row["kind"] == ("popularity" if user in ("new", "gamer") else by_events)


def test_a_cold_users_list_is_by_the_domains_query_and_by_what_other_domains_lend(spark, folder, seen):
    found = lists(spark, folder, users="all", top_n=10, exclude_seen=False)
    job = job_at(spark, folder, "recommend", NEXT)
    model = artifact.load(local_path(job.warehouse.path(job.warehouse.read("models").first()["path"])))
    users = inputs(job.warehouse.read("user_sequences"), model.manifest, model.domains, None, everywhere=True)
    cold = [user for user, domain in seen if domain == "books" and (user, "films") not in seen and user != "new"]
    (of_cold,) = users.where(F.col("user_id").isin(cold)).toArrow().combine_chunks().to_batches()
    scorer, context = Scorer(model), contexts_of(of_cold)
    assert (context.domain == 0).all(), "books alone"
    base = scorer.encoder_scores(scorer.hidden(context), 1)
    assert scorer.transition_scores(context, 1).sum(1).min() > 0, "books lend to films"
    names = [model.item_ids()[int(item)].as_py() for item in model.catalogue.of_domain[1]]
    for user, scores in zip(of_cold["user_id"].to_pylist(), scorer.ensemble_scores(base, context, 1).tolist(), strict=True):
        assert found[user, "films"]["kind"] == "cold"
        shown = {item["item_id"]: item["score"] for item in found[user, "films"]["items"]}
        assert shown == pytest.approx(dict(zip(names, scores, strict=True)), abs=1e-4)


def test_lists_do_not_depend_on_who_is_scored_at_a_time(spark, folder, monkeypatch):
    job = job_at(spark, folder, "recommend", NEXT)
    model = local_path(job.warehouse.path(job.warehouse.read("models").first()["path"]))
    made = artifact.load(model)
    users = inputs(job.warehouse.read("user_sequences"), made.manifest, made.domains, None, everywhere=True).toArrow()
    (users,), found = users.combine_chunks().to_batches(), []
    for at_a_time in (len(users), 7):
        monkeypatch.setattr(batch, "_USERS", at_a_time)
        rows = pa.Table.from_batches(
            batch.score(iter([users]), batch.ScoringTask(str(model), 5, frozenset()), Timings(spark.sparkContext))
        )
        found.append(rows.sort_by([("user_id", "ascending"), ("domain", "ascending")]).to_pylist())
    whole, parts = found
    assert len(parts) == 2 * len(users) > 14
    ids = [[item["item_id"] for item in row["items"]] for row in whole]
    assert ids == [[item["item_id"] for item in row["items"]] for row in parts]


def test_a_run_says_how_many_pairs_it_ranked_and_where_the_time_went(spark, folder, seen):
    details = recommend(job_at(spark, folder, "recommend", NEXT, recommend={"mode": "full"})).details
    assert details.pairs == sum(len(KNOWN[domain]) for _, domain in seen if domain in KNOWN)
    seconds = details.processor_seconds
    assert set(seconds) == {"encoding", "additions", "search", "other"}
    assert seconds["search"] > 0 and seconds["other"] > 0


@pytest.mark.parametrize(
    ("users", "items", "tasks"),
    [
        (0, 10, 1),
        (10_000, 10, 1),
        (30_000, 10, 2),
        (100_000, 10, 4),
        (1_000_000, 10, 20),
        (1_000_000, 50_000, 20),
        (10_000, 10**6, 4),
    ],
)
def test_a_process_that_would_start_for_few_users_does_not(users, items, tasks):
    work = _Workload(users, {"m": users * items}, None, cores=4)
    assert work.tasks(SimpleNamespace(model_id="m")) == tasks


def test_without_an_approved_model_there_are_no_lists(spark, folder):
    before = job_at(spark, folder, "recommend").warehouse.version("models")
    with pytest.raises(ModelRejected, match="no approved model on or before 2024-01-09 .*metarec evaluate"):
        recommend(job_at(spark, folder, "recommend", DAY.replace(day=9)))
    assert job_at(spark, folder, "recommend").warehouse.version("models") == before
