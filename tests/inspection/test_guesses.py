"""Which column is which, and how its times are read: from names and values alone."""

from __future__ import annotations

import pytest

from metarec_spark.inspection.document import platform_of
from metarec_spark.inspection.guesses import guess_columns, time_forms

LOG = ("event_time", "user_id", "item_id", "domain", "event_type", "value")
TIMES = ["2024-01-10T12:00:00Z", "2024-01-11T08:30:00Z"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user_id": ["1"], "item_id": ["2"], "event_time": TIMES}, {"user_id": "user_id", "item_id": "item_id", "event_time": "event_time"}),
        ({"Kunde": ["1"], "userId": ["1"], "movieId": ["2"], "timestamp": ["964982703", "964981247"], "rating": ["4.0", "3.5"]},
         {"user_id": "userId", "item_id": "movieId", "event_time": "timestamp", "value": "rating"}),
        ({"user.id": ["u"], "ctx.product.sku": ["a"], "at": TIMES}, {"user_id": "user.id", "item_id": "ctx.product.sku", "event_time": "at"}),
        ({"uid": ["1"], "iid": ["2"], "t1": TIMES}, {"user_id": "uid", "item_id": "iid", "event_time": "t1"}),
        ({"user": ["1"], "item": ["2"], "time": ["morning", "noon"]}, {"user_id": "user", "item_id": "item"}),
        ({"user_id:token": ["1"], "item_id:token": ["2"], "rating:float": ["3"], "timestamp:float": ["881250949"]},
         {"user_id": "user_id:token", "item_id": "item_id:token", "value": "rating:float", "event_time": "timestamp:float"}),
        ({"InvoiceNo": ["536365"], "StockCode": ["85123A"], "InvoiceDate": ["12/13/2010 8:26"], "CustomerID": ["17850"]},
         {"user_id": "CustomerID", "item_id": "StockCode", "event_time": "InvoiceDate"}),
    ],
    ids=["our names", "MovieLens", "nested", "a time by its values", "no time", "RecBole", "Online Retail"],
)  # fmt: skip
def test_columns_are_found_by_name_and_value(columns, expected):
    assert guess_columns(list(columns), columns, LOG) == expected


def test_a_column_of_two_hundred_names_is_no_platform():
    columns = {"user_id": ["1"], "item_id": ["2"], "event_time": TIMES, "shop": [f"s{i}" for i in range(200)]}
    assert "domain" not in guess_columns(list(columns), columns, LOG)
    columns["shop"] = ["north", "south"] * 100
    assert guess_columns(list(columns), columns, LOG)["domain"] == "shop"


@pytest.mark.parametrize(
    ("values", "read", "formats"),
    [
        (["2024-01-10 12:00:00", "1704888000"], True, ()),
        (["31/01/2024 12:00", "01/02/2024 13:00"], False, ("%d/%m/%Y %H:%M",)),
        (["01/31/2024", "02/01/2024"], False, ("%m/%d/%Y",)),
        (["31.01.24", "01.02.24"], False, ("%d.%m.%y",)),
        (["01/02/2024", "03/04/2024"], False, ("%d/%m/%Y", "%m/%d/%Y")),
        (["soon"], False, ()),
        ([], False, ()),
    ],
    ids=["read without a format", "day first", "month first", "two digits of the year", "both", "none", "empty"],
)
def test_forms_of_time(values, read, formats):
    forms = time_forms(values)
    assert (forms.read, forms.formats) == (read, formats)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("file:/logs/Web Shop/events/part-0.csv", "web-shop"),
        ("s3a://bucket/shop/log/*.csv", "shop"),
        ("file:/logs/music.csv", "music"),
        ("file:/log", "log"),
    ],
)
def test_a_platform_is_called_after_its_path(path, expected):
    assert platform_of(path) == expected
