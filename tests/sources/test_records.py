"""Text is split into records as csv and json do it; what is no record costs no other one."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarec_spark.errors import DataError
from metarec_spark.sources.records import csv_records, json_lines, json_values, number_text

FIELD = st.text(st.sampled_from('ab",;\n\r \t\\é'), max_size=4)


def records(text: str, separator: str = ",", skip_blanks: bool = False) -> list:
    return list(csv_records(io.StringIO(text, newline=""), separator, skip_blanks))


@given(st.lists(st.lists(FIELD, min_size=2, max_size=3), max_size=5), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_wrote_is_read(rows: list[list[str]], separator: str, end: str):
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL  # it does not think of a bare \r
    csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
    assert records(file.getvalue(), separator) == rows


@pytest.mark.parametrize(
    "broken",
    ['u2,"i2', '"u2"x,i2', 'u2,"i2"x', 'u2,"open,i2', '"', 'u2,"i 2" wide", x'],
    ids=["open", "after", "last", "comma", "alone", "inches"],
)
def test_a_broken_line_costs_no_other(broken: str):
    good = [["u1", "i1"], ["u3", 'i"3'], ["u4", "i4"]]
    assert records(f'u1,i1\n{broken}\nu3,"i""3"\nu4,i4\n') == [good[0], None, *good[1:]]


def test_an_open_quote_ends_within_500_lines():
    lines = records('u,"i\n' + "u,i\n" * 5000)
    assert lines.count(["u", "i"]) == 5000 and lines.count(None) == 1


def test_blank_lines_are_none_and_quotes_in_the_middle_are_text():
    assert records("a,b\n\n  \n27\" x,6'\n") == [["a", "b"], ['27" x', "6'"]]


def test_json_lines():
    lines = ['{"a": 1.50}', "", "{broken", "7", '[{"a": 1}, {"a": 2}]', "[1]", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 99999]
    assert list(json_lines(iter(lines))) == [{"a": "1.50"}, None, 7, {"a": 1}, {"a": 2}, [1], None, {"a": None}, None]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_json_values_over_any_number_of_lines(indent: int | None, size: int):
    rows = [{"a": i, "b": ["x", {"c": "]}[{"}]} for i in range(5)]
    for text in (
        json.dumps(rows, indent=indent),
        "\n".join(json.dumps(row, indent=indent) for row in rows),
        json.dumps([rows[:2], rows[2:]]),
    ):
        assert list(json_values(text[at : at + size] for at in range(0, len(text), size))) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [('[{"a": 1},', "cut short"), ('[{"a": 1}, {"a"', "no JSON from character 11"), ("x", "no JSON from character 0")],
)
def test_json_that_is_broken_off_is_an_error(text: str, said: str):
    with pytest.raises(DataError, match=said):
        list(json_values(iter([text])))


def test_whole_numbers_lose_their_fraction():
    texts = {"101.0": "101", "1e3": "1000", "-3.0": "-3", "0.0": "0", "1.5e1": "15", "100e-2": "1"}
    nothing = ["1.5", "9007199254740993.0", "1e300", "1e-2", "Infinity"]
    assert {text: number_text(text) for text in [*texts, *nothing]} == texts | dict.fromkeys(nothing)
