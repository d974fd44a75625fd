"""Random logs, extracted in random orders of days, end in the tables of one run over the whole log.

Files that change or go are the subject of test_random_deliveries. DAY_ORDERS in the environment says how many logs are tried.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest
from features.shops import NIGHTS, Shop
from pyspark.sql import SparkSession

from metarec_spark import columns as c
from metarec_spark.features.extract import extract

DAYS = (7, 8, 9, 10)
RULES = {"late_days": 1, "max_events_per_hour": 3, "event_types": ["click", "buy"]}
BROKEN = [
    ("u0", "shop", None, "click", "2024-01-08 12:00:00"),
    (None, "shop", "i1", "click", "2024-01-08 12:00:00"),
    ("u1", "shop", "i1", "odd", "2024-01-08 12:00:01"),
    ("u2", "news", "i1", "click", "soon"),
    ("u2", "news", "i1", "click", "2030-01-01 00:00:00"),
]


INSTANTS = count()


def arriving(draw: Random, day: int) -> list[tuple]:
    """Rows that arrive on a day: of the day, of the day before, and too late; some twice, some broken.

    A clock hour fills up, so that late rows make bots of people. No two events are of one instant: those are ordered by item_idx,
    which says when an item was first seen.
    """
    rows = []
    for user in range(4):
        for back in draw.choices((0, 1, 2), (0.8, 0.15, 0.05), k=draw.randint(0, 6)):
            time = f"2024-01-{day - back:02} 1{draw.randint(0, 1)}:00:00.{next(INSTANTS):06}"
            row = (f"u{user}", draw.choice(("shop", "news")), f"i{draw.randint(0, 5)}", draw.choice(("click", "buy")), time)
            rows += [row] * draw.choice((1, 1, 1, 2))
    return rows + draw.sample(BROKEN, draw.randint(0, 2))


@pytest.mark.parametrize("seed", range(int(os.environ.get("DAY_ORDERS", "2"))))
def test_any_order_of_days_gives_the_tables_of_one_run(spark: SparkSession, tmp_path: Path, seed: int):
    draw, shop, log = Random(seed), Shop(spark, tmp_path / "nightly"), {}
    for day in DAYS:
        log[day] = arriving(draw, day)
        if draw.random() < 0.3:  # a copy that comes a day after the event
            log[day] += draw.sample(log.get(day - 1, []), min(2, len(log.get(day - 1, []))))
        shop.log(day, log[day])
        if draw.random() < 0.7:
            shop.extract(day, **RULES)
        if draw.random() < 0.5:  # an older day again
            shop.extract(draw.choice([older for older in DAYS if older <= day]), **RULES)
    shop.extract(DAYS[-1], **RULES)
    at_once = Shop(spark, tmp_path / "at-once")
    for day, rows in log.items():
        at_once.log(day, draw.sample(rows, len(rows)))
    at_once.extract(DAYS[-1], history=True, **RULES)
    assert held(shop) == held(at_once)


def test_what_another_job_has_brought_in_does_not_come_twice(spark: SparkSession, tmp_path: Path):
    shop, at_once = Shop(spark, tmp_path / "nightly"), Shop(spark, tmp_path / "at-once")
    for day, name in zip(DAYS[:3], ("extract", "nightly", "extract"), strict=True):
        for each in (shop, at_once):
            each.log(day, NIGHTS[day])
        extract(replace(shop.job(day), name=name))
    at_once.extract(DAYS[2], history=True)
    assert held(shop) == held(at_once)


def held(shop: Shop) -> dict[str, list]:
    """The tables, without items that have lost all their events: these keep their index."""
    tables = shop.tables()
    return tables | {c.ITEMS: [row for row in tables[c.ITEMS] if row[2]]}
