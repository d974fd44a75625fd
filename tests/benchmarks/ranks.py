"""One rank against two, on one log: loss by epoch, sequences per second, rows read.

python tests/benchmarks/ranks.py [--log ../shared/data/beauty] [--out warehouse/ranks] [--epochs 5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

DAY = "2014-07-23"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("../shared/data/beauty"))
    parser.add_argument("--out", type=Path, default=Path("warehouse/ranks"))
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    if not (options.log / "events.parquet").exists():
        sys.exit(f"this benchmark needs the log {options.log}; it is not there")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "ranks.toml"
    log = options.log.absolute()
    lines = [f"warehouse = {json.dumps((options.out.absolute() / 'tables').as_uri())}", "[[sources]]"]
    lines += [
        f"path = {json.dumps((log / 'events.parquet').as_uri())}",
        "[[items]]",
        f"path = {json.dumps((log / 'items.parquet').as_uri())}",
    ]
    file.write_text(
        "\n".join([*lines, "[split]", 'protocol = "leave_one_out"', "[train]", f"epochs = {options.epochs}", ""]),
        encoding="utf-8",
    )
    run("extract", file)
    histories = {ranks: run("train", file, f"train.processes={ranks}") for ranks in (1, 2)}
    print(
        "| epoch | loss, 1 rank | loss, 2 ranks | sequences/s, 1 rank | sequences/s, 2 ranks | rows read, 1 rank | rows read, 2 ranks |"
    )
    print("|---|---|---|---|---|---|---|")
    for epoch, (one, two) in enumerate(zip(histories[1], histories[2], strict=True), start=1):
        speeds = [f"{h['sequences'] / h['seconds']:.0f}" for h in (one, two)]
        rows = [f"{h['sequences']:.0f}" for h in (one, two)]
        print(f"| {epoch} | {one['loss']:.4f} | {two['loss']:.4f} | {' | '.join(speeds)} | {' | '.join(rows)} |")


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
