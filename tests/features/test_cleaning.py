"""Every row of a log is an event or is rejected with one reason, once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest
from features.factories import judged_rows, log_rows
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.sections import Features
from metarec_spark.features import cleaning
from metarec_spark.warehouse.contracts import conform

NOW = datetime(2024, 1, 12, tzinfo=UTC)
SETTINGS = Features(late_days=2, max_events_per_hour=3, event_types=["click", "event"])
EVENT = None

# label → (the reason expected, the day it counts for, the row)
CASES = {
    1: (EVENT, "2024-01-10", {}),
    2: ("null_user", "2024-01-10", {"user_id": " "}),
    3: ("null_item", "2024-01-10", {"item_id": None}),
    4: ("null_domain", "2024-01-10", {"domain": ""}),
    5: ("bad_time", "2024-01-11", {"time_text": "soon", "arrival": "2024-01-11"}),
    6: ("bad_time", None, {"time_text": None, "arrival": None}),
    7: ("future_time", "2024-01-10", {"time_text": "2024-01-11 14:00:00"}),
    18: (EVENT, "2024-01-11", {"time_text": "2024-01-11 13:59:59"}),  # the arrival day of a zone behind UTC
    8: (EVENT, "2024-01-10", {"time_text": "2024-01-10 23:59:59.999999"}),
    9: ("future_time", None, {"time_text": "2024-01-12 14:00:01", "arrival": None}),
    10: (EVENT, "2024-01-12", {"time_text": "2024-01-12 14:00:00", "arrival": None}),
    11: ("late", "2024-01-10", {"time_text": "2024-01-07 23:59:59"}),
    12: (EVENT, "2024-01-08", {"time_text": "2024-01-08 00:00:00"}),
    13: (EVENT, "1999-01-01", {"time_text": "1999-01-01 12:00:00", "arrival": None}),
    14: ("unknown_type", "2024-01-10", {"event_type": "purchase"}),
    15: ("unknown_type", "2024-01-10", {"event_type": None}),
    16: ("null_user", "2024-01-11", {"user_id": None, "item_id": None, "time_text": "soon", "arrival": "2024-01-11"}),
    17: ("bad_time", "2024-01-10", {"time_text": "soon", "event_type": "purchase"}),
    # The same event three times, from two sources: the first source's smallest value stays.
    20: (EVENT, "2024-01-10", {"user_id": "twice"}),
    21: ("duplicate", "2024-01-10", {"user_id": "twice"}),
    22: ("duplicate", "2024-01-10", {"user_id": "twice", "source": "1:csv"}),
    23: (EVENT, "2024-01-10", {"user_id": "twice", "event_type": "event"}),
    # Four events in a clock hour are one too many; the next hour is judged anew.
    **{
        30 + n: ("bot", "2024-01-10", {"user_id": "bot", "item_id": f"i{n}", "time_text": f"2024-01-10 10:{n}9:59"})
        for n in range(4)
    },
    34: (EVENT, "2024-01-10", {"user_id": "bot", "time_text": "2024-01-10 11:00:00"}),
    # Three events and two copies are not: what was rejected already does not count.
    **{40 + n: (EVENT, "2024-01-10", {"user_id": "busy", "item_id": f"i{n}"}) for n in range(3)},
    43: ("duplicate", "2024-01-10", {"user_id": "busy", "item_id": "i0"}),
    44: ("unknown_type", "2024-01-10", {"user_id": "busy", "event_type": "purchase"}),
}


def rows(spark: SparkSession) -> DataFrame:
    """The cases, their labels as values."""
    return log_rows(spark, *[row | {"value": float(label)} for label, (_, _, row) in CASES.items()])


@pytest.fixture(scope="module")
def judged(spark: SparkSession) -> Iterator[DataFrame]:
    cached = judged_rows(rows(spark), SETTINGS, NOW).cache()
    yield cached
    cached.unpersist()


def verdicts(judged: DataFrame) -> dict[int, tuple[str | None, str | None]]:
    found = [tuple(row) for row in judged.selectExpr("int(value)", "reason", "string(day)").collect()]
    assert len(found) == len({label for label, _, _ in found}), "a row was judged twice"
    return {label: (reason, day) for label, reason, day in found}


def expected(*days: str | None) -> dict[int, tuple[str | None, str | None]]:
    return {label: (reason, day) for label, (reason, day, _) in CASES.items() if not days or day in days}


def test_each_row_has_its_first_reason_and_its_day(judged: DataFrame):
    assert verdicts(judged) == expected()


def test_every_row_that_is_read_is_kept_or_rejected(judged: DataFrame):
    kept, rejected = cleaning.accepted(judged), cleaning.rejected(judged)
    assert conform(kept, "events").count() == sum(reason is None for reason, _, _ in CASES.values())
    found = Counter(row[0] for row in conform(rejected, "rejected_events").select("reason").collect())
    assert found == Counter(reason for reason, _, _ in CASES.values() if reason)


def test_rejected_rows_stay_as_they_arrived(judged: DataFrame):
    row = cleaning.rejected(judged).where("value = 17").first()
    assert (row.user_id, row.event_type, row.event_time, str(row.day)) == ("u1", "purchase", "soon", "2024-01-10")


def test_a_time_that_arrived_as_one_is_rejected_as_text(spark: SparkSession):
    given = log_rows(spark, {"user_id": None, "time_text": "2024-01-10 10:00:00.5"}).withColumn(
        "time_text", F.lit(None).cast("string")
    )
    (row,) = cleaning.rejected(judged_rows(given, SETTINGS, NOW)).collect()
    assert (row.reason, row.event_time) == ("null_user", "2024-01-10 10:00:00.5")


def test_the_judgement_does_not_depend_on_the_order_of_the_rows(spark: SparkSession):
    assert verdicts(judged_rows(rows(spark).orderBy("value", ascending=False).repartition(5), SETTINGS, NOW)) == expected()


@pytest.mark.parametrize("shares", [1, 3])
def test_a_day_is_divided_among_so_many_tasks(spark: SparkSession, shares: int):
    given = log_rows(
        spark,
        *[
            {"user_id": user, "item_id": item, "time_text": f"2024-01-0{day} 10:00:00", "arrival": None}
            for day in range(1, 10)
            for user, item in [*((f"u{n}", "i") for n in range(20)), *((None, f"i{n}") for n in range(20))]
        ],
    )
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", 100)
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        judged = judged_rows(given, SETTINGS, NOW, shares)
        places = judged.select("day", F.col("reason").isNull().alias("kept"), F.spark_partition_id().alias("task")).distinct()
        assert max(row["count"] for row in places.groupBy("day", "kept").count().collect()) == shares
        plan = judged._jdf.queryExecution().executedPlan().toString()
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
        spark.conf.unset("spark.sql.adaptive.enabled")
    assert (plan.count("Exchange"), plan.count("Sort [")) == (1, 1), "one shuffle and one sort"


def test_all_types_are_accepted_where_none_are_named(spark: SparkSession):
    given = log_rows(spark, {"event_type": "purchase", "value": 1.0}, {"event_type": " ", "value": 2.0})
    assert verdicts(judged_rows(given, Features(), NOW)) == {1: (None, "2024-01-10"), 2: ("unknown_type", "2024-01-10")}


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Tokyo"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of the machine that runs the driver."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("time_zone")
def test_the_zone_of_the_machine_has_no_say(spark: SparkSession):
    assert verdicts(judged_rows(rows(spark), SETTINGS, NOW)) == expected()


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("UTC", "2024-01-10 00:00:00", "2024-01-10 23:59:59"),
        ("Asia/Tokyo", "2024-01-09 15:00:00", "2024-01-10 14:59:59"),
        ("America/New_York", "2024-01-10 05:00:00", "2024-01-11 04:59:59"),
        ("+05:30", "2024-01-09 18:30:00", "2024-01-10 18:29:59"),
    ],
)
def test_a_day_is_of_the_zone_that_the_configuration_names(spark: SparkSession, zone: str, first: str, last: str):
    begin, end = (datetime.fromisoformat(time) for time in (first, last))
    second = timedelta(seconds=1)
    times = [begin - second, begin, end, end + second, end + second + timedelta(hours=14)]
    rows = log_rows(
        spark, *[{"time_text": str(time), "arrival": "2024-01-10", "item_id": f"i{n}"} for n, time in enumerate(times)]
    )
    settings = SETTINGS.model_copy(update={"day_zone": zone, "late_days": 0})
    labelled = cleaning.label_rows(rows, settings, NOW).orderBy("item_id").select("reason", F.col("day").cast("string")).collect()
    days = ["2024-01-10", "2024-01-10", "2024-01-10", "2024-01-11", "2024-01-10"]
    assert [tuple(row) for row in labelled] == list(zip(["late", None, None, None, "future_time"], days, strict=True))


NEW, EVENT_ROW, REJECTED = cleaning.NEW, cleaning.STORED_EVENT, cleaning.STORED_REJECTED


def compared(spark: SparkSession, *given: tuple[int, bool, dict]) -> Counter:
    """(reason, whether the table of events has the row) of new and stored rows: (state, read again, row)."""
    parts = []
    for state, again, row in given:
        labelled = cleaning.label_rows(log_rows(spark, row), SETTINGS if state == NEW else Features(), NOW)
        part = cleaning.new_rows(labelled.withColumn(cleaning.AGAIN, F.lit(again)))
        parts.append(part.withColumn(cleaning.STATE, F.lit(state)))
    judged = cleaning.judge_days(reduce(DataFrame.unionByName, parts), SETTINGS.max_events_per_hour, 1, stored=True)
    return Counter((row["reason"], row["is_stored_event"]) for row in judged.collect())


# label → what becomes of rows, the rows
STORED_CASES = {
    "a row that is read again takes the place of the stored one": ({(None, True): 1}, [(NEW, True, {}), (EVENT_ROW, False, {})]),
    "a new row that repeats a stored event is a copy": (
        {(None, True): 1, ("duplicate", False): 1},
        [(NEW, False, {}), (EVENT_ROW, False, {})],
    ),
    "a row that the file has twice now is a copy of itself": (
        {(None, True): 1, ("duplicate", False): 1},
        [(NEW, True, {}), (NEW, True, {}), (EVENT_ROW, False, {})],
    ),
    "a file that has a row once now stored it twice": (
        {(None, True): 1, ("duplicate", False): 1},
        [(NEW, True, {}), (EVENT_ROW, False, {}), (REJECTED, False, {})],
    ),
    "a row of another file is not the same row": (
        {(None, True): 1, ("duplicate", False): 1},
        [(NEW, True, {"source": "1:csv"}), (EVENT_ROW, False, {})],
    ),
    "an event that the rules reject now leaves the table": (
        {("unknown_type", True): 1},
        [(NEW, True, {"event_type": "purchase"}), (EVENT_ROW, False, {"event_type": "purchase"})],
    ),
    "a smaller value comes first, whichever was stored": (
        {(None, False): 1, ("duplicate", True): 1},
        [(NEW, False, {"value": 1.0}), (EVENT_ROW, False, {"value": 2.0})],
    ),
    "stored events of an hour become bots together with new ones": (
        {("bot", True): 2, ("bot", False): 2},
        [(NEW, False, {"item_id": f"i{n}"}) for n in range(2)] + [(EVENT_ROW, False, {"item_id": f"i{n}"}) for n in (2, 3)],
    ),
}


@pytest.mark.parametrize("case", STORED_CASES)
def test_new_rows_are_compared_with_stored_ones(spark: SparkSession, case: str):
    outcome, given = STORED_CASES[case]
    assert compared(spark, *given) == outcome
