"""Rows of forgotten people are known by the hash of their id, exactly as it stands there."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime

import pytest
from features.factories import log_rows, sequence_rows
from pyspark.sql import DataFrame, SparkSession

from metarec_spark.config.sections import Features
from metarec_spark.features import cleaning
from metarec_spark.features.erased import hash_of, hashed, without
from metarec_spark.warehouse.contracts import contract

ODD = ["u1", "U1", " u1", "'; DROP TABLE events; --", "../x", "🦊\u2028", "a\tb\nc", "é", "e\u0301"]


def forgotten(spark: SparkSession, *users: str) -> DataFrame:
    return spark.createDataFrame([(hash_of(user), date(2024, 1, 10), False) for user in users], contract("forgotten").schema)


def labelled(spark: SparkSession, *rows: dict) -> DataFrame:
    """Rows labelled with ``u1`` erased."""
    return cleaning.label_rows(log_rows(spark, *rows), Features(), datetime(2024, 1, 11, tzinfo=UTC), forgotten(spark, "u1"))


def test_spark_hashes_an_id_as_python_does(spark):
    rows = spark.createDataFrame([(user,) for user in ODD], "user_id string").select("user_id", hashed()).collect()
    assert {row[0]: row[1] for row in rows} == {user: hash_of(user) for user in ODD}
    assert hash_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("user", ODD)
def test_nobody_else_is_left_out(spark, user):
    rows = sequence_rows(spark, **{other: [(0, "shop")] for other in ODD})
    assert sorted(row.user_id for row in without(rows, forgotten(spark, user)).collect()) == sorted({*ODD} - {user})


def test_their_rows_get_that_reason_whatever_else_is_wrong_with_them(spark):
    rows = labelled(spark, {}, {}, {"item_id": None}, {"user_id": "u2"}, {"user_id": "u2", "item_id": None}, {"user_id": None})
    assert Counter(row.reason for row in rows.collect()) == {"forgotten": 3, None: 1, "null_item": 1, "null_user": 1}
