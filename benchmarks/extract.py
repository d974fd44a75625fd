"""What extraction costs: beside a bare Spark job on the same log, by the log's size, for one more day, and for a skewed log.

python benchmarks/extract.py [--events 1000000 10000000 50000000] [--of 10000000] [--out warehouse/extract]

Logs are generated once. The bare job reads the log, groups it by user, sorts each user's events and writes them as Parquet. Each run
is a process of its own on local[2] with 4 GB for the driver; its peak memory is that of its process tree. The day has a hundredth
of the history's events. The skewed log has the same events as the even one of its size, but a million of them, or a tenth if that is
less, are one user's, and a tenth are one item's.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import processes
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.runtime.session import session
from metarec_spark.warehouse.storage import file_uri

FIRST_DAY, DAYS = date(2024, 1, 1), 100
LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--of", type=int, help="events of the history that gets one more day, and of the skewed log; the most")
    parser.add_argument("--out", type=Path, default=Path("warehouse/extract"))
    options = parser.parse_args()
    out = options.out.absolute()
    print("| run | events | seconds | events/s | peak memory, GB | ratio |\n|---|---|---|---|---|---|", flush=True)
    costs = {}
    for events in options.events:
        log = generated(out, events)
        bare = processes.run([sys.executable, __file__, "bare", log, out / "bare"], out / "bare.log")
        shown("bare job", events, bare, "")
        whole = extracted(out, log, f"history-{events}", LAST_DAY)
        shown("extract", events, whole, f"{whole.seconds / bare.seconds:.2f} of the bare job's")
        costs[events] = whole.seconds
    if len(costs) > 1:
        exponent = np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0]
        (few, before), (many, after) = sorted(costs.items())[-2:]
        last = math.log(after / before) / math.log(many / few)
        print(f"\nseconds grow with events to the power {exponent:.2f}; between the two largest logs, {last:.2f}\n")
    events = options.of or events
    log, name = generated(out, events), f"night-{events}"
    history = extracted(out, log, name, LAST_DAY - timedelta(days=1))
    day = extracted(out, log, name, LAST_DAY, fresh=False)
    shown("history without the last day", events * (DAYS - 1) // DAYS, history, "")
    shown("the last day", events // DAYS, day, f"{day.seconds / history.seconds:.1%} of the history's")
    odd = out / f"skewed-{events}"
    if not (odd / "done").exists():
        processes.run([sys.executable, __file__, "skewed", log, odd], out / "skewed.log")
        (odd / "done").touch()
    uneven = extracted(out, odd, f"uneven-{events}", LAST_DAY)
    shown("extract, skewed", events, uneven, f"{uneven.seconds / costs[events]:.2f} of the even log's")


def generated(out: Path, events: int) -> Path:
    """A log of so many events, a tenth as many users and a two-hundredth as many items."""
    log = out / f"log-{events}"
    if not (log / "done").exists():
        shutil.rmtree(log, ignore_errors=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        sizes = ["--events", events, "--users", events // 10, "--items", events // 1_000, "--days", DAYS]
        processes.run(["metarec", "generate", "--out", log, *sizes, "--first-day", FIRST_DAY], out / "generate.log")
        (log / "done").touch()
    return log


def extracted(out: Path, log: Path, name: str, ds: date, *, fresh: bool = True) -> processes.Ended:
    """Run extract; ``fresh``: with no tables before."""
    folder = out / name
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "metarec.toml").write_text(
            f"warehouse = {json.dumps(file_uri(folder / 'tables'))}\n"
            f'[[sources]]\npath = {json.dumps(file_uri(log / "events"))}\nday_column = "ds"\n'
            f"[[items]]\npath = {json.dumps(file_uri(log / 'items'))}\n"
            '[spark]\nmaster = "local[2]"\nconf = { "spark.driver.memory" = "4g" }\n',
            encoding="utf-8",
        )
    return processes.run(["metarec", "extract", "--config", folder / "metarec.toml", "--ds", ds], folder / f"{ds}.log")


def shown(name: str, events: int, ended: processes.Ended, ratio: str) -> None:
    print(
        f"| {name} | {events:,} | {ended.seconds:.0f} | {events / ended.seconds:,.0f} | {ended.peak:.2f} | {ratio} |", flush=True
    )


def bare(log: Path, out: Path) -> None:
    """Read, group by user, sort, write."""
    frame = opened(out).read.parquet(file_uri(log / "events"))
    event = F.struct(c.EVENT_TIME, c.ITEM_ID, c.EVENT_TYPE, c.DOMAIN)
    rows = frame.groupBy(c.USER_ID).agg(F.sort_array(F.collect_list(event)).alias("events"))
    rows.write.mode("overwrite").parquet(file_uri(out))


def skewed(log: Path, out: Path) -> None:
    """The log with one user, and one item, of very many events."""
    spark = opened(out)
    frame = spark.read.parquet(file_uri(log / "events"))
    count = frame.count()
    drawn = [F.xxhash64(F.lit(name), c.USER_ID, c.ITEM_ID, c.EVENT_TIME) % 1_000_000 / 1e6 for name in ("user", "item")]
    share = min(1_000_000, count // 10) / count
    # The user's events are spread over the day, so that cleaning takes none of them for a bot's.
    time = F.timestamp_micros(F.unix_micros(c.EVENT_TIME) + F.pmod(F.xxhash64(c.USER_ID, c.ITEM_ID), F.lit(1_000_000)))
    one = (F.abs(drawn[0]) < share) & F.col(c.USER_ID).isNotNull()
    frame = frame.withColumns(
        {
            c.EVENT_TIME: F.when(one, time).otherwise(F.col(c.EVENT_TIME)),
            c.USER_ID: F.when(one, "u-one").otherwise(F.col(c.USER_ID)),
            c.ITEM_ID: F.when((F.abs(drawn[1]) < 0.1) & F.col(c.ITEM_ID).isNotNull(), "i-one").otherwise(F.col(c.ITEM_ID)),
        }
    )
    frame.write.mode("overwrite").partitionBy("ds").parquet(file_uri(out / "events"))
    shutil.copytree(log / "items", out / "items", dirs_exist_ok=True)


def opened(out: Path):
    settings = {"master": "local[2]", "conf": {"spark.driver.memory": "4g"}}
    return session(config.parse({"warehouse": file_uri(out), "spark": settings}), "benchmark")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("bare", "skewed"):
        {"bare": bare, "skewed": skewed}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
        print("{}")
    else:
        main()
