"""Training speed and quality of the sequence encoder (f) against RecTools' SASRec: same log, threads, width, blocks, negatives, length.

python benchmarks/rectools_sasrec.py --rectools PYTHON [--log ../shared/data/beauty] [--out warehouse/rectools] [--epochs 10]
    [--our-epochs 30] [--seeds 3]

PYTHON is an interpreter that has ``rectools[torch]`` and ``pyarrow<20``; this project does not depend on them. RecTools trains as
often as f, without a seed of its own; each result is stored in OUT/rectools-EPOCHS-THREADS-RUN.json. Mean and spread over the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

SAME = {"blocks": 1, "dim": 64, "negatives": 256, "length": 50}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rectools", required=True)
    parser.add_argument("--log", type=Path, default=Path("../shared/data/beauty"))
    parser.add_argument("--out", type=Path, default=Path("warehouse/rectools"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--our-epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--their-side", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.their_side:
        print(json.dumps(rectools(options.log, options.epochs, options.threads)))
        return
    from protocol import mean_and_spread  # its imports are missing in the interpreter of RecTools

    if not (options.log / "events.parquet").exists():
        sys.exit(f"this benchmark needs the log {options.log}; it is not there")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = {
        "RecTools SASRec": [their_run(options, run) for run in range(options.seeds)],
        "f, ids alone": ours(options, False),
        "f": ours(options, True),
    }
    rival = {name: mean(row[name] for row in rows["RecTools SASRec"]) for name in ("speed", "validation_ndcg@10")}
    print("| model | sequences/s | ratio | epochs | seconds | NDCG@10 | HR@10 | seconds to RecTools' validation NDCG@10 |")
    print("|---|---|---|---|---|---|---|---|")
    for name, runs in rows.items():
        for row in runs:
            row["ratio"] = row["speed"] / rival["speed"]
            curve = row.get("curve", [(row["seconds"], rival["validation_ndcg@10"])])
            row["reached"] = min((s for s, ndcg in curve if ndcg >= rival["validation_ndcg@10"]), default=float("nan"))
        columns = {"speed": 0, "ratio": 1, "epochs": 0, "seconds": 0, "ndcg@10": 4, "hit_rate@10": 4, "reached": 0}
        print(f"| {name} | {' | '.join(mean_and_spread(runs, column, digits) for column, digits in columns.items())} |")


def their_run(options: argparse.Namespace, run: int) -> dict:
    """RecTools' result of a run: read if it was stored, else computed."""
    file = options.out / f"rectools-{options.epochs}-{options.threads}-{run}.json"
    if not file.exists():
        command = [options.rectools, __file__, "--their-side", "--rectools", "-", "--log", options.log]
        command += ["--epochs", str(options.epochs), "--threads", str(options.threads)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        file.write_text(ended.stdout.splitlines()[-1])
    return json.loads(file.read_text())


def ours(options: argparse.Namespace, attributes: bool) -> list[dict]:
    """Train and evaluate f by protocol.py, one run per seed."""
    settings = {
        "model.dim": SAME["dim"],
        "model.blocks": SAME["blocks"],
        "train.full_softmax": 0,
        "train.negatives": SAME["negatives"],
        "features.max_length": SAME["length"],
        "train.threads": options.threads,
        "train.max_epochs": options.our_epochs,
    }
    command = [
        sys.executable,
        Path(__file__).parent / "protocol.py",
        "--log",
        options.log,
        "--out",
        options.out,
        "--seeds",
        str(options.seeds),
    ]
    command += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    command += [] if attributes else ["--no-attributes"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(ended.stdout.splitlines()[-1])["results"]
    rows = [row for row in result if row["scorer"] == "encoder" and ("without" not in row["run"]) == attributes]
    return [of_model(options.out / row["run"].replace(" ", "-") / "_models" / row["model_id"], row) for row in rows]


def of_model(folder: Path, row: dict) -> dict:
    """Speed and learning curve from the model's manifest beside its test figures."""
    history = json.loads((folder / "manifest.json").read_text())["metrics"]["history"]
    seconds = [sum(epoch["seconds"] for epoch in history[: n + 1]) for n in range(len(history))]
    return {
        "speed": sum(epoch["sequences"] for epoch in history) / seconds[-1],
        "epochs": len(history),
        "seconds": seconds[-1],
        "ndcg@10": float(row["ndcg@10"]),
        "hit_rate@10": float(row["hit_rate@10"]),
        "curve": [(s, epoch["validation_ndcg@10"]) for s, epoch in zip(seconds, history, strict=True)],
    }


def rectools(log: Path, epochs: int, threads: int) -> dict:
    """Train and evaluate RecTools' SASRec, leave-one-out, full ranking without seen items."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import numpy as np
    import pandas as pd
    import torch
    from pytorch_lightning import Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    torch.set_num_threads(threads)
    events = pd.read_parquet(log / "events.parquet").sort_values(["user_id", "event_time", "item_id"], kind="stable")
    events["back"] = events.groupby("user_id").cumcount(ascending=False)
    events = events.rename(columns={"event_time": Columns.Datetime})
    events[Columns.Weight] = 1.0
    columns = [Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]
    train = events[events["back"] >= 2]
    model = SASRecModel(
        n_factors=SAME["dim"],
        n_blocks=SAME["blocks"],
        n_heads=1,
        session_max_len=SAME["length"],
        loss="sampled_softmax",
        n_negatives=SAME["negatives"],
        dataloader_num_workers=0,
        verbose=0,
        get_trainer_func=lambda: Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        ),
    )
    start = time.perf_counter()
    model.fit(Dataset.construct(train[columns]))
    seconds = time.perf_counter() - start

    def ranked(known, target) -> tuple[float, float]:
        users = target[Columns.User].unique()
        recommended = model.recommend(
            users, Dataset.construct(known[columns]), k=10, filter_viewed=True, on_unsupported_targets="ignore"
        )
        hits = recommended.merge(target[[Columns.User, Columns.Item]], on=[Columns.User, Columns.Item])
        return float((1 / np.log2(hits[Columns.Rank] + 1)).sum() / len(users)), len(hits) / len(users)

    validation, _ = ranked(train, events[events["back"] == 1])
    # An item without a training event is unknown to the model: as context it is left out, as target it counts as a miss.
    known = events[(events["back"] >= 1) & events[Columns.Item].isin(train[Columns.Item])]
    ndcg, hit_rate = ranked(known, events[events["back"] == 0])
    sequences = int((train.groupby(Columns.User).size() > 1).sum())
    return {
        "speed": sequences * epochs / seconds,
        "epochs": epochs,
        "seconds": seconds,
        "ndcg@10": ndcg,
        "hit_rate@10": hit_rate,
        "validation_ndcg@10": validation,
    }


if __name__ == "__main__":
    main()
