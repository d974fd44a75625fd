"""Tokens and their weights, by hand."""

from __future__ import annotations

from math import log1p, sqrt

import pytest
from features.factories import item_rows
from pyspark.sql import Row, SparkSession

from metarec_spark.features.content import content, title_words
from metarec_spark.warehouse.contracts import conform

INFORMATION = "domain string, item_id string, title string, attributes array<string>, content array<float>"

ODD = [float("nan"), float("inf"), -float("inf"), None]


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> dict[int, Row]:
    odd = [("odd", str(n)) for n in range(len(ODD))]
    items = item_rows(spark, ("shop", "a"), ("shop", "b"), ("news", "a"), ("shop", "bare"), ("shop", "unknown"), *odd)
    information = [
        ("shop", "a", "Red shoe, RED!", ["red", None, "red"], [0.5, 1.0]),
        ("shop", "b", "blue Shoe", ["red"], None),
        ("news", "a", "Élan 2", ["red"], None),
        ("shop", "bare", None, None, None),
        *[("odd", f"{n}", None, None, [1.0, number]) for n, number in enumerate(ODD)],
        ("shop", "not an item", "Red", ["red"], None),
    ]
    frame = spark.createDataFrame(information, INFORMATION)
    return {row.item_idx: row for row in conform(content(items, frame), "item_content").collect()}


def test_tokens_are_attributes_of_the_domain_and_words_of_the_title(rows: dict[int, Row]):
    assert rows[0].tokens == ["a:shop:red", "w:red", "w:shoe"]
    assert rows[2].tokens == ["a:news:red", "w:2", "w:élan"]


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("AT&T's snake_case, 5.0", ["at", "t", "s", "snake", "case", "5", "0"]),
        ("Ｆｕｌｌ width １２", ["full", "width", "12"]),
        ("e\u0301lan", ["élan"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("한국어 책", ["한국어", "책"]),
        ("无线蓝牙耳机 Pro", ["无线", "线蓝", "蓝牙", "牙耳", "耳机", "pro"]),
        ("コーヒー・小", ["コー", "ーヒ", "ヒー", "小"]),
        ("กาแฟ ABC", ["กา", "าแ", "แฟ", "abc"]),
        ("", []),
    ],
)
def test_words_of_titles_in_any_language(title: str, words: list[str]):
    assert title_words(title) == words


def test_titles_without_blanks_that_share_words_are_alike():
    small, large, other = (set(title_words(title)) for title in ("老干妈辣椒酱小瓶", "老干妈辣椒酱大瓶装", "蓝牙耳机"))
    assert len(small & large) == 5 and not small & other


def test_weights_are_inverse_document_frequencies_in_the_domain_of_unit_length(rows: dict[int, Row]):
    rare, common = log1p(4 / 1), log1p(4 / 2)  # four items in the shop
    length = sqrt(2 * common**2 + rare**2)
    assert rows[0].weights == pytest.approx([common / length, rare / length, common / length], rel=1e-6)
    for row in rows.values():
        assert sum(weight**2 for weight in row.weights) == pytest.approx(1 if row.tokens else 0, rel=1e-6)


def test_the_scalar_product_of_two_items_is_their_cosine(rows: dict[int, Row]):
    first, second = (dict(zip(rows[i].tokens, rows[i].weights, strict=True)) for i in (0, 1))
    rare, common = log1p(4 / 1), log1p(4 / 2)  # four items in the shop
    # Shared: a:shop:red and w:shoe; each has one rare word of its own.
    cosine = 2 * common**2 / (2 * common**2 + rare**2)
    assert sum(weight * second.get(token, 0) for token, weight in first.items()) == pytest.approx(cosine, rel=1e-6)


def test_an_item_of_which_little_is_known_has_no_tokens(rows: dict[int, Row]):
    assert (rows[3].title, rows[3].tokens, rows[3].weights, rows[3].vector) == (None, [], [], None)


def test_given_titles_and_vectors_stay(rows: dict[int, Row]):
    assert (rows[0].title, rows[0].vector) == ("Red shoe, RED!", [0.5, 1.0])


def test_a_vector_with_anything_but_finite_numbers_is_left_out(rows: dict[int, Row]):
    assert [rows[5 + n].vector for n in range(len(ODD))] == [None] * 4


def test_items_without_information_and_information_without_items_are_left_out(rows: dict[int, Row]):
    assert sorted(set(rows) - {5, 6, 7, 8}) == [0, 1, 2, 3]
