"""How a recommend job's time grows with users, items and executors, and what one user with a long history costs the others.

python benchmarks/scaling.py [--users 100000] [--items 25000] [--rounds 3] [--out warehouse/scaling]

Tables are generated as by recommend_job.py. Each run is a process of its own: for users and items on local[2], for executors on a
standalone cluster of this machine, which is started and stopped, with one core each. "lists" are the seconds in which lists are made
and written, without the start of Spark. Rounds of all are taken in turns. An exponent e says that twice as much takes 2 ** e as long.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
from pathlib import Path

from recommend_job import DAY, prepared, sizes, submitted

MASTER_PORT = "7177"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=100_000, help="events of the one user with a long history")
    parser.add_argument("--out", type=Path, default=Path("warehouse/scaling"))
    sizes(parser)
    options = parser.parse_args()
    given, out = vars(options), options.out.absolute()
    cases = {
        "as it is": {},
        "twice the users": {"users": 2 * options.users},
        "twice the items": {"items": 2 * options.items},
        "one user with a long history more": {"heavy": options.long},
    }
    for name, other in cases.items():
        prepared(out / name.replace(" ", "-"), given | {"out": None} | other)
    seconds, processor = {}, {}

    def taken(name: str, folder: Path, **environment: str) -> None:
        result = submitted(folder, "run", DAY, "--set", "recommend.mode=full", **environment).result
        seconds.setdefault(name, []).append(result["list_seconds"])
        processor.setdefault(name, []).append(sum(result["processor_seconds"].values()))

    with_master = {"SPARK_MASTER": f"spark://127.0.0.1:{MASTER_PORT}", "SPARK_LOCAL_IP": "127.0.0.1"}
    settings = "--conf spark.executor.memory=1g --conf spark.executor.cores=1 --conf spark.cores.max="
    ports = {"MASTER_PORT": MASTER_PORT, "MASTER_UI_PORT": "8180", "WORKER_UI_PORT": "8181"}
    cluster = os.environ | ports | {"STANDALONE_FOLDER": str(out / "cluster"), "WORKER_MEMORY": "1g"}
    for _ in range(options.rounds):
        for name in cases:
            taken(name, out / name.replace(" ", "-"))
    subprocess.run(["deploy/standalone.sh", "start"], env=cluster, check=True)
    try:
        for _ in range(options.rounds):
            for executors in (1, 2):
                taken(f"executors: {executors}", out / "as-it-is", **with_master, SPARK_SUBMIT_ARGS=f"{settings}{executors}")
    finally:
        subprocess.run(["deploy/standalone.sh", "stop"], env=cluster, check=True)
    print(f"{options.users:,} users × {options.items:,} items; median of {options.rounds} rounds (least to most)")
    print(
        "| run | lists, s | processor seconds in tasks | ratio of lists | of processor seconds | exponent |\n|---|---|---|---|---|---|"
    )
    for name in seconds:
        first = "executors: 1" if name.startswith("executors") else "as it is"
        ratio, of_processor = (statistics.median(times[name]) / statistics.median(times[first]) for times in (seconds, processor))
        exponent = f"{math.log2(ratio):.2f}" if name != first and "history" not in name else ""
        shown = " | ".join(
            f"{statistics.median(times[name]):.1f} ({min(times[name]):.1f} to {max(times[name]):.1f})"
            for times in (seconds, processor)
        )
        print(f"| {name} | {shown} | {ratio:.3f} | {of_processor:.3f} | {exponent} |")


if __name__ == "__main__":
    main()
