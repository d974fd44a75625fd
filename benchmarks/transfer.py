"""What other platforms lend to a thin one: each mode's test figure, over cuts of the target's users, and what the guard chose.

python benchmarks/transfer.py --target kitchen --share 0.05 --log ../shared/data/food-kitchen
python benchmarks/transfer.py --target beauty --share 0.2 --log ../shared/data/beauty ../shared/data/toys ../shared/data/sports

The logs are extracted once and cut in memory (cuts.py); candidates are made, ranked and judged by the code of ``metarec adapt``.
Each cut's rows are kept in OUT/runs.jsonl, with the statistics of its task, and are not made again. With ``--by-jobs``, the first cut
goes through the jobs extract, train, evaluate and adapt instead, in a warehouse of its own: the same rows, all modes, and minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from cuts import TRAIN, Cut, Log
from deltalake import DeltaTable

from metarec_spark import columns as c
from metarec_spark.config import load
from metarec_spark.model import artifact
from metarec_spark.model.manifest import DomainSettings, Manifest
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.spec import TrainSpec
from metarec_spark.training.tuning import FUSIONS, gains_of
from metarec_spark.training.worker import train
from metarec_spark.transfer.candidates import CUTOFFS, test_gains, with_context
from metarec_spark.transfer.halving import SuccessiveHalving
from metarec_spark.transfer.modes import MODES, Mode
from metarec_spark.transfer.negative_transfer import standard_error
from metarec_spark.warehouse.storage import file_uri

DAY = "2014-07-23"
OPPONENT, WITH_OPPONENT, SERVES = "untrained", "with_untrained", "what serves"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="domain that is cut")
    parser.add_argument("--log", type=Path, nargs="+", required=True)
    parser.add_argument("--source", nargs="+", help="domains that lend; all others of the logs without it")
    parser.add_argument(
        "--scramble", action="store_true", help="deal the source's items to its events anew: nothing is to be learnt"
    )
    parser.add_argument("--share", type=float, default=0.05, help="share of the target's users that is left")
    parser.add_argument("--cuts", type=int, nargs=2, default=[0, 3], help="first, and one after the last")
    parser.add_argument("--by-jobs", action="store_true", help="run the jobs, on the first cut")
    parser.add_argument("--modes", nargs="+", default=["lent", "taught"], choices=MODES)
    parser.add_argument("--days", type=int, help="ask for people's first events in the last so many days; the newest without it")
    parser.add_argument("--ds", default=DAY, help="last day of the logs")
    parser.add_argument("--out", type=Path, default=Path("warehouse/transfer"))
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    options = parser.parse_args()
    for log in options.log:
        if not (log / "events.parquet").exists():
            sys.exit(f"this benchmark needs the log {log}; it is not there")
    if options.by_jobs and (options.source or options.scramble or options.days):
        sys.exit("--by-jobs takes the logs as they are and leaves one out: leave --source, --scramble and --days away")
    out = options.out.absolute()
    show(options, by_jobs(options, out) if options.by_jobs else run(options, out))


def run(options: argparse.Namespace, out: Path) -> list[dict]:
    """The rows of all cuts."""
    warehouse = extracted(options, out)
    config = load(warehouse.parent / "metarec.toml", options.set)
    if "meta" in options.modes and config.train.method == "joint":
        sys.exit("mode meta starts from a base model that was trained by episodes: add --set train.method=reptile")
    torch.set_num_threads(1 if config.train.threads == "auto" else config.train.threads)
    log = limited(Log(warehouse, config.transitions, options.days), options)
    of = "+".join(sorted({log.domains[i] for i in np.unique(log.domain)} - {options.target}))
    posed = ("-scrambled" if options.scramble else "") + (f"-{options.days}d" if options.days else "")
    name = f"{options.target}-from-{of}-{options.share}{posed}"
    asked, file, found = [options.modes, options.set], out / "runs.jsonl", []
    kept = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    for cut in range(*options.cuts):
        task = {"task": f"{name}-{cut}", "asked": asked}
        rows = [row for row in kept if {key: row.get(key) for key in task} == task]
        if not rows:
            task |= {"run": time.time(), "cut": cut, "target": options.target, "share_left": options.share}
            made = halving(config, Cut.of(log, options.target, options.share, cut), out / name, options.modes, cut)
            rows = [task | row for row in made]
            with file.open("a", encoding="utf-8") as rest:
                rest.writelines(json.dumps(row) + "\n" for row in rows)
        newest = max(row["run"] for row in rows)
        found += [row for row in rows if row["run"] == newest]
    return found


def extracted(options: argparse.Namespace, out: Path) -> Path:
    """A warehouse with the tables of the logs."""
    folder = out / "+".join(log.name for log in options.log)
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        configured(folder, *([log / name for log in options.log] for name in ("events.parquet", "items.parquet")))
        command = ["metarec", "extract", "--config", folder / "metarec.toml", "--ds", options.ds]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        (folder / "done").touch()
    return folder / "tables"


def by_jobs(options: argparse.Namespace, out: Path) -> list[dict]:
    """The rows of ``transfer_runs`` after a base model was trained on the source and the target's first cut came in."""
    folder, number = out / f"jobs-{options.target}-{options.share}", options.cuts[0]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    warehouse = extracted(options, out)
    log = Log(warehouse, load(warehouse.parent / "metarec.toml", options.set).transitions)
    cut = Cut.of(log, options.target, options.share, number)
    kept, files = pa.array(log.user_ids).filter(pa.array(cut.kept)), []
    for file in (file / "events.parquet" for file in options.log):
        events = pq.read_table(file, columns=["user_id", "item_id", "domain", "event_type", "event_time"])
        inside = pc.equal(events["domain"], options.target)
        files += [folder / f"{file.parent.name}-source.parquet", folder / f"{file.parent.name}-target.parquet"]
        pq.write_table(events.filter(pc.invert(inside)), files[-2])
        pq.write_table(events.filter(pc.and_(inside, pc.is_in(events["user_id"], kept))), files[-1])
    items, sets = [file / "items.parquet" for file in options.log], [part for of in options.set for part in ("--set", of)]

    def job(command: str, *more: str) -> float:
        start = time.monotonic()
        run = ["metarec", command, "--config", folder / "metarec.toml", "--ds", options.ds, *sets, *more]
        subprocess.run(run, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - start

    configured(folder, [file for file in files if "source" in file.name], items)
    minutes = {name: job(name) / 60 for name in ("extract", "train", "evaluate")}
    configured(folder, files, items)
    minutes |= {"extract with the target": job("extract") / 60, "adapt": job("adapt", "--domain", options.target) / 60}
    minutes["full retraining"] = job("train") / 60
    print("minutes: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()))
    rows = DeltaTable(str(folder / "tables" / "transfer_runs")).to_pyarrow_table().to_pylist()
    last = {(row["mode"], row["seed"]): row for row in sorted(rows, key=lambda row: row["share"])}
    return [{**row, "cut": number} for row in last.values()]


def configured(folder: Path, events: list[Path], items: list[Path]) -> None:
    """Write a configuration."""
    lines = [f"warehouse = {json.dumps(file_uri(folder / 'tables'))}"]
    for section, files in (("sources", events), ("items", items)):
        for file in files:
            lines += [f"[[{section}]]", f"path = {json.dumps(file_uri(file))}"]
    (folder / "metarec.toml").write_text("\n".join([*lines, "[split]", 'protocol = "leave_one_out"', ""]), encoding="utf-8")


def limited(log: Log, options: argparse.Namespace) -> Log:
    """Without the events of domains that neither lend nor are lent to."""
    sources = options.source or [name for name in log.domains if name != options.target]
    kept = np.isin(log.domain, [log.domains.index(name) for name in (*sources, options.target)])
    for name in ("user", "item", "domain", "event_type", "seconds", "part", "asked"):
        setattr(log, name, getattr(log, name)[kept])
    if options.scramble:
        for source in sources:
            inside = log.domain == log.domains.index(source)
            log.item[inside] = np.random.default_rng(0).permutation(log.item[inside])
    return log


def halving(config: Any, cut: Cut, out: Path, modes: list[str], number: int) -> list[dict]:
    """Make the plain candidates and some transfers, and let the guard judge."""
    work = out / str(number)
    shutil.rmtree(work, ignore_errors=True)
    train_settings = config.train.model_copy(update={"seed": number, "stacking_pairs": 0})
    base = out / f"base-{train_settings.method}"
    starts = any(MODES[name].start in ("base", "meta") for name in modes)
    if starts and not (base / "manifest.json").exists():
        of = cut.snapshot(out / f"source-{train_settings.method}", "source", train_settings, config.model, config.adapt)
        based(of.folder, of.manifest, base, config)
    snapshot = cache(lambda learns: cut.snapshot(work / learns, learns, train_settings, config.model, config.adapt))
    settings = (config.transitions, train_settings, config.adapt)
    held = SuccessiveHalving(f"{out.name}-{number}", DAY, base, work, snapshot, *settings, torch.get_num_threads())
    if not starts:
        held.lent = TransitionParams.from_settings(config.transitions)
    held.plain()
    tried = [MODES[name] for name in modes]
    for mode in tried:
        held.make(mode, 1.0)
    plain = [MODES["untrained"], MODES["weighed"], *(mode for mode in tried if mode.plain)]
    verdict = held.judged(plain, [mode for mode in tried if not mode.plain])
    opponents = {mode.name: {WITH_OPPONENT: with_opponent(held, mode).tolist()} for mode in tried if mode.start == "random"}
    facts = statistics_of(cut) | {"predictability": held.mean(MODES["untrained"])}
    rows = []
    for row in held.rows(verdict):
        key = row["mode"], 1.0, row["seed"]
        pairs = {"validation": held.gains[key].tolist(), "test": held.test[key].tolist()}
        rows.append({**row, "statistics": facts, **pairs, **opponents.get(row["mode"], {})})
    shutil.rmtree(work)
    return rows


def with_opponent(held: SuccessiveHalving, mode: Mode) -> np.ndarray:
    """NDCG@10 of the test pairs by f of a mode, fused with g as the untrained scorer weighs it; validation pairs choose the fusion."""
    of, folder = held.snapshot(mode.learns), held.folder(mode.name)
    made, params = artifact.load(folder), artifact.load(held.folder(OPPONENT)).params[0]
    rehearsed, known = artifact.load(f"{folder}-rehearsed").model, with_context(of.held(c.VALIDATION))
    by_fusion = gains_of(rehearsed, of.rehearsal, known, params, FUSIONS, CUTOFFS[c.VALIDATION]).mean(1)
    settings = DomainSettings(params=params, fusion=FUSIONS[int(by_fusion.argmax())])
    tuned = made.manifest.tuned | {made.domains[of.target]: settings}
    return test_gains(of, replace(made, manifest=made.manifest.model_copy(update={"tuned": tuned}), pair_ranker=None))


def based(snapshot: Path, manifest: Manifest, folder: Path, config: Any) -> None:
    """Train a base model on the source."""
    settings = config.train.model_copy(update={"stacking_pairs": 0})
    manifest = manifest.model_copy(update={"model_id": "base", "train": settings})
    place = folder.with_name(f"{folder.name}-run") / "spec.json"
    TrainSpec(snapshot=str(snapshot), model=str(folder), manifest=manifest, threads=torch.get_num_threads()).write(place)
    train(place, SingleProcess())


def statistics_of(cut: Cut) -> dict[str, float]:
    """What :func:`metarec_spark.transfer.task_features.statistics` says of the task."""
    log, learnt = cut.log, cut.known & (cut.log.part == TRAIN)
    here, there = learnt & (log.domain == cut.target), learnt & (log.domain != cut.target)
    of_items = np.bincount(log.item[here])
    of_items = of_items[of_items > 0]
    events, items = int(of_items.sum()), len(of_items)
    people, others = np.unique(log.user[here]), np.unique(log.user[there])
    inside = log.domain_of[log.tokens["item_idx"].to_numpy()] == cut.target
    token = log.tokens["token"].to_numpy()
    words = np.array([word.startswith("w:") for word in log.words])
    own, elsewhere = (set(np.unique(token[of & words[token]])) for of in (inside, ~inside))
    return {
        "users": float(len(people)),
        "items": float(items),
        "events": float(events),
        "density": events / max(1, len(people) * items),
        "entropy": (math.log(events) - (of_items * np.log(of_items)).sum() / events) / math.log(items) if items > 1 else 1.0,
        "source_users": float(len(others)),
        "source_events": float(there.sum()),
        "shared_users": len(np.intersect1d(people, others)) / max(1, len(people)),
        "shared_words": len(own & elsewhere) / max(1, len(own)),
    }


def show(options: argparse.Namespace, found: list[dict]) -> None:
    """Each mode's test NDCG@10, and its gain over what takes nothing from others and over the opponent: of the untrained scorer and
    the random starts fused with it, the best."""
    cuts = sorted({row["cut"] for row in found})
    rows = {(row["mode"], row["cut"]): row for row in found if row["seed"] == 0}
    modes = list(dict.fromkeys(mode for mode, _ in rows))
    chosen = {cut: next(row["mode"] for row in found if row["used"] and row["cut"] == cut) for cut in cuts}
    pairs = {mode: [tested(rows[mode, cut]) for cut in cuts] for mode in modes}
    pairs[SERVES] = [tested(rows[chosen[cut], cut]) for cut in cuts]
    for mode in modes:
        if WITH_OPPONENT in rows[mode, cuts[0]]:
            pairs[f"{mode} + {OPPONENT}"] = [np.array(rows[mode, cut][WITH_OPPONENT]) for cut in cuts]
    opponent = max((name for name in pairs if name.endswith(OPPONENT)), key=lambda name: np.concatenate(pairs[name]).mean())
    others = [OPPONENT, "weighed", *(["scratch"] if "scratch" in modes else []), opponent]
    print(f"{options.target}, {options.share:.0%} of its users, {len(cuts)} draws; test NDCG@10 ± its standard error over draws,")
    print(f"and gains ± the standard error of the paired difference over all pairs; the opponent is {opponent}")
    print(f"| mode | NDCG@10 | over {' | over '.join([*others[:-1], 'the opponent'])} | used in | seconds |")
    print("|---" * (len(others) + 4) + "|")
    for name, of in pairs.items():
        used = len(cuts) if name == SERVES else sum(mode == name for mode in chosen.values())
        seconds = f"{statistics.mean(rows[name, cut]['seconds'] for cut in cuts):.0f}" if name in modes else ""
        beside = (gain(np.concatenate(of), np.concatenate(pairs[other])) for other in others)
        over = " | ".join(f"{value:+.1%}" + (f" ± {error:.1%}" if error < math.inf else "") for value, error in beside)
        print(f"| {name} | {spread(np.array([draw.mean() for draw in of]))} | {over} | {used} | {seconds} |")


def tested(row: dict) -> np.ndarray:
    """NDCG@10 of each test pair; of the jobs the mean alone is known."""
    return np.array(row.get("test", [row["test_ndcg"]]))


def gain(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Of the mean over pairs, in parts of theirs, and its standard error; infinite of a single pair."""
    return ours.mean() / theirs.mean() - 1, standard_error(ours[None], theirs[None]) / theirs.mean()


def spread(values: np.ndarray) -> str:
    around = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{around}"


if __name__ == "__main__":
    main()
