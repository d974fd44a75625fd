"""demo: generate a small log of five platforms, run two nights on it, and show what came out."""

from __future__ import annotations

import json
import time
from datetime import date, timedelta
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from metarec_spark import columns as c
from metarec_spark import config, job
from metarec_spark.config import Config
from metarec_spark.job import Result
from metarec_spark.nightly import nightly
from metarec_spark.runtime import logs
from metarec_spark.runtime.session import session
from metarec_spark.synthetic.generate import generate
from metarec_spark.synthetic.platforms import PLATFORMS, Scale
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

SCALE = Scale(users=2_000, events=60_000, items=400, days=15, first_day=date(2024, 1, 1), seed=7)
SHOWN_USERS = 3
SHOWN_ITEMS = 5

_TOML = """\
# Written by `metarec demo`; use it with any other command: metarec nightly --config {file} --ds 2024-01-15
warehouse = {warehouse}

[[sources]]
path = {events}
format = "parquet"
day_column = "ds"  # the folder of the day on which a row arrived

[[items]]
path = {items}
format = "parquet"

[split]
protocol = "leave_one_out"
[features]
event_types = {event_types}
max_events_per_hour = 500
[train]
max_epochs = 10
[recommend]
top_n = 20
"""


def demo(out: Path) -> int:
    """Write log, configuration and tables under ``out``, and return the exit code; what is there already is used again."""
    start = time.monotonic()
    file = _configuration(out)
    settings = config.load(file)
    logs.start("demo", None)
    _log(out, settings)
    nights = [SCALE.first_day + timedelta(days=SCALE.days - 2), SCALE.first_day + timedelta(days=SCALE.days - 1)]
    for ds in nights:
        logs.start("nightly", ds)
        code = job.run("nightly", settings, ds, nightly)
        if code:
            return code
    warehouse = Warehouse(session(settings, "metarec demo"), settings.warehouse)
    counts = _show(warehouse, nights[-1], file)
    job.report(
        "demo",
        nights[-1],
        Result(rows_out=counts[c.RECOMMENDATIONS], details=job.RowDetails(counts)),
        round(time.monotonic() - start, 1),
        {},
        {},
    )
    return 0


def _configuration(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    event_types = sorted({name for platform in PLATFORMS for name in platform.event_types})
    file = out / "demo.toml"
    paths = {"warehouse": out / "tables", "events": out / "log" / "events", "items": out / "log" / "items"}
    quoted = {name: json.dumps(file_uri(path)) for name, path in paths.items()}
    file.write_text(_TOML.format(file=file, event_types=json.dumps(event_types), **quoted), encoding="utf-8")
    return file


def _log(out: Path, settings: Config) -> None:
    spark = session(settings, "metarec demo")
    if (out / "log" / "items" / "_SUCCESS").exists():
        job.log.info("the log in %s is there already", out / "log")
        return
    counts = generate(spark, SCALE, file_uri(out / "log"))
    job.log.info("log of %d days in %s: %s", SCALE.days, out / "log", counts)


def _show(warehouse: Warehouse, ds: date, file: Path) -> dict[str, int]:
    """Print the tables' sizes and a few users' lists with titles; returns the rows of each table."""
    console = Console(width=None if Console().is_terminal else 120)
    sizes = Table("table", "rows", title=f"What the two nights made ({warehouse.root})")
    counts = {name: warehouse.read(name).count() for name in warehouse.names()}
    for name, count in counts.items():
        sizes.add_row(name, f"{count:,}")
    console.print(sizes)
    titles = warehouse.read(c.ITEM_CONTENT).select(c.ITEM_IDX, c.TITLE)
    ids = warehouse.read(c.ITEMS).select(c.ITEM_IDX, c.DOMAIN, c.ITEM_ID).join(titles, c.ITEM_IDX)
    lists = warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(ds))
    busiest = lists.groupBy(c.USER_ID).count().orderBy(F.desc("count"), c.USER_ID).limit(SHOWN_USERS).select(c.USER_ID)
    users = [row[0] for row in busiest.toLocalIterator()]
    for user in users:
        console.print(_user(warehouse, lists, ids, user))
    console.print(f"The configuration is {file}; any command takes it with --config.")
    return counts


def _user(warehouse: Warehouse, lists: DataFrame, ids: DataFrame, user: str) -> Table:
    """One user's newest events and top items, by platform, as titles."""
    sequence = warehouse.read(c.USER_SEQUENCES).where(F.col(c.USER_ID) == user)
    events = sequence.select(F.posexplode(c.ITEM_IDX).alias("place", c.ITEM_IDX)).join(ids, c.ITEM_IDX)
    recent = _titles(events.orderBy(F.desc("place")))
    top = lists.where(F.col(c.USER_ID) == user).select(c.DOMAIN, F.posexplode("items").alias("place", "item"))
    top = top.select(c.DOMAIN, "place", F.col("item.item_id").alias(c.ITEM_ID)).join(ids, [c.DOMAIN, c.ITEM_ID])
    table = Table("platform", "newest events", "recommended", title=f"user {user}")
    for domain, recommended in sorted(_titles(top.orderBy("place")).items()):
        table.add_row(domain, "\n".join(recent.get(domain, [])), "\n".join(recommended))
    return table


def _titles(rows: DataFrame) -> dict[str, list[str]]:
    by_platform: dict[str, list[str]] = {}
    for row in rows.select(c.DOMAIN, "place", c.TITLE).toLocalIterator():
        titles = by_platform.setdefault(row[c.DOMAIN], [])
        if len(titles) < SHOWN_ITEMS:
            titles.append(row[c.TITLE])
    return by_platform
