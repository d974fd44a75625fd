"""What each transfer mode may bring to a task, told from the task's statistics by what earlier adaptations found. No Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor

FEWEST_TASKS = 8
_COUNTS = ("users", "items", "events", "source_users", "source_events")
_SHARES = ("density", "entropy", "shared_users", "shared_words", "predictability")


@dataclass(frozen=True)
class Trial:
    """What a mode brought to a task."""

    task: str
    mode: str
    statistics: Mapping[str, float]
    """As :func:`metarec_spark.transfer.task_features.statistics` gives them, and predictability."""
    gain: float
    """NDCG@100 over that of the best plain candidate, less 1."""


@dataclass(frozen=True)
class Error:
    """Of predictions for tasks that were left out, one at a time."""

    rank_correlation: float
    """Mean over tasks of Spearman's, between predicted and measured gain of the modes; tasks in which either is constant left
    out; nan where there is none."""
    absolute: float
    """Mean absolute error."""
    absolute_of_mean: float
    """The same of predicting each mode's mean gain in the other tasks, or the mean of all where it was not tried there."""


@dataclass(frozen=True)
class Advice:
    """Modes to try, the likeliest first, and those that are hopeless; with what each is predicted to bring."""

    order: list[str]
    hopeless: list[str]
    predicted: dict[str, float]


class Predictor:
    """Extremely randomised trees over a task's statistics and the mode (Geurts, Ernst & Wehenkel, 2006)."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.modes = sorted({trial.mode for trial in trials})
        self.trees = ExtraTreesRegressor(n_estimators=200, min_samples_leaf=2, random_state=0)
        self.trees.fit(self._features(trials), [trial.gain for trial in trials])

    def predict(self, trials: Sequence[Trial]) -> np.ndarray:
        """Gain of each trial, [n]; its own is not looked at."""
        return self.trees.predict(self._features(trials))

    def _features(self, trials: Sequence[Trial]) -> np.ndarray:
        rows = []
        for trial in trials:
            facts = trial.statistics
            counts = [np.log1p(facts[name]) for name in _COUNTS]
            rows.append([*counts, *(facts[name] for name in _SHARES), *(float(trial.mode == mode) for mode in self.modes)])
        return np.array(rows)


def leave_one_task_out(trials: Sequence[Trial]) -> Error:
    """How well a task is predicted by all the others; at least two tasks."""
    correlations, of_trees, of_mean = [], [], []
    for task in sorted({trial.task for trial in trials}):
        inside = [trial for trial in trials if trial.task == task]
        others = [trial for trial in trials if trial.task != task]
        measured, predicted = np.array([trial.gain for trial in inside]), Predictor(others).predict(inside)
        by_mode = {trial.mode: [other.gain for other in others if other.mode == trial.mode] for trial in inside}
        everything = [other.gain for other in others]
        mean = np.array([np.mean(by_mode[trial.mode] or everything) for trial in inside])
        of_trees += list(abs(predicted - measured))
        of_mean += list(abs(mean - measured))
        if np.ptp(measured) > 0 and np.ptp(predicted) > 0:
            correlations.append(spearmanr(predicted, measured).statistic)
    correlation = float(np.mean(correlations)) if correlations else float("nan")
    return Error(correlation, float(np.mean(of_trees)), float(np.mean(of_mean)))


def advise(trials: Sequence[Trial], facts: Mapping[str, float], modes: Sequence[str]) -> Advice:
    """In which order to try modes on a task, and which of them not at all.

    A mode is hopeless where its predicted gain is below that of the likeliest, or below 0, by more than the predictor's own
    error, and it was tried before. The likeliest mode is always tried. With fewer than ``FEWEST_TASKS`` tasks on record, or where
    the predictor errs by as much as each mode's mean does, all modes are tried in the given order.
    """
    if len({trial.task for trial in trials}) < FEWEST_TASKS:
        return Advice(list(modes), [], {})
    error = leave_one_task_out(trials)
    if error.absolute >= error.absolute_of_mean:
        return Advice(list(modes), [], {})
    predictor = Predictor(trials)
    gains = predictor.predict([Trial("", mode, facts, 0.0) for mode in modes])
    predicted = {mode: float(gain) for mode, gain in zip(modes, gains, strict=True)}
    order = sorted(modes, key=lambda mode: -predicted[mode])
    least = max(0.0, predicted[order[0]]) - error.absolute
    hopeless = [mode for mode in order[1:] if mode in predictor.modes and predicted[mode] < least]
    return Advice([mode for mode in order if mode not in hopeless], hopeless, predicted)
