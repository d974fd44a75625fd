"""benchmark: leave-one-out with full ranking on given logs; model, transitions and popularity side by side.

Every log has its own warehouse under the output folder. Stages that are done are found again, so a benchmark that was killed
goes on where it was.
"""

from __future__ import annotations

import csv
import time
from datetime import date
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.console import Console

from metarec_spark import columns as c
from metarec_spark import config, job
from metarec_spark.config import Config
from metarec_spark.errors import ConfigError
from metarec_spark.evaluation.run import evaluate
from metarec_spark.features.run import extract
from metarec_spark.job import Result
from metarec_spark.training.run import train

_COLUMNS = ("log", "domain", "scorer", "ndcg@10", "hit_rate@10", "train_seconds", "model_id")


def benchmark(logs: list[Path], out: Path, overrides: list[str]) -> int:
    """Measure every log, write ``benchmark.csv`` and ``benchmark.md`` under ``out``, and return the exit code.

    Parameters
    ----------
    logs
        Folders with events.parquet and, optionally, items.parquet.
    out
        Where tables and results go.
    overrides
        ``section.key=value`` settings that differ from the defaults.

    Raises
    ------
    ConfigError
        Where a log is missing.
    """
    start = time.monotonic()
    settings = [_configuration(path, out, overrides) for path in logs]
    rows: list[dict[str, object]] = []
    for path, made in zip(logs, settings, strict=True):
        last_day = _last_day(path)
        for name, work in (("extract", extract), ("train", train), ("evaluate", evaluate)):
            job.start_logging(f"{name} {path.name}", last_day)
            found: list[Result] = []
            code = job.run(name, made, last_day, lambda j, work=work, found=found: _keep(work(j), found))
            if code not in (0, 4):
                return code
            if name == "train":
                seconds = found[0].details["metrics"]["seconds"]
        for domain, scorers in found[0].details["test"].items():
            rows += [
                {
                    "log": path.name,
                    "domain": domain,
                    "scorer": s,
                    **scorers[s],
                    "train_seconds": seconds,
                    "model_id": found[0].model_id,
                }
                for s in c.SCORERS
            ]
        _write(rows, out)
    Console(stderr=True).print((out / "benchmark.md").read_text())
    job.report(
        "benchmark", None, Result(rows_out=len(rows), details={"results": rows}), round(time.monotonic() - start, 1), {}, {}
    )
    return 0


def _configuration(path: Path, out: Path, overrides: list[str]) -> Config:
    events, items = path / "events.parquet", path / "items.parquet"
    if not events.exists():
        raise ConfigError(
            f"--log {path}: no events.parquet in it; give a folder with events.parquet and, optionally, items.parquet"
        )
    raw = {
        "warehouse": (out / path.name).as_uri(),
        "sources": [{"path": events.as_uri()}],
        "items": [{"path": items.as_uri()}] if items.exists() else [],
        "split": {"protocol": "leave_one_out"},
    }
    return config.parse(config.overridden(raw, overrides), where=f"benchmark of {path.name}")


def _last_day(path: Path) -> date:
    """The day of the newest event: the benchmark's logical day."""
    batches = ds.dataset(path / "events.parquet").to_batches(columns=["event_time"])
    times = [pc.max(batch["event_time"]).as_py() for batch in batches]
    return max(time.date() for time in times if time is not None)


def _keep(result: Result, found: list[Result]) -> Result:
    found.append(result)
    return result


def _write(rows: list[dict[str, object]], out: Path) -> None:
    with (out / "benchmark.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| log | domain | scorer | NDCG@10 | HR@10 | training, s |", "|---|---|---|---|---|---|"]
    for row in rows:
        trained = f"{row['train_seconds']:.0f}" if row["scorer"] == c.MODEL else ""
        lines.append(
            f"| {row['log']} | {row['domain']} | {row['scorer']} | {row['ndcg@10']:.4f} | {row['hit_rate@10']:.4f} | {trained} |"
        )
    (out / "benchmark.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
