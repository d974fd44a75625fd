"""Task meta-features, against values by hand."""

from __future__ import annotations

import math

import pytest

from metarec_spark.transfer.task_features import NAMES, task_meta_features


def test_meta_features_describe_the_domain_and_its_overlap_with_the_others(spark):
    users = [
        ("a", [0, 1, 10], ["cups", "cups", "shop"]),
        ("b", [0, 0], ["cups", "cups"]),
        ("c", [10, 11], ["shop", "shop"]),
    ]
    frame = spark.createDataFrame(users, "user_id string, item_idx array<int>, domain array<string>")
    items = [(0, "cups", ["w:tea", "w:cup"]), (1, "cups", ["w:mug"]), (10, "shop", ["w:tea", "a:shop:x"])]
    content = spark.createDataFrame(items, "item_idx int, domain string, tokens array<string>")
    found = task_meta_features(frame, content, "cups")
    assert tuple(found) == NAMES
    entropy = -(3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4)) / math.log(2)
    expected = (2, 2, 4, 4 / (2 * 2), entropy, 2, 3, 1 / 2, 1 / 3)
    assert list(found.values()) == pytest.approx(expected)


def test_a_domain_without_events_has_counts_of_zero(spark):
    frame = spark.createDataFrame([("c", [10], ["shop"])], "user_id string, item_idx array<int>, domain array<string>")
    content = spark.createDataFrame([], "item_idx int, domain string, tokens array<string>")
    found = task_meta_features(frame, content, "cups")
    assert (found["users"], found["events"], found["source_events"]) == (0, 0, 1)
