"""Users known on one platform and new on the other: how well is their first event there predicted, against popularity and titles?

python benchmarks/cold_people.py [--log ../shared/data/food-kitchen] [--target kitchen] [--folds 2] [--out warehouse/cold]

In each fold, some of the users of both platforms lose their events on the target, except the newest, which is the test event; over the
folds every user is tested once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from deltalake import DeltaTable
from scipy import sparse
from transfer import configured

from metarec_spark.model import artifact
from metarec_spark.model.ranking import local_indexes, ndcg, seen_local_indexes, sparse_ranks

EVENTS = ("user_id", "item_id", "domain", "event_type", "event_time")
SCORERS = ("model", "encoder", "transitions_tuned", "popularity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, default=Path("../shared/data/food-kitchen"))
    parser.add_argument("--target", default="kitchen")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="*", help="folds to run; all without it")
    parser.add_argument("--ds", default="2014-07-23", help="last day of the log")
    parser.add_argument("--out", type=Path, default=Path("warehouse/cold"))
    parser.add_argument("--set", action="append", default=[], help="section.key=value for all commands")
    options = parser.parse_args()
    if not (options.log / "events.parquet").exists():
        sys.exit(f"this benchmark needs the log {options.log}; it is not there")
    events = pq.read_table(options.log / "events.parquet", columns=list(EVENTS)).to_pandas()
    events = events.sort_values(["user_id", "event_time", "item_id"], kind="stable")
    inside = events["domain"] == options.target
    both = np.intersect1d(events["user_id"][inside], events["user_id"][~inside])
    part = np.random.default_rng(0).permutation(len(both)) % options.folds
    results = []
    for fold in options.only or range(options.folds):
        results.append(evaluated(options, events, set(both[part == fold]), fold))
        print(json.dumps({"fold": fold, "people": int((part == fold).sum()), **results[-1]}), flush=True)
    print(f"| {options.target}, people cold there | NDCG@10 |\n|---|---|")
    for name in results[0]:
        print(f"| {name} | {np.mean([result[name] for result in results]):.4f} |")


def evaluated(options: argparse.Namespace, events: pd.DataFrame, cold: set[str], fold: int) -> dict[str, float]:
    """NDCG@10 of each scorer over the people of one fold."""
    folder = (options.out / f"{options.target}-{fold}").absolute()
    of_cold = events["user_id"].isin(cold) & (events["domain"] == options.target)
    newest = of_cold & ~events.duplicated(["user_id", "domain"], keep="last")
    left = events[~of_cold | newest]
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pandas(left, preserve_index=False), folder / "events.parquet")
        configured(folder, [folder / "events.parquet"], [options.log / "items.parquet"])
        sets = [part for override in options.set for part in ("--set", override)]
        for command in ("extract", "train", "evaluate"):
            run = ["metarec", command, "--config", folder / "metarec.toml", "--ds", options.ds, *sets]
            subprocess.run(run, stdout=subprocess.DEVNULL, check=True)
        (folder / "done").touch()
    metrics = DeltaTable(str(folder / "tables" / "metrics")).to_pandas()
    rows = metrics.query("split == 'test' and segment == 'cold_user' and metric == 'ndcg' and k == 10")
    rows = rows[rows["domain"] == options.target].set_index("scorer")["value"]
    (model,) = DeltaTable(str(folder / "tables" / "models")).to_pandas()["path"]
    return {name: float(rows[name]) for name in SCORERS} | {
        "titles alone": titles(folder / "tables" / model, left, cold, options.target)
    }


def titles(model: Path, events: pd.DataFrame, cold: set[str], target: str) -> float:
    """NDCG@10 by the mean title similarity to the items of the user's earlier events elsewhere, the newest held-out event excluded."""
    loaded = artifact.load(model)
    catalogue, ids = loaded.catalogue, loaded.item_ids().to_pylist()
    domain = loaded.domains.index(target)
    items, index = catalogue.of_domain[domain], {(loaded.domains[catalogue.domain[n]], name): n for n, name in enumerate(ids)}
    cold_events = events[events["user_id"].isin(cold)]
    history, answer = [], []
    for _, rows in cold_events.groupby("user_id", sort=True):
        own = rows["domain"] == target
        test = np.flatnonzero(~own)[-1]
        first = np.flatnonzero(own)[0]
        before = [n for n in range(first) if n != test]
        history.append([index[row] for row in zip(rows["domain"].iloc[before], rows["item_id"].iloc[before], strict=True)])
        answer.append(index[target, rows["item_id"].iloc[first]])
    part = catalogue.successors
    similarity = sparse.csr_matrix((part.similarity, part.indices, part.indptr), (catalogue.size,) * 2)[:, items]
    length = np.array([len(indexes) for indexes in history])
    flat = np.concatenate([np.array(indexes, np.int64) for indexes in history])
    events_of = sparse.csr_matrix((np.ones(len(flat), np.float32), (np.repeat(np.arange(len(length)), length), flat)))
    events_of.resize(len(length), catalogue.size)
    ranks = sparse_ranks(
        (events_of @ similarity).tocsr(), local_indexes(items, np.array(answer)), seen_local_indexes(items, flat, length)
    )
    return float(ndcg(ranks)[length > 0].mean()) * float((length > 0).mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
