"""One rank of one thread against two, on one log: loss by epoch, sequences per second, rows read.

Two ranks share a step's events (the same training), or take as many each as one rank takes (half the steps), in small steps and
in large ones. All are run in turn, and in turn again with another seed, since a shared machine is not the same from minute to
minute.

python benchmarks/ranks.py [--log ../shared/data/beauty] [--out warehouse/ranks] [--epochs 3] [--rounds 2] [--negatives 4096]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from metarec_spark.warehouse.storage import file_uri

CASES = ((1, 1024), (2, 1024), (2, 2048), (1, 4096), (2, 8192))
"""Ranks, and events a step over all of them; a single rank is what those after it are held against."""
DAY = "2014-07-23"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("../shared/data/beauty"))
    parser.add_argument("--out", type=Path, default=Path("warehouse/ranks"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--negatives", type=int, default=4096)
    options = parser.parse_args()
    if not (options.log / "events.parquet").exists():
        sys.exit(f"this benchmark needs the log {options.log}; it is not there")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "ranks.toml"
    log = options.log.absolute()
    lines = [f"warehouse = {json.dumps(file_uri(options.out / 'tables'))}", "[[sources]]"]
    lines += [
        f"path = {json.dumps(file_uri(log / 'events.parquet'))}",
        "[[items]]",
        f"path = {json.dumps(file_uri(log / 'items.parquet'))}",
    ]
    file.write_text(
        "\n".join([*lines, "[split]", 'protocol = "leave_one_out"', "[train]", f"epochs = {options.epochs}", ""]),
        encoding="utf-8",
    )
    run("extract", file)
    same = ("train.threads=1", "train.tune=false", "train.full_softmax=0", f"train.negatives={options.negatives}")
    histories: dict[tuple[int, int], list[dict[str, float]]] = {}
    for seed in range(options.rounds):
        for ranks, tokens in CASES:
            how = (f"train.seed={seed}", f"train.processes={ranks}", f"train.batch_tokens={tokens}")
            histories.setdefault((ranks, tokens), []).extend(run("train", file, *same, *how))
    print("| ranks | events a step | loss by epoch | sequences/s by epoch | ratio to one rank | rows read by epoch |")
    print("|---|---|---|---|---|---|")
    one: list[dict[str, float]] = []
    for (ranks, tokens), history in histories.items():
        losses = " ".join(f"{epoch['loss']:.3f}" for epoch in history)
        rows = " ".join(f"{epoch['sequences']:.0f}" for epoch in history)
        speeds = " ".join(f"{speed:.0f}" for speed in speeds_of(history))
        one = history if ranks == 1 else one
        ratio = statistics.median(speeds_of(history)) / statistics.median(speeds_of(one))
        print(f"| {ranks} | {tokens} | {losses} | {speeds} | {ratio:.2f} | {rows} |")


def speeds_of(history: list[dict[str, float]]) -> list[float]:
    """Sequences per second of each epoch."""
    return [epoch["sequences"] / epoch["seconds"] for epoch in history]


def run(command: str, file: Path, *overrides: str) -> list[dict[str, float]]:
    """Run a command; for train, the history of the model that it made."""
    options = [part for override in overrides for part in ("--set", override)]
    ended = subprocess.run(
        ["metarec", command, "--config", file, "--ds", DAY, *options], stdout=subprocess.PIPE, text=True, check=True
    )
    model_id = json.loads(ended.stdout.splitlines()[-1])["model_id"]
    manifest = file.parent / "tables" / "_models" / str(model_id) / "manifest.json"
    return json.loads(manifest.read_text())["metrics"]["history"] if model_id else []


if __name__ == "__main__":
    main()
