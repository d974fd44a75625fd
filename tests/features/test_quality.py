"""A day that lost too much is refused, and it is said what was lost."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.sections import Quality
from metarec_spark.errors import DataError
from metarec_spark.features import quality
from metarec_spark.warehouse.contracts import contract

DAY = date(2024, 1, 10)
HALF = Quality(max_rejected_share=0.5)
USUAL = Quality(min_events_share=0.5)


def table(spark: SparkSession, *rows: tuple) -> DataFrame:
    return spark.createDataFrame(list(rows), contract("quality").schema)


def days_before(events: int, days: int = quality.USUAL_DAYS, domain: str = "shop") -> list[tuple]:
    return [("log", domain, DAY - timedelta(days=back + 1), "kept", events) for back in range(days)]


def refused(rows: DataFrame, settings: Quality) -> str:
    with pytest.raises(DataError) as error:
        quality.check(rows, DAY, settings)
    return str(error.value)


def test_a_source_of_which_more_was_rejected_than_may_be(spark):
    rows = table(
        spark, ("log", "shop", DAY, "kept", 90), ("log", None, DAY, "null_domain", 60), ("log", "shop", DAY, "null_user", 40)
    )
    assert refused(rows, HALF) == (
        "2024-01-10 lost too much, and nothing of it is published: source log: 100 of 190 rows rejected {'null_domain': 60, 'null_user': "
        "40}, at most 50% may be (quality.max_rejected_share). Mend the log and run the day again, or change [quality]"
    )
    quality.check(rows, DAY, Quality(max_rejected_share=0.6))


def test_rows_of_a_blank_domain_count_for_their_source_alone(spark):
    rows = [("log", "shop", None)] * 200 + [("log", blank, "null_domain") for blank in (None, "", " ", "\t") for _ in range(40)]
    judged = spark.createDataFrame(rows, "source string, domain string, reason string").withColumn(quality.DAY, F.lit(DAY))
    counts = quality.counted(judged)
    assert {tuple(row) for row in counts.collect()} == {
        ("log", "shop", DAY, "kept", 200),
        ("log", None, DAY, "null_domain", 160),
    }
    quality.check(counts, DAY, HALF)
    assert "source log: 160 of 360 rows rejected" in refused(counts, Quality(max_rejected_share=0.4))


def test_a_domain_of_a_source_that_is_well_as_a_whole(spark):
    rows = table(
        spark,
        *[("log", "shop", DAY, "kept", 1000), ("log", "news", DAY, "kept", 1), ("log", "news", DAY, "bad_time", 99)],
        ("other", "news", DAY, "kept", 500),
    )
    said = refused(rows, HALF)
    assert "source log, domain 'news': 99 of 100 rows rejected {'bad_time': 99}" in said and "other" not in said


def test_copies_bots_forgotten_people_other_days_and_few_rows_refuse_nothing(spark):
    rows = table(
        spark,
        *[("log", "shop", DAY, "kept", 100), ("log", "shop", DAY, "duplicate", 900), ("log", "shop", DAY, "bot", 900)],
        ("log", "shop", DAY, "forgotten", 900),
        *[("log", "shop", DAY - timedelta(days=1), "late", 500), ("log", "shop", None, "bad_time", 500)],
        *[("log", "news", DAY, "null_user", 99), ("few", "shop", DAY, "null_user", 99)],
    )
    quality.check(rows, DAY, HALF)


def test_a_domain_with_far_fewer_events_than_usual(spark):
    rows = table(spark, *days_before(1000), ("log", "shop", DAY, "kept", 499), *days_before(10, domain="news"))
    said = refused(rows, USUAL)
    assert "source log, domain 'shop': 499 events, 1000 is usual, and 50% of that must be there" in said
    assert "source log, domain 'news': 0 events, 10 is usual" in said
    quality.check(table(spark, *days_before(1000), ("log", "shop", DAY, "kept", 500)), DAY, USUAL)
    quality.check(rows, DAY, HALF)


def test_nothing_is_usual_where_most_days_had_nothing(spark):
    quality.check(table(spark, *days_before(1000, days=3)), DAY, USUAL)
