"""Ranks of held-out targets among their domain's items."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.factories import batch_of, with_baselines
from model.factories import catalogue, contexts, model, saved

from metarec_spark import columns as c
from metarec_spark.evaluation.ranks import RankingTask, rank


def ranked(folder, *pairs: dict, **task: object) -> dict[str, list[dict]]:
    """Scorer → rows, of pairs given by context, target, seen, repeat and train_events; all of domain 0, the even items."""
    batch = batch_of(*pairs)
    made = RankingTask(str(folder), str(folder / "baselines"), **{"longest": 3, "few_events": 3, "long_events": 4} | task)
    rows = [row for found in rank([batch], made) for row in found.to_pylist()]
    return {name: [row for row in rows if row["scorer"] == name] for name in c.SCORERS}


@pytest.fixture
def folder(tmp_path):
    follows = np.zeros((20, 20))
    follows[4, 6], follows[4, 8], follows[2, 10] = 2.0, 2.0, 1.0
    return with_baselines(saved(tmp_path / "model", catalogue(transitions=follows)))


def test_the_models_rank_is_the_targets_place_in_the_sorted_scores(folder):
    found, made = ranked(folder, {"seen": [2, 4]}), model(catalogue())
    user = made.user_vectors(made.encode(contexts([[2, 4]])), 0)[0].detach()
    base = {item: float(made.scale * user @ made.catalogue_vectors()[item]) for item in range(0, 20, 2) if item not in (2, 4)}
    # History 2, decay 0.5, fused by 2 · log(1 + 3 g).
    lent = {6: 2.0, 8: 2.0, 10: 0.5}
    fused = {item: score + 2 * np.log1p(3 * lent.get(item, 0.0)) for item, score in base.items()}
    for (row,), scores in ((found["model"], fused), (found["encoder"], base)):
        check(row, scores)


def check(row, scores):
    order = sorted(scores, key=scores.get, reverse=True)
    assert (row["rank"], row["candidates"], row["top"]) == (1 + order.index(6), 8, order[:3])
    assert row["loss"] == pytest.approx(np.log(sum(np.exp(value) for value in scores.values())) - scores[6], rel=1e-4)


def test_ties_count_against_the_target(folder):
    found = ranked(folder, {"target": 6}, {"target": 10}, {"target": 0})["transitions"]
    assert [row["rank"] for row in found] == [2, 3, 10]  # 6 ties with 8; 10 is third; 0 ties with all that nothing votes for
    assert [row["loss"] for row in found] == [None] * 3


def test_seen_items_are_left_out_and_the_target_is_not(folder):
    found = ranked(folder, {"target": 0}, {"target": 0, "seen": [18, 16, 3]}, {"target": 14, "seen": [18, 16, 3]})["popularity"]
    assert [(row["rank"], row["candidates"]) for row in found] == [(10, 10), (8, 8), (1, 8)]
    assert found[1]["top"] == [14, 12, 10]


@pytest.mark.parametrize("target", [99, 7])
def test_a_target_that_the_domain_lacks_ranks_last(folder, target):
    for rows in ranked(folder, {"target": target, "seen": [2, 4]}).values():
        assert (rows[0]["rank"], rows[0]["candidates"], rows[0]["loss"], rows[0]["cold_item"]) == (8, 8, None, True)


def test_an_empty_context_is_ranked_by_popularity(folder):
    found = ranked(folder, {"context": [], "target": 16, "train_events": 0}, {"context": [2], "target": 16})
    assert found["model"][0]["rank"] == found["popularity"][0]["rank"] == 2
    assert found["model"][0]["top"] == [18, 16, 14]
    assert found["model"][1]["top"] != [18, 16, 14]


def test_segments_follow_from_training_events(folder):
    events = ranked(folder, *({"train_events": n, "target": t} for n, t in ((0, 6), (1, 0), (3, 6), (4, 6))))["model"]
    assert [(row["cold_user"], row["few_events"], row["long_user"], row["cold_item"]) for row in events] == [
        (True, False, False, False), (False, True, False, True), (False, True, False, False), (False, False, True, False),
    ]  # fmt: skip


def test_ranks_do_not_depend_on_the_other_pairs(folder):
    pairs = [{"context": [i % 20, (i + 3) % 20], "target": (2 * i) % 20} for i in range(300)]
    assert [row["rank"] for row in ranked(folder, *pairs)["model"]][5] == ranked(folder, pairs[5])["model"][0]["rank"]


def test_a_repeat_is_measured_apart_if_lists_leave_seen_items_out(folder):
    pair = {"context": [2, 4], "target": 4, "repeat": True, "seen": [2]}
    (excluded,) = ranked(folder, pair)["model"]
    assert (excluded["all"], excluded["repeat"], excluded["first_time"], excluded["few_events"]) == (False, True, False, False)
    (allowed,) = ranked(folder, pair, seen_allowed=frozenset(["books"]))["model"]
    assert (allowed["all"], allowed["repeat"], allowed["first_time"], allowed["few_events"]) == (True, True, False, True)


def test_seen_items_stay_in_the_ranking_if_lists_may_hold_them(folder):
    (row,) = ranked(folder, {"target": 14, "seen": [18, 16]}, seen_allowed=frozenset(["books"]))["popularity"]
    assert (row["rank"], row["candidates"], row["top"]) == (3, 10, [18, 16, 14])


def test_each_row_knows_the_rank_that_the_model_gave(folder):
    found = ranked(folder, {"target": 6}, {"target": 10})
    by_model = [row["rank"] for row in found["model"]]
    for rows in found.values():
        assert [row["model_rank"] for row in rows] == by_model
