"""The predictor, on trials written by hand: a mode helps if users are shared, and harms otherwise."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from metarec_spark.errors import ConfigError
from metarec_spark.transfer import predictor
from metarec_spark.transfer.predictor import FEWEST_TASKS, Trial, advise, check_installed, leave_one_task_out

TREES = 30
NAMES = ("users", "items", "events", "density", "entropy", "source_users", "source_events", "shared_users", "shared_words")


def meta_features(shared: float, seed: int = 0) -> dict[str, float]:
    draw = np.random.default_rng(seed).uniform(0.4, 0.6, len(NAMES) + 1)
    return dict(zip((*NAMES, "predictability"), draw, strict=True)) | {"shared_users": shared}


def trials(tasks: int) -> list[Trial]:
    """In each task, frozen_encoder gains the share of shared users less a half, joint the opposite, the third mode nothing."""
    shares = np.linspace(0, 1, tasks)
    return [
        Trial(f"task {n}", mode, meta_features(share, n), sign * (share - 0.5))
        for n, share in enumerate(shares)
        for mode, sign in (("frozen_encoder", 1), ("joint", -1), ("cross_domain_heuristic", 0))
    ]


def test_the_mode_with_the_highest_predicted_gain_comes_first_and_modes_surely_below_it_are_not_tried():
    modes = ["cross_domain_heuristic", "joint", "frozen_encoder", "fine_tuned_from_meta"]
    much, little, some = (advise(trials(21), meta_features(shared), modes, TREES) for shared in (1.0, 0.0, 0.5))
    assert (much.order[0], set(much.hopeless)) == ("frozen_encoder", {"cross_domain_heuristic", "joint"})
    assert (little.order[0], set(little.hopeless)) == ("joint", {"cross_domain_heuristic", "frozen_encoder"})
    assert len(some.hopeless) < 2, "all are predicted to gain about the same"
    assert "fine_tuned_from_meta" in much.order  # never tried: not hopeless


def test_if_no_mode_is_predicted_to_help_the_best_one_is_tried():
    harmful = [Trial(trial.task, trial.mode, trial.meta_features, -trial.meta_features["shared_users"]) for trial in trials(20)]
    advice = advise(harmful, meta_features(1.0), ["cross_domain_heuristic", "joint", "frozen_encoder"], TREES)
    assert (len(advice.order), len(advice.hopeless)) == (1, 2)


def test_with_few_tasks_all_modes_are_tried_in_the_given_order():
    advice = advise(trials(FEWEST_TASKS - 1), meta_features(1.0), ["joint", "frozen_encoder"])
    assert (advice.order, advice.hopeless, advice.predicted) == (["joint", "frozen_encoder"], [], {})


def test_if_meta_features_predict_nothing_the_given_order_stands():
    noise = np.random.default_rng(0).standard_normal(60)
    meaningless = [Trial(f"task {n // 3}", f"mode {n % 3}", meta_features(0.5), float(gain)) for n, gain in enumerate(noise)]
    assert advise(meaningless, meta_features(0.5), ["mode 2", "mode 0"], TREES).order == ["mode 2", "mode 0"]


def test_the_error_is_of_tasks_that_were_left_out():
    error = leave_one_task_out(trials(20), TREES)
    assert error.rank_correlation > 0.8
    # The mean of each mode over the other 19 tasks errs by 20/19 of its distance from the mean of all.
    shares = np.linspace(0, 1, 20)
    expected = np.mean([abs(sign * (shares - 0.5)) for sign in (1, -1, 0)]) * 20 / 19
    assert error.absolute_of_mean == pytest.approx(expected)
    assert error.absolute < error.absolute_of_mean / 2


def test_without_scikit_learn_the_predictor_is_an_error_of_the_configuration(monkeypatch):
    check_installed()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"adapt.predictor = true needs scikit-learn.*\[predictor\]"):
        check_installed()


def test_scikit_learn_is_imported_only_when_a_predictor_is_fitted():
    at_top = [ast.unparse(node) for node in ast.parse(Path(predictor.__file__).read_text()).body]
    imports = [line for line in at_top if line.startswith(("import ", "from "))]
    assert imports and not [line for line in imports if "sklearn" in line]
