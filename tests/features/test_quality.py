"""A day that lost too much is found, with what was lost; what anybody can write to a log stops nothing."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame, SparkSession

from metarec_spark.config.sections import Quality
from metarec_spark.features import quality
from metarec_spark.features.quality import Findings, add_losses
from metarec_spark.warehouse.contracts import contract

DAY = date(2024, 1, 10)
HALF = Quality(max_rejected_share=0.5)
USUAL = Quality(min_events_share=0.5)


def table(spark: SparkSession, *rows: tuple) -> DataFrame:
    return spark.createDataFrame(list(rows), contract("quality").schema)


def days_before(events: int, days: int = quality.USUAL_DAYS, domain: str = "shop") -> list[tuple]:
    return [("log", domain, DAY - timedelta(days=back + 1), "kept", events) for back in range(days)]


def findings(rows: DataFrame, settings: Quality, *before: tuple) -> Findings:
    """Of the day; ``before`` are (source, domain) that have had events."""
    platforms = rows.where("outcome = 'kept'").select("source", "domain")
    if before:
        platforms = platforms.unionByName(rows.sparkSession.createDataFrame(list(before), "source string, domain string"))
    return quality.check(rows, {DAY}, {DAY}, settings, platforms)


def problems(rows: DataFrame, settings: Quality, *before: tuple) -> str:
    return findings(rows, settings, *before).reason(DAY)


def test_a_source_of_which_more_was_rejected_than_may_be(spark: SparkSession):
    rows = table(
        spark, ("log", "shop", DAY, "kept", 90), ("log", None, DAY, "null_domain", 60), ("log", "shop", DAY, "null_user", 40)
    )
    assert problems(rows, HALF) == (
        "source log: 100 of 190 rows rejected {'null_domain': 60, 'null_user': 40}, at most 50% may be (quality.max_rejected_share)"
    )
    assert not problems(rows, Quality(max_rejected_share=0.6))


def test_a_domain_of_a_source_that_is_well_as_a_whole(spark: SparkSession):
    rows = table(
        spark,
        *[("log", "shop", DAY, "kept", 1000), ("log", "news", DAY, "kept", 1), ("log", "news", DAY, "bad_time", 99)],
        ("other", "news", DAY, "kept", 500),
    )
    assert problems(rows, HALF) == (
        "source log, domain 'news': 99 of 100 rows rejected {'bad_time': 99}, at most 50% may be (quality.max_rejected_share)"
    )


def test_a_platform_that_never_had_an_event_stops_nobody(spark: SparkSession):
    rows = table(
        spark,
        *[("log", "shop", DAY, "kept", 100), ("log", "made up", DAY, "null_item", 500), ("log", "few", DAY, "null_item", 99)],
    )
    found = findings(rows, HALF)
    assert not found.problems
    assert found.new_platforms == ["2024-01-10, source log, domain 'made up': 500 of 500 rows rejected {'null_item': 500}"]
    assert "domain 'made up'" in problems(rows, HALF, ("log", "made up")), "it has had events before"


def test_a_source_that_never_had_an_event_is_judged_by_all_its_rows(spark: SparkSession):
    rows = table(spark, ("log", "shop", DAY, "kept", 100), ("new", "shop", DAY, "null_item", 500))
    assert problems(rows, HALF).startswith("source new: 500 of 500 rows rejected {'null_item': 500}")


def test_copies_bots_other_days_and_few_rows_refuse_nothing(spark: SparkSession):
    rows = table(
        spark,
        *[("log", "shop", DAY, "kept", 100), ("log", "shop", DAY, "duplicate", 900), ("log", "shop", DAY, "bot", 900)],
        *[("log", "shop", DAY - timedelta(days=1), "late", 500), ("log", "shop", None, "bad_time", 500)],
        *[("log", "news", DAY, "null_user", 99), ("few", "shop", DAY, "null_user", 99)],
    )
    assert not findings(rows, HALF).problems


def test_a_domain_with_far_fewer_events_than_usual(spark: SparkSession):
    rows = table(spark, *days_before(1000), ("log", "shop", DAY, "kept", 499), *days_before(10, domain="news"))
    said = problems(rows, USUAL)
    assert "source log, domain 'shop': 499 events, 1000 is usual, and 50% of that must be there" in said
    assert "source log, domain 'news': 0 events, 10 is usual" in said
    assert not problems(table(spark, *days_before(1000), ("log", "shop", DAY, "kept", 500)), USUAL)
    assert not problems(rows, HALF)


def test_nothing_is_usual_where_most_days_had_nothing(spark: SparkSession):
    assert not problems(table(spark, *days_before(1000, days=3)), USUAL)


def test_a_day_that_would_lose_too_many_stored_events():
    found = Findings()
    lost = {("log", DAY): (11, 100), ("log", DAY - timedelta(days=1)): (10, 100)}
    assert add_losses(found, lost, 0.1) == {DAY}
    assert found.reason(DAY) == (
        "source log: 11 of 100 stored events are in none of its files any more, at most 10% may be removed (quality.max_lost_share)"
    )
