"""Predicts the gain of each transfer mode on a task from the task's meta-features and earlier adaptations. No Spark.

Experimental: needs scikit-learn (the package's extra "predictor"), which is imported when a predictor is fitted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from metarec_spark.errors import ConfigError

FEWEST_TASKS = 8
_COUNTS = ("users", "items", "events", "source_users", "source_events")
_SHARES = ("density", "entropy", "shared_users", "shared_words", "predictability")


@dataclass(frozen=True)
class Trial:
    """The gain of one mode on one task."""

    task: str
    mode: str
    meta_features: Mapping[str, float]
    """As :func:`metarec_spark.transfer.task_features.task_meta_features` gives them, and predictability."""
    gain: float
    """NDCG@100 over that of the best baseline, less 1."""


@dataclass(frozen=True)
class PredictionError:
    """Error of predictions for tasks that were left out, one at a time."""

    rank_correlation: float
    """Mean over tasks of Spearman's, between predicted and measured gain of the modes; without tasks in which either is
    constant; nan if none is left."""
    absolute: float
    """Mean absolute error."""
    absolute_of_mean: float
    """Mean absolute error of predicting each mode's mean gain in the other tasks, or the mean of all if they did not try it."""


@dataclass(frozen=True)
class Advice:
    """Modes to try, the one with the highest predicted gain first."""

    order: list[str]
    hopeless: list[str]
    """Modes not to try."""
    predicted: dict[str, float]
    """Mode → predicted gain; empty without a prediction."""


def check_installed() -> None:
    """Raise a ConfigError if scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            'adapt.predictor = true needs scikit-learn, which is not installed: pip install "metarec-spark[predictor]", '
            "or set adapt.predictor = false"
        )


class Predictor:
    """Extremely randomised trees over a task's meta-features and the mode (Geurts, Ernst & Wehenkel, 2006)."""

    def __init__(self, trials: Sequence[Trial], trees: int = 200) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        self.modes = sorted({trial.mode for trial in trials})
        self.trees = ExtraTreesRegressor(n_estimators=trees, min_samples_leaf=2, random_state=0)
        self.trees.fit(self._features(trials), [trial.gain for trial in trials])

    def predict(self, trials: Sequence[Trial]) -> np.ndarray:
        """Predicted gain of each trial, [n]; the trials' own gains are not read."""
        return self.trees.predict(self._features(trials))

    def _features(self, trials: Sequence[Trial]) -> np.ndarray:
        rows = []
        for trial in trials:
            counts = [np.log1p(trial.meta_features[name]) for name in _COUNTS]
            shares = [trial.meta_features[name] for name in _SHARES]
            rows.append([*counts, *shares, *(float(trial.mode == mode) for mode in self.modes)])
        return np.array(rows)


def leave_one_task_out(trials: Sequence[Trial], trees: int = 200) -> PredictionError:
    """Error of predicting each task from all the others; there must be at least two tasks."""
    correlations, errors, errors_of_mean = [], [], []
    for task in sorted({trial.task for trial in trials}):
        inside = [trial for trial in trials if trial.task == task]
        others = [trial for trial in trials if trial.task != task]
        measured = np.array([trial.gain for trial in inside])
        predicted = Predictor(others, trees).predict(inside)
        by_mode = {trial.mode: [other.gain for other in others if other.mode == trial.mode] for trial in inside}
        all_gains = [other.gain for other in others]
        mean = np.array([np.mean(by_mode[trial.mode] or all_gains) for trial in inside])
        errors += list(abs(predicted - measured))
        errors_of_mean += list(abs(mean - measured))
        if np.ptp(measured) > 0 and np.ptp(predicted) > 0:
            correlations.append(spearmanr(predicted, measured).statistic)
    correlation = float(np.mean(correlations)) if correlations else float("nan")
    return PredictionError(correlation, float(np.mean(errors)), float(np.mean(errors_of_mean)))


def advise(trials: Sequence[Trial], meta_features: Mapping[str, float], modes: Sequence[str], trees: int = 200) -> Advice:
    """Return the order in which to try modes on a task, and which of them not to try.

    A mode is hopeless if earlier tasks tried it and its predicted gain is below the highest, or below 0, by more than the
    predictor's own error. The mode with the highest predicted gain is always tried. With fewer than ``FEWEST_TASKS`` tasks on
    record, or if the predictor errs by no less than each mode's mean, all modes are tried in the given order.
    """
    if len({trial.task for trial in trials}) < FEWEST_TASKS:
        return Advice(list(modes), [], {})
    error = leave_one_task_out(trials, trees)
    if error.absolute >= error.absolute_of_mean:
        return Advice(list(modes), [], {})
    predictor = Predictor(trials, trees)
    gains = predictor.predict([Trial("", mode, meta_features, 0.0) for mode in modes])
    predicted = {mode: float(gain) for mode, gain in zip(modes, gains, strict=True)}
    order = sorted(modes, key=lambda mode: -predicted[mode])
    least = max(0.0, predicted[order[0]]) - error.absolute
    hopeless = [mode for mode in order[1:] if mode in predictor.modes and predicted[mode] < least]
    return Advice([mode for mode in order if mode not in hopeless], hopeless, predicted)
