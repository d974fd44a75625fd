"""Times in text have one reading, or they are none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from metarec_spark.config.inputs import Source
from metarec_spark.sources.times import LAST, TimeReader

NOON = "2024-01-10 12:00:00"
# Time in UTC → ways to write it.
SAME = {
    NOON: [
        "2024-01-10T12:00:00Z", "2024-01-10t12:00:00z", "2024-01-10 12:00:00", "2024-01-10 12:00", "2024-01-10T13:00:00+01:00",
        "2024-01-10 13:00:00 +0100", "2024-01-10T13:00+01", "2024-01-10 12:00:00 UTC", "2024-01-10 12:00:00 GMT", "2024-01-10T12:00:00.000000000Z",
        "2024-01-10T13:00:00+01:00[Europe/Berlin]", "2024-01-10 13:00:00 Europe/Berlin", "2024/1/10 12:00:00", "2024.01.10 12:00",
        "2024-01-10 12:00:00 PM", "2024-01-10 12:00 p.m.", "20240110T120000Z", "20240110T120000", "20240110T1300+0100", "20240110120000",
        "202401101200", "1704888000", "1704888000.0", "1704888000,0", "1704888000000", "1704888000000000", "1704888000000000000", "1.704888E9",
        "Wed, 10 Jan 2024 12:00:00 +0000", "Wed, 10 Jan 2024 12:00:00 GMT", "10 Jan 2024 13:00:00 +0100", "10-Jan-2024 12:00:00",
        "10/Jan/2024:12:00:00 +0000", "Wed Jan 10 12:00:00 2024", "Wed Jan 10 12:00:00 UTC 2024", "Jan 10, 2024 12:00:00 PM",
        "January 10th, 2024 12:00", "Wed Jan 10 2024 13:00:00 GMT+0100 (Central European Standard Time)", "  2024-01-10 12:00:00 ",
    ],
    "2024-01-10 00:00:00": ["2024-01-10", "2024/01/10", "20240110", "10 January 2024", "Jan 10, 2024", "2024-01-10 12:00 AM", "2024-01-10 00:00:00"],
    "2024-01-10 12:00:00.123456": [
        "2024-01-10T12:00:00.123456Z", "2024-01-10 12:00:00,123456", "2024-01-10T12:00:00.123456789", "1704888000.123456", "1704888000123.456",
        "1704888000123456", "1704888000123456789", "20240110T120000.123456Z",
    ],
    None: [
        "", " ", "01/10/2024", "10.01.2024", "1/10/24", "12:30", "12:30:00", "2024", "2024-01", "202401", "yesterday", "now", "20241301", "2024-02-30",
        "2024-01-10 24:00:00", "2024-01-10 13:00 PM", "2024-01-10 12:00:60", "2024-01-10 12", "2024-01-10 12:00:00 EST", "2024-01-10 12:00:00 Foo/Bar",
        "2024-01/10", "1.70489E+09", "45301.5", "-1", "1e9", "19732", "1969-12-31 23:59:59", "10000-01-01", "24-01-10", "2024-010", "99999999999999999999",
        "Feb 30, 2024", "2024-01-10 12:00:00 ../../etc/passwd", "NaN", "Infinity", "0x65A0",
    ],
}  # fmt: skip


def micros(time: str) -> int:
    return (datetime.fromisoformat(time).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)


def reader(**settings: object) -> TimeReader:
    return TimeReader.from_source(Source(path="log", **settings))


@pytest.mark.parametrize("time", SAME)
def test_a_time_is_the_same_in_each_of_its_forms(time: str | None):
    expected = None if time is None else micros(time)
    assert {text: reader()(text) for text in SAME[time]} == dict.fromkeys(SAME[time], expected)


def test_each_unit_is_told_by_the_size_of_the_number():
    for seconds in (100_000_000, 1_704_888_000, 9_000_000_000):
        for per_second in (1, 10**3, 10**6, 10**9):
            assert reader()(str(seconds * per_second)) == seconds * 10**6


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_a_given_unit_is_taken_at_its_word(unit: str, per_second: int):
    assert reader(time_unit=unit)(str(1_704_888_000 * per_second)) == micros(NOON)
    assert reader(time_unit=unit)("20240110") is None
    assert reader(time_unit=unit)("2024-01-10") == micros("2024-01-10")


def test_a_time_without_a_zone_is_of_the_sources():
    berlin = reader(time_zone="Europe/Berlin")
    assert berlin("2024-01-10 13:00:00") == berlin("2024-01-10T12:00:00Z") == berlin("1704888000") == micros(NOON)
    assert berlin("2024-01-10") == micros("2024-01-09 23:00:00")
    assert reader(time_zone="+05:30")("2024-01-10 17:30:00") == micros(NOON)


def test_clocks_that_are_put_back_show_the_first_time_and_those_put_forward_none():
    berlin = reader(time_zone="Europe/Berlin")
    assert berlin("2024-10-27 02:30:00") == micros("2024-10-27 00:30:00")
    assert berlin("2024-03-31 02:30:00") is None


def test_a_format_is_the_only_form():
    day_first = reader(time_format="%d/%m/%Y %H:%M", time_zone="Europe/Berlin")
    assert day_first("10/01/2024 13:00") == micros(NOON)
    assert day_first("2024-01-10 13:00:00") is None and day_first("1704888000") is None
    assert reader(time_format="%d/%m/%Y %z")("10/01/2024 +0100") == micros("2024-01-09 23:00:00")


@pytest.mark.parametrize("form", ["%Q", "%d/%m", "noon"])
def test_a_format_that_reads_no_day_is_refused(form: str):
    with pytest.raises(ValueError, match=r"strptime, such as"):
        Source(path="log", time_format=form)


def test_the_last_microsecond():
    assert reader()("9999-12-31T23:59:59.999999Z") == LAST
