"""Fixed costs of extract: SQL executions, jobs, stages and seconds of two nights on a small log.

python benchmarks/extract_costs.py [--events 60000] [--out warehouse/extract_costs] [--conf spark.x=y ...] [--calls]

The log is `metarec demo`'s, generated once; the first night reads all days but the last, the second night the last day. Each night
is a process of its own. Counts and task seconds are Spark's own, from its status store; ``session`` is the time until the session
stands, ``job`` that of the result line, which includes it. ``CPU s`` is of all processes of the night: on a machine that does other
work too, it tells more than the seconds. ``--calls`` lists the calls that most executions come from.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import psutil

from metarec_spark import config, job
from metarec_spark.features.extract import extract
from metarec_spark.runtime import logs

FIRST_DAY, DAYS = date(2024, 1, 1), 15
NIGHTS = [FIRST_DAY + timedelta(days=DAYS - 2), FIRST_DAY + timedelta(days=DAYS - 1)]
COLUMNS = ("SQL executions", "jobs", "stages", "tasks", "task CPU s", "session s", "job s", "process s", "CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=Path("warehouse/extract_costs"))
    parser.add_argument("--master", default="local[2]")
    parser.add_argument("--conf", nargs="*", default=[], help="Spark settings of the session, each name=value")
    parser.add_argument("--calls", action="store_true", help="list the calls that executions come from")
    options = parser.parse_args()
    out = options.out.absolute()
    log, tables = out / f"log-{options.events}", out / "tables"
    if not (log / "items" / "_SUCCESS").exists():
        sizes = {"users": options.events // 30, "events": options.events, "items": 400, "days": DAYS, "seed": 7}
        arguments = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
        shutil.rmtree(log, ignore_errors=True)
        subprocess.run(
            [sys.executable, "-c", "from metarec_spark.cli import main; main()", "generate", "--out", str(log), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    shutil.rmtree(tables, ignore_errors=True)
    print(f"| night | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}", flush=True)
    for ds in NIGHTS:
        settings = {
            "warehouse": f"file://{tables}",
            "sources": [{"path": f"file://{log}/events", "day_column": "ds"}],
            "items": [{"path": f"file://{log}/items"}],
            "spark": {"master": options.master, "conf": dict(pair.split("=", 1) for pair in options.conf)},
        }
        start = time.monotonic()
        command = [sys.executable, __file__, "night", json.dumps(settings), ds.isoformat()]
        ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - start
        measured = json.loads(ended.stdout.splitlines()[-1])
        numbers = [*measured["costs"], f"{seconds:.1f}", measured["cpu"]]
        print(f"| {ds} | {' | '.join(map(str, numbers))} |", flush=True)
        if options.calls:
            for call, count in measured["calls"]:
                print(f"    {count:4} {call}")


def night(settings: str, ds: str) -> None:
    """One extract in this process; prints its costs."""
    logs.start("extract", date.fromisoformat(ds))
    start, begun = time.monotonic(), []

    def work(running: job.Job) -> job.Result:
        begun.append(time.monotonic() - start)
        spark.append(running.spark)
        return extract(running)

    spark: list = []
    if job.run("extract", config.parse(json.loads(settings)), date.fromisoformat(ds), work):
        sys.exit(1)
    seconds = time.monotonic() - start
    jvm = spark[0]._jsparkSession
    executions = list(_scala(jvm.sharedState().statusStore().executionsList()))
    store = spark[0].sparkContext._jsc.sc().statusStore()
    quantiles = spark[0]._sc._gateway.new_array(spark[0]._jvm.double, 0)
    stages = _scala(store.stageList(None, False, False, quantiles, None))
    cpu = sum(stage.executorCpuTime() for stage in stages) / 1e9
    jobs = sum(1 for _ in _scala(store.jobsList(None)))
    tasks = sum(stage.numCompleteTasks() for stage in stages)
    calls = Counter(call.description()[:110] for call in executions)
    costs = [len(executions), jobs, len(stages), tasks, f"{cpu:.1f}", f"{begun[0]:.1f}", f"{seconds:.1f}"]
    print(json.dumps({"costs": costs, "calls": calls.most_common(40), "cpu": f"{_processor_seconds():.1f}"}))


def _processor_seconds() -> float:
    """Of this process and of those that it started, the JVM and Python workers among them."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system + time.children_user + time.children_system for time in times)


def _scala(sequence: object) -> list:
    return [sequence.apply(i) for i in range(sequence.size())]


if __name__ == "__main__":
    if sys.argv[1:2] == ["night"]:
        night(*sys.argv[2:])
    else:
        main()
