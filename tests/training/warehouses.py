"""A tiny log, and warehouses made of it by the real jobs, each made once for all tests."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from metarec_spark import config
from metarec_spark.evaluation.evaluate import evaluate
from metarec_spark.features.extract import extract
from metarec_spark.job import Job
from metarec_spark.training.train import train
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

DAY = date(2024, 1, 10)
NEXT = DAY + timedelta(days=1)
ITEMS = 10
WAREHOUSE = "ware house+100%"
"""Its folder: no character of a path may change what is found there."""
SECTIONS = {
    "split": {"protocol": "leave_one_out"},
    "features": {"max_length": 8},
    "model": {"dim": 8, "dropout": 0.0},
    "train": {"epochs": 4, "learning_rate": 0.03, "batch_tokens": 128},
    "recommend": {"top_n": 5},
}

Row = tuple[str, str, str, datetime]


def event(user: str, domain: str, item: str, day: date, hour: int = 10) -> Row:
    return user, domain, item, datetime(day.year, day.month, day.day, hour)


def walkers(users: int = 30) -> list[Row]:
    """Users who take the next book a day, 3 to 6 in all, and every other one a film too; and a fan who has read every book."""
    rows = []
    for user in range(users):
        for step in range(3 + user % 4):
            day = DAY - timedelta(days=7 - step)
            rows.append(event(f"u{user}", "books", f"b{(user + step) % ITEMS}", day))
            if user % 2 == 0:
                rows.append(event(f"u{user}", "films", f"f{(user + step) % ITEMS}", day, 12))
    return rows + [event("fan", "books", f"b{item}", DAY - timedelta(days=1), hour=item) for item in range(ITEMS)]


def next_day() -> list[Row]:
    """What the day after brings: walkers who go on, one who does so twice, an item and a platform that no model knows."""
    on = [event(f"u{user}", "books", f"b{(user + 3 + user % 4) % ITEMS}", NEXT) for user in range(8)]
    return [*on, event("u0", "books", "b3", NEXT, 9), event("new", "books", "b-new", NEXT), event("gamer", "games", "g0", NEXT)]


def write_log(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    user, domain, item, time = (list(column) for column in zip(*rows, strict=True))
    times = pa.array(time, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user_id": user, "domain": domain, "item_id": item, "event_time": times}), file)


def job_at(spark: SparkSession, folder: Path, name: str, ds: date = DAY, **sections: dict | list) -> Job:
    """A job on ``folder/WAREHOUSE`` and ``folder/log``; sections replace settings of ``SECTIONS``, key by key."""
    merged = SECTIONS | sections
    merged |= {key: settings | sections.get(key, {}) for key, settings in SECTIONS.items()}
    raw = {"warehouse": file_uri(folder / WAREHOUSE), "sources": [{"path": file_uri(folder / "log")}]}
    made = config.parse(raw | merged)
    return Job(name, made, ds, spark, Warehouse(spark, made.warehouse))


@dataclass(frozen=True)
class Stages:
    """Folders as the jobs left them; copy one before writing to it."""

    extracted: Path
    """After extract of DAY."""
    evaluated: Path
    """After train and evaluate of DAY, and extract of NEXT."""


def stages(spark: SparkSession, paths: pytest.TempPathFactory) -> Stages:
    """The warehouses, made at the first call by whichever worker of the test run comes first."""
    shared = paths.getbasetemp()
    root = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "stages"
    root.mkdir(exist_ok=True)
    found, made = Stages(root / "extracted", root / "evaluated"), root / "made"
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(found.extracted, ignore_errors=True)  # of a worker that failed
            shutil.rmtree(found.evaluated, ignore_errors=True)
            _make(spark, found)
            made.touch()
    return found


def _make(spark: SparkSession, found: Stages) -> None:
    write_log(found.extracted / "log" / "1.parquet", walkers())
    extract(job_at(spark, found.extracted, "extract"))
    shutil.copytree(found.extracted, found.evaluated)
    train(job_at(spark, found.evaluated, "train"))
    evaluate(job_at(spark, found.evaluated, "evaluate"))
    write_log(found.evaluated / "log" / "2.parquet", next_day())
    extract(job_at(spark, found.evaluated, "extract", NEXT))


def copied(folder: Path, to: Path) -> Path:
    """A copy of a stage that a test may write to; models stay where they were."""
    return Path(shutil.copytree(folder, to / "copy"))


def rows_of(job: Job, table: str) -> list[tuple]:
    """All rows of a table, sorted."""
    return sorted((tuple(row) for row in job.warehouse.read(table).collect()), key=repr)
