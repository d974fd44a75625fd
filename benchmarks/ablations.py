"""What each part of the model is worth on a log: one row per variant, mean and spread over seeds.

python benchmarks/ablations.py [--log ../shared/data/beauty] [--out warehouse/ablations] [--seeds 1]
    [--set train.threads=1 ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from protocol import mean_and_spread

from metarec_spark import columns as c

PROTOCOL = Path(__file__).parent / "protocol.py"
SCORERS = (c.ENCODER, c.TRANSITIONS_TUNED, c.MODEL)
VARIANTS = {
    "as it is": [],
    "without attributes": ["--no-attributes"],
    "without time gaps": ["--set", "model.time_gaps=false"],
    "without spectral initialisation": ["--set", "train.spectral_init=false"],
    "dot product instead of cosine": ["--set", "model.cosine=false"],
    "full softmax": ["--set", "train.full_softmax=20000"],
    "without the platform's adapter": ["--set", "model.adapter=0"],
    "width 64": ["--set", "model.dim=64"],
    "recurrent state": ["--set", "model.state=recurrent"],
    "spectral initialisation of tokens": ["--set", "train.token_init=true"],
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
        command = [sys.executable, PROTOCOL, "--log", options.log, "--out", options.out, "--seeds", str(options.seeds)]
        command += [part for setting in options.set for part in ("--set", setting)]
        ended = subprocess.run([*command, *VARIANTS[name]], stdout=subprocess.PIPE, text=True, check=True)
        results = json.loads(ended.stdout.splitlines()[-1])["results"]
        by_scorer = {scorer: [row for row in results if row["scorer"] == scorer] for scorer in SCORERS}
        cells = [mean_and_spread(rows, "ndcg@10", 4) for rows in by_scorer.values()]
        model = by_scorer[c.MODEL]
        cells += [mean_and_spread(model, "hit_rate@10", 4), mean_and_spread(model, "cpu_seconds", 0)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
