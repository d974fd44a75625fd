"""How a text is written is found out from its first bytes, or the file is named."""

from __future__ import annotations

import json

import pytest

from metarec_spark import columns as c
from metarec_spark.config.inputs import Source
from metarec_spark.errors import DataError
from metarec_spark.sources.dialects import csv_dialect, encoding_of, json_dialect
from metarec_spark.sources.names import wanted

TEXT = "user_id,item_id\nJosé,a\nZoë,b\nGroß,c\n"
SOURCE = Source(path="log", domain="shop")
COLUMNS = wanted(SOURCE, (c.USER_ID, c.ITEM_ID))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *[(name, name) for name in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")],
        *[("latin-1", "cp1252"), ("cp1252", "cp1252"), ("ascii", "utf-8")],
    ],
)
def test_encodings(written: str, read: str):
    head = TEXT.encode(written, "ignore")
    assert encoding_of(head, True, "auto") == (read, read == "cp1252")
    assert head.decode(read) == head.decode(written)


@pytest.mark.parametrize(
    ("text", "encoding"), [("Привет мир", "cp1251"), ("こんにちは", "shift_jis"), ("你好世界", "gb18030"), ("שלום", "cp1255")]
)
def test_other_encodings_are_not_guessed(text: str, encoding: str):
    with pytest.raises(DataError, match="is not UTF-8; set encoding"):
        encoding_of(text.encode(encoding), True, "auto")
    assert encoding_of(text.encode(encoding), True, encoding) == (encoding, False)


def test_a_damaged_letter_makes_no_other_encoding():
    assert encoding_of("Zoë Große Привет ".encode() + b"\xff", True, "auto") == ("utf-8", False)
    assert encoding_of("Zoë".encode()[:-1], False, "auto") == ("utf-8", False)


def test_a_file_without_a_header_has_the_names_that_are_given():
    source = Source(path="log", format="csv", domain="shop", names=["user_id", "item_id", "value", "event_time"])
    dialect = csv_dialect(b"196\t242\t3\t881250949\n", True, source, wanted(source, (c.USER_ID, c.ITEM_ID)))
    assert (dialect.separator, dialect.header, dialect.has_header) == ("\t", tuple(source.names), False)
    with pytest.raises(DataError, match="its first line has 2 fields, and names has 4"):
        csv_dialect(b"196,242\n", True, source, wanted(source, (c.USER_ID, c.ITEM_ID)))


@pytest.mark.parametrize(("head", "said"), [(b"PK\x03\x04", "zip"), (b"PAR1", "Parquet"), (b"\x1f\x8b\x08", "compressed.*.gz")])
def test_what_is_no_text_is_told(head: bytes, said: str):
    with pytest.raises(DataError, match=said):
        encoding_of(head, True, "auto")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_gives_the_header_its_columns(separator: str):
    head = separator.join(["ITEM_ID", '"a,b;c"', " user_id "]).encode() + b"\n1,2;3|4\t5"
    dialect = csv_dialect(head, True, SOURCE, COLUMNS)
    assert (dialect.separator, dialect.header, dialect.skip_blanks) == (separator, ("ITEM_ID", "a,b;c", "user_id"), False)


def test_blanks_after_separators_and_the_line_that_excel_writes():
    dialect = csv_dialect(b'sep=;\r\nuser_id; "item_id"\r\n', True, SOURCE, COLUMNS)
    assert (dialect.separator, dialect.header, dialect.skip_blanks, dialect.skip_lines) == (";", ("user_id", "item_id"), True, 1)


def test_a_name_that_stands_twice_is_told():
    with pytest.raises(DataError, match="'user_id' stands 2 times"):
        csv_dialect(b"user_id,item_id,user_id\n", True, SOURCE, COLUMNS)


@pytest.mark.parametrize(
    ("text", "form", "count"),
    [
        ('{"a": 1}\n{"a": 2}\n', "lines", 2),
        ('{broken\n{"a": 2}\n', "lines", 2),
        ('7\n{"a": 2}\n', "lines", 2),
        (json.dumps([{"a": 1}, {"a": 2}]), "values", 2),
        (json.dumps({"a": 1}, indent=2) + json.dumps({"a": 2}, indent=2), "values", 2),
    ],
)
def test_forms_of_json(text: str, form: str, count: int):
    dialect, values = json_dialect(text.encode(), True, SOURCE)
    assert (dialect.form, len(values)) == (form, count)


def test_a_first_object_that_the_head_does_not_hold_is_no_broken_line():
    assert json_dialect(b'{\n"a": [\n1,\n2\n],\n"b": {\n"c": 1', False, SOURCE)[0].form == "values"
