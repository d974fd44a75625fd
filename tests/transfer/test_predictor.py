"""The predictor, on trials written by hand: a mode helps where people are shared, and harms elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from metarec_spark.transfer.predictor import FEWEST_TASKS, Trial, advise, leave_one_task_out

NAMES = ("users", "items", "events", "density", "entropy", "source_users", "source_events", "shared_users", "shared_words")


def facts(shared: float, seed: int = 0) -> dict[str, float]:
    draw = np.random.default_rng(seed).uniform(0.4, 0.6, len(NAMES) + 1)
    return dict(zip((*NAMES, "predictability"), draw, strict=True)) | {"shared_users": shared}


def trials(tasks: int) -> list[Trial]:
    """Of each task: frozen gains what is shared less a half, pooled the opposite, lent nothing."""
    shares = np.linspace(0, 1, tasks)
    return [
        Trial(f"task {n}", mode, facts(share, n), sign * (share - 0.5))
        for n, share in enumerate(shares)
        for mode, sign in (("frozen", 1), ("pooled", -1), ("lent", 0))
    ]


def test_the_likely_mode_comes_first_and_what_it_surely_beats_is_left_out():
    modes = ["lent", "pooled", "frozen", "meta"]
    much, little, some = (advise(trials(20), facts(shared), modes) for shared in (1.0, 0.0, 0.5))
    assert (much.order[0], set(much.hopeless)) == ("frozen", {"lent", "pooled"})
    assert (little.order[0], set(little.hopeless)) == ("pooled", {"lent", "frozen"})
    assert some.hopeless == [], "all are predicted to gain about the same"
    assert "meta" in much.order  # never tried: not hopeless


def test_where_no_mode_is_predicted_to_help_the_likeliest_is_tried():
    harmful = [Trial(of.task, of.mode, of.statistics, -of.statistics["shared_users"]) for of in trials(20)]
    advice = advise(harmful, facts(1.0), ["lent", "pooled", "frozen"])
    assert (len(advice.order), len(advice.hopeless)) == (1, 2)


def test_with_few_tasks_all_modes_are_tried_in_the_given_order():
    advice = advise(trials(FEWEST_TASKS - 1), facts(1.0), ["pooled", "frozen"])
    assert (advice.order, advice.hopeless, advice.predicted) == (["pooled", "frozen"], [], {})


def test_where_statistics_say_nothing_the_given_order_stands():
    noise = np.random.default_rng(0).standard_normal(60)
    meaningless = [Trial(f"task {n // 3}", f"mode {n % 3}", facts(0.5), float(gain)) for n, gain in enumerate(noise)]
    assert advise(meaningless, facts(0.5), ["mode 2", "mode 0"]).order == ["mode 2", "mode 0"]


def test_the_error_is_of_tasks_that_were_left_out():
    error = leave_one_task_out(trials(20))
    assert error.rank_correlation > 0.8
    # The mean of each mode over the other 19 tasks errs by 20/19 of its distance from the mean of all.
    shares = np.linspace(0, 1, 20)
    expected = np.mean([abs(sign * (shares - 0.5)) for sign in (1, -1, 0)]) * 20 / 19
    assert error.absolute_of_mean == pytest.approx(expected)
    assert error.absolute < error.absolute_of_mean / 2
