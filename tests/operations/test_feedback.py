"""feedback: what became of each recommended item."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from training.warehouses import DAY, NEXT, copied, job_at, rows_of, stages

from metarec_spark.errors import DataError
from metarec_spark.operations.feedback import collect, followed
from metarec_spark.scoring.recommend import recommend

LISTS = "ds date, user_id string, domain string, model_id string, items array<struct<item_id: string, score: float>>"
EVENTS = "user_id string, domain string, item_id string, event_time timestamp, event_date date"
SHOWN = date(2024, 1, 1)


def outcome(spark, *events: tuple[str, str, str, datetime], days: int = 3) -> list[tuple]:
    """(item, rank, followed, time) of the list b1, b2 of user u, shown on the first of January."""
    lists = spark.createDataFrame([(SHOWN, "u", "books", "m", [("b1", 1.0), ("b2", 0.5)])], LISTS)
    rows = followed(lists, spark.createDataFrame([(*event, event[3].date()) for event in events], EVENTS), days)
    return sorted((row["item_id"], row["rank"], row["followed"], row["event_time"]) for row in rows.collect())


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (("u", "books", "b2", datetime(2024, 1, 2)), True),
        (("u", "books", "b2", datetime(2024, 1, 4, 23)), True),
        (("u", "books", "b2", datetime(2024, 1, 5)), False),
        (("u", "books", "b2", datetime(2024, 1, 1, 23)), False),
        (("v", "books", "b2", datetime(2024, 1, 2)), False),
        (("u", "films", "b2", datetime(2024, 1, 2)), False),
    ],
    ids=["next day", "last day", "too late", "same day", "another user", "another domain"],
)
def test_an_item_is_followed_by_its_users_event_in_the_days_after(spark, event, counts):
    assert outcome(spark, event) == [("b1", 1, False, None), ("b2", 2, counts, event[3] if counts else None)]


def test_the_first_of_several_events_counts(spark):
    times = [datetime(2024, 1, 3, 8), datetime(2024, 1, 2, 9), datetime(2024, 1, 2, 7), datetime(2024, 1, 1, 6)]
    assert outcome(spark, *(("u", "books", "b1", time) for time in times))[0] == ("b1", 1, True, datetime(2024, 1, 2, 7))


def test_lists_of_a_day_are_held_against_the_next_days_events(spark, tmp_path, tmp_path_factory):
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)
    recommend(job_at(spark, folder, "recommend", DAY))
    job = job_at(spark, folder, "feedback", NEXT)
    result = collect(job)
    events = {
        (r["user_id"], r["domain"], r["item_id"])
        for r in job.warehouse.read("events").where(f"event_date = DATE'{NEXT}'").collect()
    }
    expected = {
        (row["user_id"], row["domain"], item["item_id"], rank, (row["user_id"], row["domain"], item["item_id"]) in events)
        for row in job.warehouse.read("recommendations").collect()
        for rank, item in enumerate(row["items"], 1)
    }
    found = [
        (r["user_id"], r["domain"], r["item_id"], r["rank"], r["followed"]) for r in job.warehouse.read("feedback").collect()
    ]
    assert len(found) == len(expected) == result.rows_out and set(found) == expected
    # Ten of the day's eleven events are with items in the vocabulary's domains: 9 books that the model knows and one that it lacks.
    assert result.details.domains["books"]["new_item_share"] == 0.1
    assert result.details.domains["games"]["new_item_share"] == 1.0
    assert result.details.retrain == ["games"]

    before = rows_of(job, "feedback")
    collect(job_at(spark, folder, "feedback", NEXT))
    assert rows_of(job, "feedback") == before


def test_without_lists_in_the_days_before_there_is_nothing_to_hold(spark, tmp_path, tmp_path_factory):
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)
    recommend(job_at(spark, folder, "recommend", DAY))
    with pytest.raises(DataError, match="no recommendations from 2024-01-03 to 2024-01-09; run `metarec recommend`"):
        collect(job_at(spark, folder, "feedback", DAY))
