"""Leave-one-out with full ranking on given logs, over several seeds, beside what is published.

python benchmarks/protocol.py --log DIR [DIR …] [--out warehouse/benchmark] [--seeds 1] [--joint] [--no-attributes]
    [--set section.key=value] … [--hide]

--hide hides everybody's newest event before anything, and then measures on these events the lists of the model that serves, and of
its twin, which has not learnt the events that were held out within.

Every log has its own warehouse under the output folder. ``benchmark.csv`` holds the results: a run that is in it with the
same settings is not repeated, so a benchmark that was killed continues.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
from hidden import difference, hidden_events, hide, measured
from published import PUBLISHED
from rich.console import Console

from metarec_spark import __version__, config, job
from metarec_spark import columns as c
from metarec_spark.config import Config
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.errors import ConfigError
from metarec_spark.evaluation.evaluate import evaluate
from metarec_spark.features.extract import extract
from metarec_spark.job import Details, Job, Result
from metarec_spark.model import artifact
from metarec_spark.registry import chosen
from metarec_spark.runtime.logs import start as start_logging
from metarec_spark.training.train import train
from metarec_spark.warehouse.storage import atomic_write, file_uri

_KEY = ("run", "seed", "settings")
_COLUMNS = (*_KEY, "domain", "scorer", "ndcg@10", "hit_rate@10", "cpu_seconds", "wall_seconds", "model_id", "lead")
TWIN, SERVES = "twin on hidden events", "serves on hidden events"


@dataclass(frozen=True)
class Asked(Details):
    """The rows that this call asked for."""

    results: list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """What is measured."""

    logs: list[Path]
    """Folders with events.parquet and, optionally, items.parquet."""
    out: Path
    """Where tables and results go."""
    seeds: int = 1
    """Each run is made with the seeds 0 … seeds - 1."""
    joint: bool = False
    """One model over all logs, instead of one for each."""
    attributes: bool = True
    """Whether models see items.parquet."""
    hide: bool = False
    """Whether everybody's newest event is hidden before anything, to measure what serves and its twin on it."""
    overrides: tuple[str, ...] = ()
    """``section.key=value`` settings that differ from the defaults."""

    @property
    def runs(self) -> dict[str, list[Path]]:
        """Name of each run → the logs in it."""
        suffix = "" if self.attributes else " without attributes"
        if self.joint:
            return {"+".join(path.name for path in self.logs) + suffix: self.logs}
        return {path.name + suffix: [path] for path in self.logs}


def benchmark(options: Options) -> int:
    """Measure every run with every seed, write ``benchmark.csv`` and ``benchmark.md``, and return the exit code.

    Raises
    ------
    ConfigError
        If a log is missing.
    """
    start = time.monotonic()
    settings = {name: _configuration(name, logs, options) for name, logs in options.runs.items()}
    fingerprints = {name: _fingerprint(run_config, options.runs[name]) for name, run_config in settings.items()}
    rows = list(_read(options.out))
    for name, run_config in settings.items():
        day = max(_last_day(path) for path in options.runs[name])
        extracted = False
        for seed in range(options.seeds):
            seeded = run_config.model_copy(update={"train": run_config.train.model_copy(update={"seed": seed})})
            key = {"run": name, "seed": str(seed), "settings": fingerprints[name]}
            if any(all(row[part] == key[part] for part in _KEY) for row in rows):
                continue
            if not extracted and (code := _stage("extract", name, run_config, day, extract)[0]):
                return code
            extracted = True
            code, trained = _stage("train", name, seeded, day, train)
            if code:
                return code
            code, evaluated = _stage("evaluate", name, seeded, day, lambda j, m=trained.model_id: evaluate(j, m))
            if code not in (0, 4):
                return code
            rows += _rows(key, trained, evaluated)
            if options.hide:
                logs = options.runs[name]
                code, on_hidden = _stage(
                    "hidden", name, seeded, day, lambda j, m=trained.model_id, logs=logs: _on_hidden(j, m, logs)
                )
                if code:
                    return code
                rows += [{**key, **row} for row in on_hidden.details.results]
            _write(rows, options.out)
    Console(stderr=True).print((options.out / "benchmark.md").read_text())
    seconds = round(time.monotonic() - start, 1)
    current = set(fingerprints.items())
    results = [row for row in rows if (row["run"], row["settings"]) in current]
    job.report("benchmark", None, Result(rows_out=len(results), details=Asked(results)), seconds, {}, {})
    return 0


def _configuration(name: str, logs: list[Path], options: Options) -> Config:
    for path in logs:
        if not (path / "events.parquet").exists():
            raise ConfigError(
                f"--log {path}: no events.parquet in it; give a folder with events.parquet and, optionally, items.parquet"
            )
    items = [path / "items.parquet" for path in logs if options.attributes and (path / "items.parquet").exists()]
    raw = {
        "warehouse": file_uri(options.out / name.replace(" ", "-")),
        "sources": [{"path": file_uri(path / "events.parquet")} for path in logs],
        "items": [{"path": file_uri(path)} for path in items],
        "split": {"protocol": "leave_one_out"},
    }
    return config.parse(config.overridden(raw, list(options.overrides)), where=f"benchmark of {name}")


def _fingerprint(run_config: Config, logs: list[Path]) -> str:
    """Of all settings but the seed, of the logs, and of the code's version."""
    files = [file for log in logs for file in (log / "events.parquet", log / "items.parquet") if file.exists()]
    of_logs = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    left_out = {"warehouse": True, "sources": True, "items": True, "spark": True, "train": {"seed"}}
    return fingerprint(run_config.model_dump(mode="json", exclude=left_out), of_logs, __version__)


def _last_day(path: Path) -> date:
    """The day of the newest event: the benchmark's logical day."""
    batches = ds.dataset(path / "events.parquet").to_batches(columns=["event_time"])
    times = [pc.max(batch["event_time"]).as_py() for batch in batches]
    return max(time.date() for time in times if time is not None)


def _stage(stage: str, name: str, run_config: Config, day: date, work) -> tuple[int, Result]:
    results: list[Result] = []

    def recorded(running: Job) -> Result:
        results.append(work(running))
        return results[0]

    start_logging(f"{stage} {name}", day)
    code = job.run(stage, run_config, day, recorded)
    return code, results[0] if results else Result()


def _rows(key: dict[str, str], trained: Result, evaluated: Result) -> Iterator[dict[str, Any]]:
    cost = {name: str(trained.details.metrics[name]) for name in ("cpu_seconds", "wall_seconds")}
    for domain, scorers in evaluated.details.test.items():
        for scorer in (name for name in c.SCORERS if name in scorers):
            values = {name: str(value) for name, value in scorers[scorer].items()}
            yield {**key, "domain": domain, "scorer": scorer, **values, **cost, "model_id": trained.model_id}


def _on_hidden(job: Job, model_id: str, logs: list[Path]) -> Result:
    """Rows of the model that serves and of its twin on the hidden events."""
    folder, rows = chosen(job, model_id).path, []
    for events in hidden_events(job, folder, logs):
        domain = artifact.read_manifest(folder).domains[events.domain]
        twin, serves = (measured(path, events) for path in (artifact.measured(folder), folder))
        for scorer, values in ((TWIN, twin), (SERVES, serves)):
            figures = {"ndcg@10": str(values.mean()), "hit_rate@10": str((values > 0).mean())}
            lead = difference(values, twin) if scorer == SERVES else ""
            rows.append({"domain": domain, "scorer": scorer, **figures, "model_id": model_id, "lead": lead})
    return Result(rows_out=len(rows), details=Asked(rows))


def _read(out: Path) -> Iterator[dict[str, Any]]:
    if (out / "benchmark.csv").exists():
        with (out / "benchmark.csv").open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    with atomic_write(out / "benchmark.csv") as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (out / "benchmark.md").write_text("\n".join(table(rows)) + "\n", encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table: mean and spread over seeds of each run and scorer, and what is published on the log."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["domain"], row["run"], row["settings"], row["scorer"]), []).append(row)
    lines = ["| log | run | scorer | NDCG@10 | HR@10 | CPU-s to train and tune |", "|---|---|---|---|---|---|"]
    settings_of = {
        run: list(dict.fromkeys(row["settings"] for row in rows if row["run"] == run)) for run in {r["run"] for r in rows}
    }
    for domain in dict.fromkeys(row["domain"] for row in rows):
        for (log, run, settings, scorer), scorer_rows in groups.items():
            if log == domain:
                run = run if len(settings_of[run]) == 1 else f"{run} ({settings})"
                cost = mean_and_spread(scorer_rows, "cpu_seconds", 0) if scorer == c.MODEL else ""
                values = f"{mean_and_spread(scorer_rows, 'ndcg@10', 4)} | {mean_and_spread(scorer_rows, 'hit_rate@10', 4)}"
                leads = "; ".join(row["lead"] for row in scorer_rows if row.get("lead"))
                scorer = f"{scorer} ({leads})" if leads else scorer
                lines.append(f"| {domain} | {run} | {scorer} | {values} | {cost} |")
        for known in PUBLISHED:
            if known.log == domain:
                hit_rate = f"{known.hit_rate:.4f}" if known.hit_rate else ""
                lines.append(
                    f"| {domain} | published, ids alone | {known.model} ({known.source}) | {known.ndcg:.4f} | {hit_rate} | |"
                )
    return lines


def mean_and_spread(rows: list[dict[str, Any]], name: str, digits: int) -> str:
    """The mean of a column of a run's rows and, where they differ, the sample's standard deviation."""
    values = [float(row[name]) for row in rows]
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 and stdev(values) else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--log", type=Path, nargs="+", required=True, help="folders with events.parquet and, optionally, items.parquet"
    )
    parser.add_argument("--out", type=Path, default=Path("warehouse/benchmark"), help="folder for tables and results")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--joint", action="store_true", help="one model over all logs, not one for each")
    parser.add_argument("--no-attributes", action="store_true", help="models do not see items.parquet")
    parser.add_argument("--hide", action="store_true", help="measure on events hidden before anything, with and without refit")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="any number of times")
    given = parser.parse_args()
    logs = [path.absolute() for path in given.log]
    if given.hide:
        logs = [hide(path, given.out.absolute() / "hidden" / path.name) for path in logs]
    options = Options(logs, given.out.absolute(), given.seeds, given.joint, not given.no_attributes, given.hide, tuple(given.set))
    try:
        return benchmark(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
