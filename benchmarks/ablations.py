"""What each part of the model is worth on a log: one row a variant, mean and spread over seeds, every other setting as it is.

python benchmarks/ablations.py [--log ../shared/data/beauty] [--out warehouse/ablations] [--seeds 1]
    [--set train.threads=1 ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from metarec_spark.evaluation.benchmark import mean_and_spread

VARIANTS = {
    "as it is": [],
    "without attributes": ["--no-attributes"],
    "without time gaps": ["--set", "model.time_gaps=false"],
    "without the spectral start": ["--set", "train.spectral_init=false"],
    "scalar product instead of cosine": ["--set", "model.cosine=false"],
    "full softmax": ["--set", "train.full_softmax=20000"],
    "without the domain's adapter": ["--set", "model.adapter=0"],
    "width 64": ["--set", "model.dim=64"],
    "recurrent state": ["--set", "model.state=recurrent"],
    "tokens start from their spectrum": ["--set", "train.token_init=true"],
    "id dropout .1": ["--set", "model.id_dropout=0.1"],
    "id dropout .1, generator of 128": ["--set", "model.id_dropout=0.1", "--set", "model.generator=128"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("../shared/data/beauty"))
    parser.add_argument("--out", type=Path, default=Path("warehouse/ablations"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for every variant")
    options = parser.parse_args()
    if not (options.log / "events.parquet").exists():
        sys.exit(f"this benchmark needs the log {options.log}; it is not there")
    options.out.mkdir(parents=True, exist_ok=True)
    print("| variant | f alone | g alone | h | HR@10 of h | CPU-s |")
    print("|---|---|---|---|---|---|")
    for name in options.only:
        command = ["metarec", "benchmark", "--log", options.log, "--out", options.out, "--seeds", str(options.seeds)]
        command += [part for setting in options.set for part in ("--set", setting)]
        ended = subprocess.run([*command, *VARIANTS[name]], stdout=subprocess.PIPE, text=True, check=True)
        mine = json.loads(ended.stdout.splitlines()[-1])["results"]
        of = {scorer: [row for row in mine if row["scorer"] == scorer] for scorer in ("base", "transfer", "model")}
        cells = [mean_and_spread(rows, "ndcg@10", 4) for rows in of.values()]
        cells += [mean_and_spread(of["model"], "hit_rate@10", 4), mean_and_spread(of["model"], "cpu_seconds", 0)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
