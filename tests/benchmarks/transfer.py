"""What other platforms lend to a thin one: each mode's test figure, over cuts of the target's users, and what the guard chose.

python tests/benchmarks/transfer.py --target kitchen --share 0.05 --log ../shared/data/food-kitchen
python tests/benchmarks/transfer.py --target beauty --share 0.2 --log ../shared/data/beauty ../shared/data/toys ../shared/data/sports

The base model is trained on the other domains, once; each cut is adapted to in a copy of its warehouse.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from metarec_spark.storage import file_uri

PLAIN = ("untrained", "weighed", "scratch")
EVENTS = ("user_id", "item_id", "domain", "event_type", "event_time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="domain that is cut")
    parser.add_argument("--log", type=Path, nargs="+", required=True)
    parser.add_argument("--share", type=float, default=0.05, help="share of the target's users that is left")
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--ds", default="2014-07-23", help="last day of the logs")
    parser.add_argument("--out", type=Path, default=Path("warehouse/transfer"))
    parser.add_argument("--set", action="append", default=[], help="section.key=value for all commands")
    options = parser.parse_args()
    for log in options.log:
        if not (log / "events.parquet").exists():
            sys.exit(f"this benchmark needs the log {log}; it is not there")
    out = options.out.absolute()
    base = prepared(options, out)
    found = [adapted(options, out, base, cut) for cut in range(options.cuts)]
    show(options, found)


def prepared(options: argparse.Namespace, out: Path) -> Path:
    """Write the logs of source and target, and train the base model on the source alone."""
    folder = out / f"without-{options.target}"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    events = pa.concat_tables([pq.read_table(log / "events.parquet", columns=list(EVENTS)) for log in options.log])
    inside = pc.equal(events["domain"], options.target)
    pq.write_table(events.filter(pc.invert(inside)), folder / "source.parquet")
    pq.write_table(events.filter(inside), folder / "target.parquet")
    configuration(folder, options.log, [folder / "source.parquet"])
    for command in ("extract", "train", "evaluate"):
        run(command, folder, options)
    (folder / "done").touch()
    return folder


def adapted(options: argparse.Namespace, out: Path, base: Path, cut: int) -> list[dict]:
    """Give the target a share of its users, adapt, and return the rows of ``transfer_runs``."""
    folder = out / f"{options.target}-{options.share}-{cut}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base / "tables", folder / "tables")
        events = pq.read_table(base / "target.parquet")
        users = np.array(sorted(pc.unique(events["user_id"]).drop_null().to_pylist()))
        kept = np.random.default_rng(cut).choice(users, int(options.share * len(users)), replace=False)
        pq.write_table(events.filter(pc.is_in(events["user_id"], pa.array(kept))), folder / "target.parquet")
        configuration(folder, options.log, [base / "source.parquet", folder / "target.parquet"])
        run("extract", folder, options)
        run("adapt", folder, options, "--domain", options.target)
        (folder / "done").touch()
    return DeltaTable(str(folder / "tables" / "transfer_runs")).to_pyarrow_table().to_pylist()


def configuration(folder: Path, logs: list[Path], sources: list[Path]) -> None:
    lines = [f"warehouse = {json.dumps(file_uri(folder / 'tables'))}"]
    for source in sources:
        lines += ["[[sources]]", f"path = {json.dumps(file_uri(source))}"]
    for log in logs:
        lines += ["[[items]]", f"path = {json.dumps(file_uri(log / 'items.parquet'))}"]
    lines += ["[split]", 'protocol = "leave_one_out"']
    (folder / "metarec.toml").write_text("\n".join([*lines, ""]), encoding="utf-8")


def run(command: str, folder: Path, options: argparse.Namespace, *more: str) -> None:
    sets = [part for override in options.set for part in ("--set", override)]
    subprocess.run(
        ["metarec", command, "--config", folder / "metarec.toml", "--ds", options.ds, *sets, *more],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def show(options: argparse.Namespace, found: list[list[dict]]) -> None:
    """Each mode's test NDCG@10 with the most training that it got in every cut, beside the best plain mode of that cut."""
    print(f"{options.target}, {options.share:.0%} of its users, {len(found)} cuts; test NDCG@10, mean ± spread over cuts")
    print("| mode | NDCG@10 | against the best plain mode | used in cuts | seconds |")
    print("|---|---|---|---|---|")
    best = [{row["mode"]: row for row in sorted(rows, key=lambda row: (row["share"], -row["seed"]))} for rows in found]
    for mode in dict.fromkeys(row["mode"] for rows in found for row in rows):
        of = [cut[mode] for cut in best]
        plain = [max(cut[name]["test_ndcg"] for name in PLAIN) for cut in best]
        values = [row["test_ndcg"] for row in of]
        gain = statistics.mean(values) / statistics.mean(plain) - 1
        used = sum(any(row["used"] and row["mode"] == mode for row in rows) for rows in found)
        seconds = statistics.mean(sum(row["seconds"] for row in rows if row["mode"] == mode) for rows in found)
        print(f"| {mode} | {spread(values)} | {gain:+.1%} | {used} | {seconds:.0f} |")
    chosen = [next(row for row in rows if row["used"] and row["seed"] == 0)["test_ndcg"] for rows in found]
    print(f"| chosen | {spread(chosen)} | {statistics.mean(chosen) / statistics.mean(plain) - 1:+.1%} | | |")


def spread(values: list[float]) -> str:
    around = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{around}"


if __name__ == "__main__":
    main()
