"""Which users of other domains are drawn."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from pyspark.sql import functions as F

from metarec_spark.transfer import user_sampling

START = datetime(2024, 1, 1)
SCHEMA = "user_id string, item_idx array<int>, domain array<string>, event_time array<timestamp>, active_domains array<string>"


def frame(spark, users: dict[str, tuple[list[int], str]]):
    rows = [
        (user, items, [domain] * len(items), [START + timedelta(days=n) for n in range(len(items))], [domain])
        for user, (items, domain) in users.items()
    ]
    return spark.createDataFrame(rows, SCHEMA)


@pytest.fixture(scope="module")
def others(spark):
    return frame(spark, {f"u{n}": ([0] * (1 + n % 3), "books") for n in range(60)}).cache()


def test_a_sample_stays_within_its_events_and_is_the_same_again(spark, others):
    first = {row[0] for row in user_sampling.sample_users(others, 50, seed=1).select("user_id").collect()}
    events = others.where(F.col("user_id").isin(list(first))).agg(F.sum(F.size("item_idx"))).first()[0]
    assert 45 <= events <= 50
    assert first == {row[0] for row in user_sampling.sample_users(others, 50, seed=1).select("user_id").collect()}
    assert first != {row[0] for row in user_sampling.sample_users(others, 50, seed=2).select("user_id").collect()}


def test_a_user_of_larger_weight_is_drawn_more_often(spark, others):
    heavy = F.when(F.col("user_id") < "u3", 50.0).otherwise(0.02)
    drawn = {row[0] for row in user_sampling.sample_users(others, 30, heavy).select("user_id").collect()}
    assert len([user for user in drawn if user < "u3"]) > 0.9 * len(drawn)


def test_users_who_resemble_the_domains_users_weigh_more(spark):
    # Items 0 and 1 are about tea, 2 and 3 about cars; the domain's people like tea.
    words = {0: "tea", 1: "tea", 2: "car", 3: "car", 4: "tea"}
    content = spark.createDataFrame([(item, [f"w:{word}"]) for item, word in words.items()], "item_idx int, tokens array<string>")
    users = {f"target{n}": ([4, 4], "cups") for n in range(20)}
    users |= {f"tea{n}": ([0, 1], "shop") for n in range(20)} | {f"car{n}": ([2, 3], "shop") for n in range(20)}
    found = {row[0]: row[1] for row in user_sampling.importance_weights(frame(spark, users), content, "cups").collect()}
    assert set(found) == {user for user in users if not user.startswith("target")}
    assert min(found[f"tea{n}"] for n in range(20)) > 5 * max(found[f"car{n}"] for n in range(20))
