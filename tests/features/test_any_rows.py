"""Properties of cleaning, vocabulary and sequences, for rows that nobody thought of."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from features.factories import event_rows, item_rows, judged_rows, log_rows
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.sections import Features
from metarec_spark.features.items import counted, updated
from metarec_spark.features.sequences import extended, sequences

# An example takes seconds of Spark, so none is made smaller.
some = settings(
    max_examples=4,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NOW = datetime(2024, 1, 12, tzinfo=UTC)
RULES = Features(late_days=2, max_events_per_hour=3, event_types=["click", "buy"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IDS = st.one_of(st.none(), TEXT, st.sampled_from(["a", "b", "'; DROP TABLE events; --", "../../etc", "\u202e", " ", "😀"]))
TIMES = st.one_of(
    st.none(), TEXT, st.datetimes(datetime(1900, 1, 1), datetime(2300, 1, 1)).map(str), st.just("2024-01-10 10:00:00")
)
LOG = st.fixed_dictionaries(
    {
        **{"user_id": IDS, "item_id": IDS, "domain": IDS, "time_text": TIMES},
        "event_type": st.sampled_from(["click", "buy", "odd", None]),
        "arrival": st.sampled_from([None, "2024-01-10", "2024-01-11"]),
    }
)
BUSY = st.fixed_dictionaries({"user_id": st.sampled_from("abcdefgh"), "item_id": st.sampled_from("abcdef")})
"""Of few people and items in one clock hour: copies and bots come about."""
NAMES = st.sampled_from(["a", "b", "c", "d e", "ä", "'"])
EVENT = st.tuples(
    NAMES,
    NAMES,
    NAMES,
    st.integers(0, 40 * 24 * 60).map(lambda m: f"2024-0{1 + m // 43200}-{1 + m // 1440 % 28:02} 10:{m % 60:02}:00"),
)
EVENTS = st.lists(EVENT, min_size=20, max_size=60)


@some
@given(rows=st.lists(LOG | BUSY, min_size=20, max_size=80), chance=st.randoms(use_true_random=False))
def test_every_row_is_an_event_or_rejected_once_in_whatever_order_rows_come(spark: SparkSession, rows, chance):
    rows = [row | {"value": float(label)} for label, row in enumerate(rows)]
    found = []
    for of in (rows, chance.sample(rows, len(rows))):
        judged = judged_rows(log_rows(spark, *of), RULES, NOW).collect()
        found.append({row["value"]: (row["reason"], row["day"]) for row in judged})
        assert len(judged) == len(rows) == len(found[-1])
    assert found[0] == found[1]
    kept = [row for row in judged if row["reason"] is None]
    assert all(row[name].strip() for row in kept for name in ("user_id", "item_id", "domain") if row[name].isascii())
    assert all(row["event_type"] in RULES.event_types and row["event_time"] for row in kept)
    key = ("user_id", "item_id", "domain", "event_type", "event_time")
    assert max(Counter(tuple(row[name] for name in key) for row in kept).values(), default=1) == 1
    hours = Counter((row["user_id"], row["event_time"].replace(minute=0, second=0, microsecond=0)) for row in kept)
    assert max(hours.values(), default=0) <= RULES.max_events_per_hour


@some
@given(first=EVENTS, second=EVENTS)
def test_an_item_keeps_its_index_and_indexes_have_no_gap(spark: SparkSession, first, second):
    none = item_rows(spark, ("", "")).limit(0)
    before = updated(none, counted(event_rows(spark, *first)), first_free=1).localCheckpoint()
    after = updated(before, counted(event_rows(spark, *first, *second)), first_free=before.count() + 1)
    was, now = ({(row.domain, row.item_id): row.item_idx for row in of.collect()} for of in (before, after))
    assert now.keys() == {(domain, item) for _, domain, item, _ in first + second}
    assert {key: now[key] for key in was} == was
    assert sorted(now.values()) == list(range(1, len(now) + 1))


@some
@given(first=EVENTS, second=EVENTS, most=st.integers(1, 6))
def test_a_sequence_is_the_newest_events_in_order_made_at_once_or_extended(spark: SparkSession, first, second, most):
    keys = sorted({(domain, item) for _, domain, item, _ in first + second})
    items, place = item_rows(spark, *keys), {key: number for number, key in enumerate(keys)}
    everything, features = event_rows(spark, *first, *second), Features(max_length=most)
    whole = sequences(everything, items, features)
    part = extended(sequences(event_rows(spark, *first), items, features), event_rows(spark, *second), items, features)
    timed = F.transform("event_time", lambda time: time.cast("string"))
    whole, part = ({row.user_id: row for row in of.withColumn("event_time", timed).collect()} for of in (whole, part))
    assert all(whole[user] == row for user, row in part.items())
    for user, row in whole.items():
        mine = sorted((time, place[domain, item], domain) for who, domain, item, time in first + second if who == user)
        assert (row.events, row.seen_items) == (len(mine), sorted({index for _, index, _ in mine}))
        assert list(zip(row.event_time, row.item_idx, row.domain, strict=True)) == mine[-most:]
