"""Items get a dense int once, and keep it."""

from __future__ import annotations

from datetime import date

import pytest
from features.factories import event_rows, item_rows
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.errors import DataError
from metarec_spark.features.items import counted, recounted, require_known, updated
from metarec_spark.warehouse.contracts import conform


def rows(frame: DataFrame) -> list[tuple]:
    return sorted(tuple(row) for row in frame.collect())


def test_items_are_counted_within_their_domain(spark: SparkSession):
    events = event_rows(
        spark,
        ("u", "shop", "a", "2024-01-09 23:59:59"),
        ("u", "shop", "a", "2024-01-11 00:00:00"),
        ("u", "news", "a", "2024-01-10 10:00:00"),
    )
    tenth = date(2024, 1, 10)
    assert rows(counted(events)) == [("news", "a", 1, tenth, tenth), ("shop", "a", 2, date(2024, 1, 9), date(2024, 1, 11))]


def test_items_are_recounted_by_new_events_as_they_are_counted_from_all(spark: SparkSession):
    before = [("u", "shop", "a", "2024-01-09 10:00:00"), ("u", "shop", "b", "2024-01-09 10:00:00")]
    new = [
        ("v", "shop", "a", "2024-01-08 10:00:00"),
        ("v", "shop", "a", "2024-01-11 10:00:00"),
        *[("v", "shop", "none", "2024-01-10 10:00:00"), ("v", "news", "a", "2024-01-10 10:00:00")],
    ]
    unseen = item_rows(spark, ("shop", "none")).withColumn("events", F.lit(0).cast("long"))
    items = updated(unseen.limit(0), counted(event_rows(spark, *before)), first_free=1).unionByName(unseen)
    expected = [row for row in rows(counted(event_rows(spark, *before, *new))) if row[1] != "b"]
    assert rows(recounted(items, event_rows(spark, *new))) == expected
    assert len(expected) == 3


def test_new_items_follow_those_that_are_known_in_order_of_first_day_domain_and_id(spark: SparkSession):
    known = spark.createDataFrame(
        [
            *[
                ("shop", "b", 1, "2024-01-10"),
                ("news", "z", 4, "2024-01-10"),
                ("shop", "a", 2, "2024-01-10"),
                ("shop", "y", 1, "2024-01-09"),
            ],
            *[("shop", "none", 0, None), ("shop", "old", 7, "2024-01-01"), ("news", "old", 1, "2024-01-11")],
        ],
        "domain string, item_id string, events long, day string",
    ).selectExpr("domain", "item_id", "events", "CAST(day AS DATE) AS first_day", "CAST(day AS DATE) AS last_day")
    items = item_rows(spark, ("shop", "untouched"), ("shop", "old"))
    found = conform(updated(items, known, first_free=2), "items")
    assert rows(found.select("item_idx", "domain", "item_id", "events")) == [
        (1, "shop", "old", 7),
        (2, "shop", "y", 1),
        (3, "news", "z", 4),
        (4, "shop", "a", 2),
        (5, "shop", "b", 1),
        (6, "news", "old", 1),
        (7, "shop", "none", 0),
    ]


def test_the_first_items_are_numbered_from_0(spark: SparkSession):
    known = counted(event_rows(spark, ("u", "shop", "b", "2024-01-10 10:00:00"), ("u", "shop", "a", "2024-01-10 10:00:00")))
    found = updated(item_rows(spark, ("shop", "x")).limit(0), known, first_free=0)
    assert rows(found.select("item_idx", "item_id")) == [(0, "a"), (1, "b")]


def test_a_catalogue_whose_ids_are_not_those_of_the_log_is_told_or_refused(spark: SparkSession, caplog: pytest.LogCaptureFixture):
    events = event_rows(spark, *[("u", "shop", str(n), "2024-01-09 10:00:00") for n in range(100)])
    items = updated(item_rows(spark).limit(0), counted(events), first_free=0)
    none = items.limit(0)

    def catalogue(prefix: str, rows: int, domain: str = "shop") -> DataFrame:
        return spark.createDataFrame([(domain, f"{prefix}{n}") for n in range(rows)], "domain string, item_id string")

    with pytest.raises(DataError, match=r"shop: 0 of 500 rows .* has 'sku-0', the log has '0'; .* 1% of 100 .*min_known_share"):
        require_known(catalogue("sku-", 500), items, none, 0.01)
    caplog.clear()
    with caplog.at_level("INFO", "metarec_spark"):
        require_known(catalogue("sku-", 500), items, none, 0.0)
        require_known(catalogue("sku-", 99), none, items, 0.01)
        require_known(catalogue("sku-", 500), items.limit(99), none, 0.01)
        assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"] * 3
        caplog.clear()
        require_known(catalogue("", 50_000), items, none, 0.01)
        require_known(catalogue("sku-", 500, "a new platform"), items, none, 0.01)
    assert caplog.messages == [
        "platform shop: 100 of 50000 rows of the catalogue have events; 100 of 100 items with events have a row",
        "platform a new platform: 0 of 500 rows of the catalogue have events; 0 of 0 items with events have a row",
    ]
