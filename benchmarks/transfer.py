"""Test NDCG@10 of transfer candidates for a thin platform, over subsamples of its users, and which candidate would serve.

python benchmarks/transfer.py --target kitchen --share 0.05 --log ../shared/data/food-kitchen
python benchmarks/transfer.py --target beauty --share 0.2 --log ../shared/data/beauty ../shared/data/toys ../shared/data/sports

The logs are extracted once and subsampled in memory (cuts.py); candidates are trained, tuned and judged by the code of
``metarec adapt``. Each subsample's rows are kept in OUT/runs.jsonl, with the meta-features of its task, and are not made again.
With ``--by-jobs``, the first subsample goes through the jobs extract, train, evaluate and adapt instead, in a warehouse of its
own: the same rows, of the configured candidates, and minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
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
from metarec_spark.training.tuning import FUSIONS, ensemble_ndcg
from metarec_spark.training.worker import train
from metarec_spark.transfer.candidates import Candidate, Candidates
from metarec_spark.transfer.halving import final_comparison, records
from metarec_spark.transfer.modes import MODES
from metarec_spark.transfer.negative_transfer import standard_error
from metarec_spark.transfer.task_snapshot import with_context
from metarec_spark.transfer.validation import CUTOFFS, test_ndcg
from metarec_spark.warehouse.storage import file_uri

DAY = "2014-07-23"
OPPONENT, WITH_OPPONENT, SERVES = "heuristic", "with_heuristic", "what serves"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="domain that is subsampled")
    parser.add_argument("--log", type=Path, nargs="+", required=True)
    parser.add_argument("--source", nargs="+", help="source domains; all others of the logs without it")
    parser.add_argument(
        "--scramble", action="store_true", help="permute the items of the source's events: nothing is to be learned"
    )
    parser.add_argument("--share", type=float, default=0.05, help="share of the target's users that is kept")
    parser.add_argument("--cuts", type=int, nargs=2, default=[0, 3], help="first, and one after the last")
    parser.add_argument("--by-jobs", action="store_true", help="run the jobs, on the first subsample")
    parser.add_argument("--modes", nargs="+", default=["from_scratch", "meta_trained_ranker", "fine_tuned"], choices=MODES)
    parser.add_argument("--days", type=int, help="predict users' first events in the last so many days; the newest without it")
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
    """The rows of all subsamples."""
    warehouse = extracted(options, out)
    config = load(warehouse.parent / "metarec.toml", options.set)
    if "fine_tuned_from_meta" in options.modes and config.train.method == "joint":
        sys.exit("fine_tuned_from_meta starts from a base model that was trained by episodes: add --set train.method=reptile")
    torch.set_num_threads(1 if config.train.threads == "auto" else config.train.threads)
    log = limited(Log(warehouse, config.transitions, options.days), options)
    sources = "+".join(sorted({log.domains[i] for i in np.unique(log.domain)} - {options.target}))
    variant = ("-scrambled" if options.scramble else "") + (f"-{options.days}d" if options.days else "")
    name = f"{options.target}-from-{sources}-{options.share}{variant}"
    settings, file, results = [options.modes, options.set], out / "runs.jsonl", []
    stored = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    for cut in range(*options.cuts):
        task = {"task": f"{name}-{cut}", "asked": settings}
        rows = [row for row in stored if {key: row.get(key) for key in task} == task]
        if not rows:
            task |= {"run": time.time(), "cut": cut, "target": options.target, "share_left": options.share}
            compared_rows = compared(
                config, Cut.from_log(log, options.target, options.share, cut), out / name, options.modes, cut
            )
            rows = [task | row for row in compared_rows]
            with file.open("a", encoding="utf-8") as rest:
                rest.writelines(json.dumps(row) + "\n" for row in rows)
        newest = max(row["run"] for row in rows)
        results += [row for row in rows if row["run"] == newest]
    return results


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
    """The rows of ``transfer_runs`` after a base model was trained on the source and the target's first subsample came in."""
    folder, number = out / f"jobs-{options.target}-{options.share}", options.cuts[0]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    warehouse = extracted(options, out)
    log = Log(warehouse, load(warehouse.parent / "metarec.toml", options.set).transitions)
    cut = Cut.from_log(log, options.target, options.share, number)
    remaining, files = pa.array(log.user_ids).filter(pa.array(cut.remaining)), []
    for file in (file / "events.parquet" for file in options.log):
        events = pq.read_table(file, columns=["user_id", "item_id", "domain", "event_type", "event_time"])
        inside = pc.equal(events["domain"], options.target)
        files += [folder / f"{file.parent.name}-source.parquet", folder / f"{file.parent.name}-target.parquet"]
        pq.write_table(events.filter(pc.invert(inside)), files[-2])
        pq.write_table(events.filter(pc.and_(inside, pc.is_in(events["user_id"], remaining))), files[-1])
    items, sets = (
        [file / "items.parquet" for file in options.log],
        [part for override in options.set for part in ("--set", override)],
    )

    def job(name: str, command: str, *more: str) -> None:
        start, cpu = time.monotonic(), cpu_seconds()
        run = ["metarec", command, "--config", folder / "metarec.toml", "--ds", options.ds, *sets, *more]
        subprocess.run(run, stdout=subprocess.DEVNULL, check=True)
        print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes, {(cpu_seconds() - cpu) / 60:.1f} CPU-minutes", flush=True)

    configured(folder, [file for file in files if "source" in file.name], items)
    for name in ("extract", "train", "evaluate"):
        job(name, name)
    configured(folder, files, items)
    job("extract with the target", "extract")
    job("adapt", "adapt", "--domain", options.target)
    job("full retraining", "train")
    rows = DeltaTable(str(folder / "tables" / "transfer_runs")).to_pyarrow_table().to_pylist()
    last = {(row["mode"], row["seed"]): row for row in sorted(rows, key=lambda row: row["share"])}
    return [{**row, "cut": number} for row in last.values()]


def cpu_seconds() -> float:
    """CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def configured(folder: Path, events: list[Path], items: list[Path]) -> None:
    """Write a configuration."""
    lines = [f"warehouse = {json.dumps(file_uri(folder / 'tables'))}"]
    for section, files in (("sources", events), ("items", items)):
        for file in files:
            lines += [f"[[{section}]]", f"path = {json.dumps(file_uri(file))}"]
    (folder / "metarec.toml").write_text("\n".join([*lines, "[split]", 'protocol = "leave_one_out"', ""]), encoding="utf-8")


def limited(log: Log, options: argparse.Namespace) -> Log:
    """The log without the events of domains that are neither source nor target."""
    sources = options.source or [name for name in log.domains if name != options.target]
    included = np.isin(log.domain, [log.domains.index(name) for name in (*sources, options.target)])
    for name in ("user", "item", "domain", "event_type", "seconds", "part", "is_target"):
        setattr(log, name, getattr(log, name)[included])
    if options.scramble:
        for source in sources:
            inside = log.domain == log.domains.index(source)
            log.item[inside] = np.random.default_rng(0).permutation(log.item[inside])
    return log


def compared(config: Any, cut: Cut, out: Path, modes: list[str], number: int) -> list[dict]:
    """Train heuristic, ranker and the candidates of some modes, and decide between them."""
    work = out / str(number)
    shutil.rmtree(work, ignore_errors=True)
    train_settings = config.train.model_copy(update={"seed": number, "stacking_pairs": 0})
    tried = [MODES[name] for name in dict.fromkeys(("heuristic", "ranker", *modes))]
    base = out / f"base-{train_settings.method}"
    from_base = any(mode.start == "base" for mode in tried)
    if from_base and not (base / "manifest.json").exists():
        source = cut.snapshot(out / f"source-{train_settings.method}", "source", train_settings, config.model, config.adapt)
        train_base(source.folder, source.manifest, base, config)
    candidates = Candidates(
        run=f"{out.name}-{number}",
        ds=DAY,
        base=base,
        work=work,
        snapshots={
            events: cut.snapshot(work / events, events, train_settings, config.model, config.adapt)
            for events in {mode.events for mode in tried}
        },
        transitions=config.transitions,
        train=train_settings,
        adapt=config.adapt,
        threads=torch.get_num_threads(),
    )
    if not from_base:
        candidates.base_params = TransitionParams.from_settings(config.transitions)
    for mode in sorted(tried, key=lambda mode: mode.start is not None):
        candidates.evaluate(Candidate(mode))
    transfers, baselines = ([mode for mode in tried if mode.baseline is kind] for kind in (False, True))
    decision = final_comparison(candidates, transfers, baselines)
    features = meta_features(cut) | {"predictability": candidates.evaluate(Candidate(MODES["heuristic"])).mean}
    rows = []
    for record in records(candidates, decision):
        candidate = Candidate(MODES[record.mode], seed=record.seed)
        evaluation = candidates.evaluate(candidate)
        test, more = evaluation.test_ndcg, {"statistics": features, "reason": decision.reason}
        if candidate.mode.start:  # by the model that would serve
            folder = work / "served" / candidate.name
            candidates.save(candidate, folder)
            test = candidates.test_ndcg(candidate, folder)
            if candidate.mode.start == "random":
                more[WITH_OPPONENT] = with_opponent(candidates, candidate, folder).tolist()
        pairs = {"validation": evaluation.ndcg.tolist(), "test": test.tolist(), "test_ndcg": float(test.mean())}
        rows.append(asdict(record) | more | pairs)
    shutil.rmtree(work)
    return rows


def with_opponent(candidates: Candidates, candidate: Candidate, folder: Path) -> np.ndarray:
    """NDCG@10 of the test pairs by a candidate's encoder, fused with g as the heuristic has it; validation pairs choose the fusion."""
    snapshot, params = candidates.snapshots[candidate.mode.events], candidates.evaluate(Candidate(MODES[OPPONENT])).tuned.params
    twin, pairs = artifact.load(candidates.twin(candidate)).model, with_context(snapshot.pairs(c.VALIDATION))
    by_fusion = ensemble_ndcg(twin, snapshot.twin_catalogue, pairs, params, FUSIONS, CUTOFFS[c.VALIDATION]).mean(1)
    settings = DomainSettings(params=params, fusion=FUSIONS[int(by_fusion.argmax())])
    return test_ndcg(snapshot, artifact.load(folder).model, None, settings)


def train_base(snapshot: Path, manifest: Manifest, folder: Path, config: Any) -> None:
    """Train a base model on the source."""
    settings = config.train.model_copy(update={"stacking_pairs": 0})
    manifest = manifest.model_copy(update={"model_id": "base", "train": settings})
    spec_file = folder.with_name(f"{folder.name}-run") / "spec.json"
    TrainSpec(snapshot=str(snapshot), model=str(folder), manifest=manifest, threads=torch.get_num_threads()).write(spec_file)
    train(spec_file, SingleProcess())


def meta_features(cut: Cut) -> dict[str, float]:
    """Task meta-features, as :func:`metarec_spark.transfer.task_features.task_meta_features` gives them."""
    log, training = cut.log, cut.known & (cut.log.part == TRAIN)
    here, there = training & (log.domain == cut.target), training & (log.domain != cut.target)
    of_items = np.bincount(log.item[here])
    of_items = of_items[of_items > 0]
    events, items = int(of_items.sum()), len(of_items)
    people, others = np.unique(log.user[here]), np.unique(log.user[there])
    inside = log.domain_of[log.tokens["item_idx"].to_numpy()] == cut.target
    token = log.tokens["token"].to_numpy()
    words = np.array([word.startswith("w:") for word in log.words])
    own, elsewhere = (set(np.unique(token[chosen & words[token]])) for chosen in (inside, ~inside))
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


def show(options: argparse.Namespace, results: list[dict]) -> None:
    """Print each mode's test NDCG@10, and its gain over the baselines and over the opponent: the best of the heuristic and of encoders
    from a random start that are fused with it."""
    cuts = sorted({row["cut"] for row in results})
    rows = {(row["mode"], row["cut"]): row for row in results if row["seed"] == 0}
    modes = list(dict.fromkeys(mode for mode, _ in rows))
    chosen = {cut: next(row["mode"] for row in results if row["used"] and row["cut"] == cut) for cut in cuts}
    pairs = {mode: [tested(rows[mode, cut]) for cut in cuts] for mode in modes}
    pairs[SERVES] = [tested(rows[chosen[cut], cut]) for cut in cuts]
    for mode in modes:
        if WITH_OPPONENT in rows[mode, cuts[0]]:
            pairs[f"{mode} + {OPPONENT}"] = [np.array(rows[mode, cut][WITH_OPPONENT]) for cut in cuts]
    opponent = max((name for name in pairs if name.endswith(OPPONENT)), key=lambda name: np.concatenate(pairs[name]).mean())
    others = [OPPONENT, "ranker", *(["from_scratch"] if "from_scratch" in modes else []), opponent]
    print(f"{options.target}, {options.share:.0%} of its users, {len(cuts)} draws; test NDCG@10 ± its standard error over draws,")
    print(f"and gains ± the standard error of the paired difference over all pairs; the opponent is {opponent}")
    print(f"| mode | NDCG@10 | over {' | over '.join([*others[:-1], 'the opponent'])} | used in | seconds |")
    print("|---" * (len(others) + 4) + "|")
    for name, draws in pairs.items():
        used = len(cuts) if name == SERVES else sum(mode == name for mode in chosen.values())
        seconds = f"{statistics.mean(rows[name, cut]['seconds'] for cut in cuts):.0f}" if name in modes else ""
        beside = (gain(np.concatenate(draws), np.concatenate(pairs[other])) for other in others)
        over = " | ".join(f"{value:+.1%}" + (f" ± {error:.1%}" if error < math.inf else "") for value, error in beside)
        print(f"| {name} | {spread(np.array([draw.mean() for draw in draws]))} | {over} | {used} | {seconds} |")


def tested(row: dict) -> np.ndarray:
    """NDCG@10 of each test pair; of the jobs the mean alone is known."""
    return np.array(row.get("test", [row["test_ndcg"]]))


def gain(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """Of the mean over pairs, in parts of theirs, and its standard error; infinite of a single pair."""
    return values.mean() / baseline.mean() - 1, standard_error(values[None], baseline[None]) / baseline.mean()


def spread(values: np.ndarray) -> str:
    around = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{around}"


if __name__ == "__main__":
    main()
