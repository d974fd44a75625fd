"""demo: generate a small log of five platforms, one of them new, run two nights and an adaptation, and show what came out."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from metarec_spark import columns as c
from metarec_spark import config, job
from metarec_spark.config import Config
from metarec_spark.features.extract import extract
from metarec_spark.job import Job, Result
from metarec_spark.nightly import nightly
from metarec_spark.runtime import class_archive, logs
from metarec_spark.runtime.session import end_session, session
from metarec_spark.runtime.sizing import SMALL
from metarec_spark.synthetic.generate import generate
from metarec_spark.synthetic.platforms import PLATFORMS, Scale
from metarec_spark.transfer.adapt import adapt
from metarec_spark.transfer.modes import MODES
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

NEW, OPENS = "social", 11
"""The platform that is new on the first of the two nights, and the number of the day on which it opens."""
SCALE = Scale(users=2_000, events=60_000, items=400, days=15, first_day=date(2024, 1, 1), seed=7, opens={NEW: OPENS})
_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
SHOWN_USERS, SHOWN_ITEMS = 3, 5
QUIET_SECONDS = 8.0
"""After so long without a line, one says that the work goes on."""

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
[adapt]
seeds = 1  # for the demo's time; 3 by default, where the decision is close
[recommend]
top_n = 20
"""


def demo(out: Path) -> int:
    """Write log, configuration and tables under ``out``, and return the exit code; what is there already is used again.

    The first night trains, ``adapt`` then compares models for the new platform, and the second night serves the better one.
    """
    start = time.monotonic()
    file = _configuration(out)
    settings = config.load(file)
    first, second = (SCALE.first_day + timedelta(days=SCALE.days - left) for left in (2, 1))
    with _lively():
        logs.start("demo", None)
        _log(out, settings)
        for name, ds, work in (("nightly", first, nightly), ("adapt", first, _adapt), ("nightly", second, nightly)):
            logs.start(name, ds)
            if code := job.run(name, settings, ds, work):
                return code
        logs.start("demo", None)
        warehouse = Warehouse(session(settings, "metarec demo"), settings.warehouse)
        counts = {name: warehouse.read(name).count() for name in warehouse.names()}
        shown = [_sizes(warehouse, counts), *_lists(warehouse, second), *transfer_shown(warehouse, NEW, first, second)]
    console = Console(width=None if Console().is_terminal else 120)
    for part in shown:
        console.print(part)
    console.print(f"The configuration is {file}; any command takes it with --config.")
    details = job.RowDetails(counts)
    result = Result(rows_out=counts[c.RECOMMENDATIONS], details=details)
    job.report("demo", second, result, round(time.monotonic() - start, 1), {}, {})
    return 0


def archive_classes(archive: str) -> None:
    """Extract a tiny log in a session that writes Java's archive of classes when it ends, and wait for that."""
    logs.start("setup", None)
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = {part: file_uri(folder / part) for part in ("tables", "events", "items")}
        settings = config.parse(
            {
                "warehouse": paths["tables"],
                "sources": [{"path": paths["events"]}],
                "items": [{"path": paths["items"]}],
                "spark": {"conf": SMALL | {_JAVA_OPTIONS: f"{SMALL[_JAVA_OPTIONS]} {class_archive.writing(Path(archive))}"}},
            }
        )
        scale = replace(SCALE, users=50, events=500, items=48, days=3, opens={})
        generate(session(settings, "metarec setup"), scale, file_uri(folder))
        if code := job.run("extract", settings, scale.first_day + timedelta(days=scale.days), extract):
            sys.exit(code)
        end_session()


def _adapt(running: Job) -> Result:
    return adapt(running, NEW)


@contextmanager
def _lively() -> Iterator[None]:
    """After ``QUIET_SECONDS`` without a line on the log, one says that the work goes on."""
    newest, ended, start = _NewestRecord(), threading.Event(), time.monotonic()

    def watch() -> None:
        while not ended.wait(1.0):
            if time.monotonic() - newest.time >= QUIET_SECONDS:
                logs.log.info("at work, %.0f s so far", time.monotonic() - start)

    watcher = threading.Thread(target=watch, daemon=True)
    logs.log.addHandler(newest)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        logs.log.removeHandler(newest)


class _NewestRecord(logging.Handler):
    """Keeps the time of the newest record."""

    def __init__(self) -> None:
        super().__init__()
        self.time = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self.time = time.monotonic()


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


def _sizes(warehouse: Warehouse, counts: dict[str, int]) -> Table:
    table = Table("table", "rows", title=f"What two nights and adapt made ({warehouse.root})")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    return table


def _lists(warehouse: Warehouse, ds: date) -> Iterator[Table]:
    """Newest events and lists of the users who are on the most platforms, as titles."""
    lists = warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(ds))
    users = lists.groupBy(c.USER_ID).count().orderBy(F.desc("count"), c.USER_ID).limit(SHOWN_USERS).collect()
    for user, *_ in users:
        events, recommended = _newest(warehouse, user), _recommended(warehouse, user, ds)
        table = Table("platform", "newest events", "recommended", title=f"user {user}")
        for domain in sorted(recommended):
            table.add_row(domain, _lines(events.get(domain, [])), _lines(recommended[domain]))
        yield table


def transfer_shown(warehouse: Warehouse, domain: str, before: date, after: date) -> Iterator[Table | str]:
    """What adapt measured and decided on the first day, and a list of the platform on both days, by the two models."""
    runs = warehouse.read(c.TRANSFER_RUNS).where((F.col(c.DOMAIN) == F.lit(domain)) & (F.col("ds") == F.lit(before)))
    measured = runs.where("share = 1 and seed = 0").orderBy("ndcg").collect()
    table = Table("candidate", "what it is", "NDCG@100", "", title=f"Models for the new platform, {domain}, on held-out events")
    for row in measured:
        mode = MODES[row["mode"]]
        kind = "its own events alone" if mode.baseline else "with what others know"
        table.add_row(mode.name, f"{mode.description} ({kind})", f"{row['ndcg']:.4f}", "serves" if row["used"] else "")
    yield table
    yield f"The verdict: {measured[0]['reason']}."
    lists = warehouse.read(c.RECOMMENDATIONS).where(F.col(c.DOMAIN) == F.lit(domain))
    old, new = (
        lists.where(F.col("ds") == F.lit(ds)).select(c.USER_ID, F.slice("items.item_id", 1, SHOWN_ITEMS).alias(name))
        for ds, name in ((before, "old"), (after, "new"))
    )
    since = warehouse.read(c.EVENTS).where(F.to_date(c.EVENT_TIME) > F.lit(before)).select(c.USER_ID)
    unseen = F.size(F.array_except("new", "old"))  # of users without a newer event: only the model is another
    changed = old.join(new, c.USER_ID).join(since, c.USER_ID, "left_anti").where(unseen > 0)
    platforms = F.size(F.array_distinct(c.DOMAIN)).alias("platforms")
    changed = changed.join(warehouse.read(c.USER_SEQUENCES).select(c.USER_ID, platforms), c.USER_ID)
    for user, *_ in changed.orderBy(F.desc("platforms"), F.desc(unseen), c.USER_ID).limit(1).collect():
        events = _newest(warehouse, user)
        elsewhere = [title for other in sorted(events) if other != domain for title in events[other][:2]]
        titles = (_recommended(warehouse, user, ds)[domain] for ds in (before, after))
        table = Table(f"newest events, {domain}", "elsewhere", "by the base model", "by the model that serves now")
        table.title = f"{domain}: the list of user {user}, before and after adapt"
        table.add_row(*map(_lines, (events.get(domain, []), elsewhere, *titles)))
        yield table


def _newest(warehouse: Warehouse, user: str) -> dict[str, list[str]]:
    """Platform → titles of the user's newest events."""
    sequence = warehouse.read(c.USER_SEQUENCES).where(F.col(c.USER_ID) == user)
    events = sequence.select(F.posexplode(c.ITEM_IDX).alias("place", c.ITEM_IDX))
    return _titles(events.join(_named(warehouse), c.ITEM_IDX).orderBy(F.desc("place")))


def _recommended(warehouse: Warehouse, user: str, ds: date) -> dict[str, list[str]]:
    """Platform → titles at the head of the user's list of that day."""
    lists = warehouse.read(c.RECOMMENDATIONS).where((F.col("ds") == F.lit(ds)) & (F.col(c.USER_ID) == user))
    top = lists.select(c.DOMAIN, F.posexplode("items.item_id").alias("place", c.ITEM_ID))
    return _titles(top.join(_named(warehouse), [c.DOMAIN, c.ITEM_ID]).orderBy("place"))


def _named(warehouse: Warehouse) -> DataFrame:
    titles = warehouse.read(c.ITEM_CONTENT).select(c.ITEM_IDX, c.TITLE)
    return warehouse.read(c.ITEMS).select(c.ITEM_IDX, c.DOMAIN, c.ITEM_ID).join(titles, c.ITEM_IDX)


def _titles(rows: DataFrame) -> dict[str, list[str]]:
    by_platform: dict[str, list[str]] = {}
    for row in rows.select(c.DOMAIN, "place", c.TITLE).collect():
        titles = by_platform.setdefault(row[c.DOMAIN], [])
        if len(titles) < SHOWN_ITEMS:
            titles.append(row[c.TITLE])
    return by_platform


def _lines(titles: list[str]) -> str:
    return "\n".join(titles)
