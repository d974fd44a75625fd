"""extract on a log that grows by the night: any nights, in any order, any number of times, give the tables of one read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.shops import LAST, LOG, NIGHTS, Shop
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.columns import ALL
from metarec_spark.errors import DataError
from metarec_spark.features.extract import extract
from metarec_spark.job import Job, Result
from metarec_spark.warehouse.tables import Warehouse


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shop]:
    """A shop of its own, where the nights up to one have arrived."""

    def make(until: int = LAST) -> Shop:
        made = Shop(spark, tmp_path_factory.mktemp("shop"))
        for day in range(min(NIGHTS), until + 1):
            made.arrive(day)
        return made

    return make


@pytest.fixture(scope="module")
def at_once(shop: Callable[..., Shop]) -> tuple[Result, dict[str, list]]:
    made = shop()
    return made.extract(LAST, history=True), made.tables()


@pytest.fixture(scope="module")
def nightly(shop: Callable[..., Shop]) -> tuple[Shop, list[dict]]:
    """A shop after all its nights, and the item indexes of each night."""
    made, indexes = shop(until=min(NIGHTS)), []
    for day in NIGHTS:
        made.arrive(day)
        made.extract(day)
        indexes.append(made.indexes())
    return made, indexes


def test_a_run_over_the_whole_log_says_what_it_made(at_once: tuple[Result, dict[str, list]]):
    result, tables = at_once
    assert (result.rows_in, result.rows_out) == (12, 8)
    assert result.details.rejected == {"duplicate": 1, "late": 1, "null_item": 1, "null_user": 1}
    assert (result.details.items, result.details.user_sequences) == (7, 3)
    assert len(tables[c.EVENTS]) == 8 and len(tables[c.REJECTED_EVENTS]) == 4


def test_each_row_is_counted_with_what_became_of_it(at_once: tuple[Result, dict[str, list]]):
    _, tables = at_once
    source = tables[c.EVENTS][0][-2]
    assert tables[c.QUALITY] == sorted(
        [
            (source, "shop", date(2024, 1, 7), "duplicate", 1),
            (source, "shop", date(2024, 1, 7), "kept", 2),
            (source, "shop", date(2024, 1, 8), "kept", 2),
            (source, "news", date(2024, 1, 8), "kept", 1),
            (source, "shop", date(2024, 1, 8), "null_item", 1),
            (source, "news", date(2024, 1, 9), "kept", 1),
            (source, "shop", date(2024, 1, 9), "late", 1),
            (source, "shop", date(2024, 1, 10), "kept", 2),
            (source, "shop", date(2024, 1, 10), "null_user", 1),
        ],
        key=str,
    )


def test_night_by_night_gives_the_tables_of_one_read(nightly: tuple[Shop, list[dict]], at_once: tuple[Result, dict[str, list]]):
    assert nightly[0].tables() == at_once[1]


def test_new_items_get_new_indexes_and_old_ones_keep_theirs(nightly: tuple[Shop, list[dict]]):
    _, indexes = nightly
    assert indexes[0] == {("shop", "a"): 0}
    for before, after in itertools.pairwise(indexes):
        assert before.items() <= after.items()
    assert sorted(indexes[-1].values()) == list(range(len(indexes[-1])))


def test_an_item_without_events_has_an_index_and_content(nightly: tuple[Shop, list[dict]]):
    shop, _ = nightly
    row = shop.read(c.ITEMS).where("item_id = 'unseen'").first()
    assert (row.events, row.first_day, row.last_day) == (0, None, None)
    assert shop.read(c.ITEM_CONTENT).where(F.col(c.ITEM_IDX) == row.item_idx).first().title == "Blue shoe"


def test_a_night_that_is_run_again_changes_nothing(nightly: tuple[Shop, list[dict]], at_once: tuple[Result, dict[str, list]]):
    shop, _ = nightly
    before, job = shop.versions(), shop.job(LAST)
    extract(job)
    assert shop.versions() == before, "no file is new"
    made_of_events = {c.ITEMS, c.USER_SEQUENCES, c.ITEM_CONTENT, c.ITEM_TRANSITIONS}
    assert not made_of_events & job.warehouse.versions_written.keys(), "nor is one written to see that nothing changes"
    assert shop.tables() == at_once[1]


def test_an_older_day_after_a_newer_one_changes_nothing(
    nightly: tuple[Shop, list[dict]], at_once: tuple[Result, dict[str, list]]
):
    shop, _ = nightly
    shop.extract(8)
    assert shop.tables() == at_once[1]


class Killed(Warehouse):
    """A warehouse whose process dies after its first write of a day."""

    def replace_days(self, *given: object, **more: object) -> None:
        if self.versions_written:
            raise KeyboardInterrupt
        super().replace_days(*given, **more)


def test_missed_nights_and_a_killed_run_are_made_up_for_and_new_rules_judge_the_whole_log(
    shop: Callable, at_once: tuple[Result, dict[str, list]]
):
    made = shop(until=7)
    made.extract(7)
    for day in (8, 9, 10):
        made.arrive(day)
    with pytest.raises(KeyboardInterrupt):
        extract(made.job(LAST, Killed))
    result = made.extract(LAST)
    assert result.details.files == 3, "one a night"
    assert made.tables() == at_once[1]

    before = made.indexes()
    assert made.extract(LAST, event_types=["odd"], max_length=2).details.files == 4
    assert made.read(c.EVENTS).select("event_type").distinct().collect() == [("odd",)]
    assert [row.user_id for row in made.read(c.USER_SEQUENCES).collect()] == ["u3"]
    assert made.indexes() == before, "an item keeps its index, even where its events are gone"


def test_what_events_mean_holds_for_those_that_arrive_later(shop: Callable[..., Shop]):
    meant = {"dislike_types": {"news": ["click"]}, "dislike_below": {"shop": 3.0}, "context_types": {"shop": ["odd"]}}
    by_night, at_once = shop(until=8), shop()
    by_night.extract(8, **meant)
    for day in (9, 10):
        by_night.arrive(day)
    by_night.extract(LAST, **meant)
    at_once.extract(LAST, **meant)
    assert by_night.tables() == at_once.tables()
    sequences = by_night.tables()[c.USER_SEQUENCES]
    assert sequences["u1"]["item_idx"] == ["shop/a", "shop/b", "shop/a"] and "news/d" in sequences["u1"]["seen_items"]


def test_without_sources_or_events_the_reason_is_told_and_nothing_is_written(shop: Callable[..., Shop]):
    made = shop(until=7)
    with pytest.raises(
        DataError, match="no event on or before 2024-01-06 in any source: the oldest is of 2024-01-07; choose a later --ds"
    ):
        made.extract(6)
    made.arrive(7, [("", "shop", "a", "click", "2024-01-07 10:00:00")])
    with pytest.raises(DataError, match=r"all 1 rows were rejected: {'null_user': 1}"):
        made.extract(7)
    pq.write_table(LOG.empty_table(), made.folder / "log" / "7.parquet")
    with pytest.raises(DataError, match="the sources are empty"):
        made.extract(7)
    job = made.job(7)
    with pytest.raises(DataError, match=r"no \[\[sources\]\] in the configuration"):
        extract(Job("extract", job.config.model_copy(update={"sources": []}), job.ds, job.spark, job.warehouse))
    assert not [name for name in ALL if job.warehouse.exists(name)]


def test_a_day_that_lost_too_much_is_not_published(shop: Callable[..., Shop]):
    made = shop(until=9)
    made.extract(9)
    before = made.versions()
    broken = [(f"u{user}", "shop", None, "click", "2024-01-10 10:00:00") for user in range(100)]
    made.arrive(10, [*NIGHTS[10], *broken])
    with pytest.raises(DataError, match=r"2024-01-10 lost too much.*101 of 103 rows rejected.*quality.max_rejected_share"):
        made.extract(10)
    assert made.versions() == before | {c.STOPPED_DAYS: made.versions()[c.STOPPED_DAYS]}
    job = made.job(10)
    allowed = job.config.model_copy(update={"quality": job.config.quality.model_copy(update={"max_rejected_share": 1.0})})
    assert extract(Job("extract", allowed, job.ds, job.spark, job.warehouse)).details.rejected["null_item"] == 100


def test_a_user_with_a_hundred_thousand_events_is_one_row(spark: SparkSession, tmp_path: Path):
    made = Shop(spark, tmp_path / "shop")
    seconds = pa.array([1_704_000_000 + 5 * n for n in range(100_000)])
    columns = {
        "user_id": pa.array(["u"] * 100_000),
        "item_id": pa.array([n % 100 for n in range(100_000)]),
        "event_time": seconds,
    }
    pq.write_table(pa.table(columns), made.folder / "log" / "all.parquet")
    settings = config.parse(
        {"warehouse": str(tmp_path / "warehouse"), "sources": [{"path": str(made.folder / "log"), "domain": "shop"}]}
    )
    warehouse = Warehouse(spark, settings.warehouse)
    assert extract(Job("extract", settings, date(2024, 1, 10), spark, warehouse)).rows_out == 100_000
    (row,) = warehouse.read(c.USER_SEQUENCES).collect()
    assert (len(row.item_idx), len(row.seen_items), row.events) == (100, 100, 100_000)
