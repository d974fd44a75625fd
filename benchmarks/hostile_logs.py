"""Logs as the world writes them, read by the product and by an oracle: what differs is a silent error.

python benchmarks/hostile_logs.py [--logs 200] [--seed 0] [--at-once 20]

Each log is one source of one to four files with random rows; every file has its own dialect, encoding, compression, order of columns,
late columns, types, form of time, folder and broken lines. ``hostile_oracle`` reads the same bytes with Python's csv, json and
pyarrow. A log that the product refuses to read is counted apart, with its message: refusing is allowed, a wrong row is not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

from hostile_files import HostileLog
from hostile_oracle import BROKEN, read
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark import config
from metarec_spark.errors import DataError
from metarec_spark.runtime.session import session
from metarec_spark.sources.events import open_events


def differences(spark: SparkSession, logs: Sequence[HostileLog]) -> tuple[dict[int, str], dict[int, str]]:
    """Return the logs that the product reads otherwise than the oracle, and those that it refuses, by their place in ``logs``."""
    frames, refused, wrong = [], {}, {}
    for i, log in enumerate(logs):
        try:
            frames.append(open_events(spark, log.source, i))
        except DataError as error:
            refused[i] = str(error)
    columns = ["user_id", "item_id", "event_type", F.unix_micros("event_time"), "value"]
    rows = (
        reduce(DataFrame.unionByName, frames).select(F.split_part("source", F.lit(":"), F.lit(1)), "problem", *columns).collect()
    )
    results: dict[int, Counter[tuple[object, ...]]] = {i: Counter() for i in range(len(logs))}
    for log, problem, *texts, micros, value in rows:
        row = *(text if text is not None and text.strip() else None for text in texts), micros, value  # blank is nothing
        results[int(log)][BROKEN if problem else row] += 1
    for i, log in enumerate(logs):
        expected = read(log.files, log.zone)
        if i not in refused and results[i] != expected:
            wrong[i] = f"too many: {dict(results[i] - expected)}; missing: {dict(expected - results[i])}"
    return wrong, refused


def main() -> None:
    """Compare logs until the number is reached; exit 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first log; the others follow")
    parser.add_argument("--at-once", type=int, default=20, help="logs that one Spark job reads")
    options = parser.parse_args()
    settings = config.parse({"warehouse": "file:///unused", "spark": {"conf": {"spark.sql.codegen.wholeStage": "false"}}})
    spark, wrong, refused = session(settings, "hostile logs"), 0, Counter()
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    for start in range(options.seed, options.seed + options.logs, options.at_once):
        logs = [HostileLog(seed, folder) for seed in range(start, min(start + options.at_once, options.seed + options.logs))]
        differing, not_read = differences(spark, logs)
        wrong += len(differing)
        refused.update(message.partition(": ")[2] for message in not_read.values())
        for i, difference in differing.items():
            print(f"seed {start + i} {logs[i].source}: {difference}", flush=True)
        print(f"seeds {start} to {start + len(logs) - 1}: {len(differing)} differ, {len(not_read)} refused", flush=True)
    print(f"{options.logs} logs from seed {options.seed}: {wrong} silent differences, {refused.total()} refused")
    for message, count in refused.most_common():
        print(f"  {count} × {message}")
    shutil.rmtree(folder)
    sys.exit(int(wrong > 0))


if __name__ == "__main__":
    main()
