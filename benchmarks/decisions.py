"""How often the negative-transfer test was right, and how well a transfer's gain is predicted, over all tasks that transfer.py has run.

python benchmarks/decisions.py [--runs warehouse/transfer/runs.jsonl ...]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from metarec_spark.config.sections import Adapt
from metarec_spark.transfer.modes import MODES, OLD_NAMES
from metarec_spark.transfer.negative_transfer import decide, standard_error
from metarec_spark.transfer.predictor import FEWEST_TASKS, Trial, advise, leave_one_task_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", default=[Path("warehouse/transfer/runs.jsonl")])
    parser.add_argument("--margin", type=float, default=Adapt().margin, help="standard errors by which a transfer must be ahead")
    options = parser.parse_args()
    comparisons: dict[str, dict[str, dict]] = {}
    for file in options.runs:
        if not file.exists():
            sys.exit(f"{file} is not there: run benchmarks/transfer.py first")
        rows = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()]
        rows = [row for row in rows if "asked" in row]
        newest: dict[str, float] = {}
        for row in rows:
            row["mode"] = OLD_NAMES.get(row["mode"], row["mode"])
            row["comparison"] = f"{'/'.join(file.parts[-3:-1])}: {row['task']}, {' '.join(row['asked'][0])}"
            newest[row["comparison"]] = max(row["run"], newest.get(row["comparison"], 0))
        for row in rows:
            if row["run"] == newest[row["comparison"]] and row["seed"] == 0:
                comparisons.setdefault(row["comparison"], {})[row["mode"]] = row
    negative_transfer_test(comparisons, options.margin)
    predictor(comparisons)


def negative_transfer_test(comparisons: dict[str, dict[str, dict]], margin: float) -> None:
    """Print a row for each comparison: the best baseline and transfer by validation, which is used, and the test's figure."""
    print(
        "| comparison | baseline | transfer | used | test gain of the transfer, ± standard error | right |\n|---|---|---|---|---|---|"
    )
    rights, used_count, losses = 0, 0, []
    for name, by_mode in sorted(comparisons.items()):
        baseline, transfer = (
            max((row for row in by_mode.values() if MODES[row["mode"]].baseline == kind), key=lambda row: row["ndcg"])
            for kind in (True, False)
        )
        known = {mode: np.array([row["validation"]]) for mode, row in by_mode.items() if MODES[mode].baseline or row is transfer}
        used = decide(known, {mode for mode in known if MODES[mode].baseline}, margin).used
        gain, error = paired(transfer, baseline)
        used_transfer = used == transfer["mode"]
        # Wrong is a use where the transfer is worse by more than noise, and a refusal where it is better by more.
        right = (gain if used_transfer else -gain) >= -2 * error
        rights, used_count = rights + right, used_count + used_transfer
        losses.append((gain, error) if used_transfer else (0.0, 0.0))
        names = f"{baseline['mode']} {baseline['test_ndcg']:.4f} | {transfer['mode']} {transfer['test_ndcg']:.4f} | {used}"
        print(f"| {name} | {names} | {gain:+.4f} ± {error:.4f} | {'yes' if right else 'no'} |")
    gain, error = min(losses)
    print(
        f"\n{len(comparisons)} comparisons at a margin of {margin:g}: a transfer was used in {used_count}, the test was right in {rights};"
    )
    print(f"worst loss against the baseline model {gain:+.4f} ± {error:.4f}")


def paired(one: dict, other: dict) -> tuple[float, float]:
    """Mean difference of two modes' test pairs, and its standard error."""
    values, baseline = (np.array([row["test"]]) for row in (one, other))
    return float(values.mean() - baseline.mean()), standard_error(values, baseline)


def predictor(comparisons: dict[str, dict[str, dict]]) -> None:
    """Error of the predicted gains where a task with all its draws is left out, and what following the advice saves and costs."""
    trials_by_draw: dict[tuple[str, str], dict[str, Trial]] = {}
    for name, by_mode in comparisons.items():
        draw, _, _ = name.partition(",")
        task, _, _ = draw.rpartition("-")
        trials = {
            mode: Trial(task, mode, row["statistics"], row["gain"]) for mode, row in by_mode.items() if not MODES[mode].baseline
        }
        trials_by_draw.setdefault((task, draw), {}).update(trials)
    tasks = {task for task, _ in trials_by_draw}
    if len(tasks) < FEWEST_TASKS:
        return print(f"\npredictor: {FEWEST_TASKS} tasks are needed")
    trials = [trial for by_mode in trials_by_draw.values() for trial in by_mode.values()]
    error = leave_one_task_out(trials)
    print(
        f"\npredictor, {len(tasks)} tasks in {len(trials_by_draw)} draws, leave one task out: rank correlation of a task's trials"
    )
    print(
        f"{error.rank_correlation:.2f}; mean absolute error of the gain {error.absolute:.3f}, of each mode's mean {error.absolute_of_mean:.3f}"
    )
    trained, saved, lost = 0, 0, []
    for task in tasks:
        draws = [by_mode for (name, _), by_mode in trials_by_draw.items() if name == task]
        modes = list({mode: None for by_mode in draws for mode in by_mode})
        # Once for all its draws, whose statistics are much alike.
        advice = advise([t for t in trials if t.task != task], next(iter(draws[0].values())).meta_features, modes)
        for by_mode in draws:
            trained, saved = trained + len(by_mode), saved + len(by_mode.keys() & set(advice.hopeless))
            best, advised = (
                max(0.0, *(by_mode[mode].gain for mode in by_mode if mode in tried)) for tried in (by_mode, advice.order)
            )
            lost.append(best - advised)
    print(
        f"its advice saves {saved} of {trained} trials; gain on validation lost by it: {np.mean(lost):.4f} in the mean, at most {max(lost):.4f}"
    )
    return None


if __name__ == "__main__":
    main()
