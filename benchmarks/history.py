"""Seconds until a day of 100,000 events is in ``events``, by the length of the history before it: they must not grow with it.

python benchmarks/history.py [--histories 1000000 10000000 50000000] [--day 100000] [--rounds 3] [--out warehouse/history]

Histories are generated and extracted once, each into a warehouse of its own. Then the same day's rows, of people and items of the
history, arrive as a new file. Each round is a process of its own on a copy of the warehouse; rounds of all sizes are taken in turns.
``events`` is the time from the start of the process to the commit of that table, ``whole`` that to the end of the job.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from extract import LAST_DAY, extracted, generated

NEXT_DAY = LAST_DAY + timedelta(days=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, nargs="+", default=[1_000_000, 10_000_000, 50_000_000])
    parser.add_argument("--day", type=int, default=100_000, help="events of the day")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("warehouse/history"))
    options = parser.parse_args()
    out = options.out.absolute()
    for events in options.histories:
        log, folder = generated(out, events), out / f"of-{events}"
        shutil.rmtree(log / "events" / f"ds={NEXT_DAY}", ignore_errors=True)
        if not (folder / "done").exists():
            first = extracted(out, log, folder.name, LAST_DAY)
            print(f"history of {events:,}: {first.seconds:.0f} s, peak {first.peak:.1f} GB", flush=True)
            (folder / "tables").rename(folder / "before")
            (folder / "done").touch()
        arrived(log, events, options.day)
    seconds: dict[int, list[tuple[float, float]]] = {events: [] for events in options.histories}
    for _ in range(options.rounds):
        for events in options.histories:
            seconds[events].append(night(out, events))
    print("| history | events, s | whole, s | events, of the shortest history's |\n|---|---|---|---|")
    medians = {events: [statistics.median(part) for part in zip(*rounds, strict=True)] for events, rounds in seconds.items()}
    for events, (until_events, whole) in medians.items():
        ratio = until_events / medians[min(medians)][0]
        print(f"| {events:,} | {until_events:.1f} | {whole:.1f} | {ratio:.2f} |")


def arrived(log: Path, history: int, events: int) -> None:
    """Write the day's rows, of people and items of the history."""
    some = pq.read_table(next((log / "events").glob("ds=*/*.parquet"))).slice(0, 50_000)
    draw = np.random.default_rng(history).integers(0, len(some), events)
    start = datetime(NEXT_DAY.year, NEXT_DAY.month, NEXT_DAY.day, tzinfo=UTC)
    micros = int(start.timestamp()) * 10**6 + np.arange(events) * (86_400 * 10**6 // events)
    table = some.take(pa.array(draw))
    field = table.schema.field("event_time")
    table = table.set_column(
        table.schema.get_field_index("event_time"), field, pa.array(micros, pa.timestamp("us", "UTC")).cast(field.type)
    )
    folder = log / "events" / f"ds={NEXT_DAY}"
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "part-0.parquet")


def night(out: Path, events: int) -> tuple[float, float]:
    """Seconds until the commit of ``events``, and until the end."""
    folder = out / f"of-{events}"
    shutil.rmtree(folder / "tables", ignore_errors=True)
    shutil.copytree(folder / "before", folder / "tables")
    start = time.time()
    ended = extracted(out, out / f"log-{events}", folder.name, NEXT_DAY, fresh=False)
    commits = DeltaTable(folder / "tables" / "events").history(1)
    return commits[0]["timestamp"] / 1000 - start, ended.seconds


if __name__ == "__main__":
    main()
