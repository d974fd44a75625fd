"""What of the sequences goes into a snapshot for meta-training."""

from __future__ import annotations

import pytest
from pyspark.sql import Row, SparkSession

from metarec_spark.training.snapshot import episodes, spread

A, B, C = 0, 1, 2
DOMAINS = {"one": [A, A, A], "two": [A, B, A, B, B, A], "last": [A, B, B], "once": [A, B, C]}


@pytest.fixture(scope="module")
def sequences(spark: SparkSession):
    rows = [(user, [*domains, *[0] * (6 - len(domains))], len(domains)) for user, domains in DOMAINS.items()]
    return spark.createDataFrame(rows, "user_id string, domain array<int>, length int")


@pytest.fixture(scope="module")
def rows(sequences) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {user: [] for user in DOMAINS}
    for row in episodes(sequences).collect():
        found[row.user_id].append(row)
    return found


def test_a_row_ends_with_the_newest_event_of_its_domain_and_rows_without_a_target_are_left_out(rows):
    ends = {user: sorted(row.length for row in of) for user, of in rows.items()}
    assert ends == {"one": [3], "two": [5, 6], "last": [3], "once": [2, 3]}


def test_every_event_but_the_first_is_asked_once(rows):
    for user, domains in DOMAINS.items():
        asked = [place for row in rows[user] for place in range(1, row.length) if row.domain[place] == row.domain[row.length - 1]]
        assert sorted(asked) == list(range(1, len(domains)))


def test_a_user_is_in_the_same_half_in_all_domains_and_always(sequences, rows):
    assert all(len({row.half for row in of}) == 1 for of in rows.values())
    assert {row.half for of in rows.values() for row in of} <= {0, 1}
    again = {row.user_id: row.half for row in episodes(sequences.repartition(3)).collect()}
    assert again == {user: of[0].half for user, of in rows.items()}


def test_about_half_of_the_users_are_in_each_half(spark):
    many = spark.range(400).selectExpr("concat('u', id) as user_id", "array(0, 0) as domain", "2 as length")
    assert 150 < episodes(many).where("half = 1").count() < 250


def test_the_same_rows_give_the_same_files(sequences):
    def files(frame):
        return [[tuple(row) for row in part] for part in spread(frame, 2).rdd.glom().collect()]

    assert files(episodes(sequences)) == files(episodes(sequences.repartition(3)))
