"""What came and what went, each event counted once."""

from __future__ import annotations

from features.factories import event_rows
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.features.change_feed import losing, net

NOON = "2024-01-10 12:00:00"


def test_only_net_changes_are_changes(spark: SparkSession):
    def changed(kind: str, *rows: tuple[str, str, str, str]) -> DataFrame:
        return event_rows(spark, *rows).withColumn("_change_type", F.lit(kind))

    same, gone = ("same", "shop", "a", NOON), ("less", "shop", "b", NOON)
    new, moved = ("more", "news", "a", NOON), ("moved", "film", "c", "2024-01-10 13:00:00")
    changes = changed("delete", same, gone, ("moved", "film", "c", NOON)).unionByName(changed("insert", same, new, moved))
    found = net(changes)
    assert sorted(tuple(row) for row in found.select("user_id", "item_id", "net").collect()) == [
        ("less", "b", -1), ("more", "a", 1), ("moved", "c", -1), ("moved", "c", 1),
    ]  # fmt: skip
    assert sorted(row[0] for row in losing(found, "user_id").collect()) == ["less", "moved"]
    assert sorted(tuple(row) for row in losing(found, "domain", "item_id").collect()) == [("film", "c"), ("shop", "b")]
