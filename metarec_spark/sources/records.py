"""Split text into records with Python's own csv and json; what is no record is told apart and costs no other one."""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Iterator

from metarec_spark.errors import DataError

LONGEST_LINE = 16 << 20
"""Bytes of a line that is still read."""
_MOST_LINES = 500
"""Lines of one CSV record; one that goes on for longer has a quote that nobody closed."""
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")
_SEPARATORS = " \t\r\n,"
_EXACT = 2**53

csv.field_size_limit(LONGEST_LINE)


class Fraction(str):
    """A JSON number with a fraction or an exponent, as it was written."""

    __slots__ = ()


class _Lines:
    """Lines for a csv reader, which may be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines = lines
        self.again: deque[str] = deque()
        self.used: list[str] = []
        """Lines of the record that is being read."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.used) >= _MOST_LINES:
            raise csv.Error("a quote is not closed")
        line = self.again.popleft() if self.again else next(self.lines)
        self.used.append(line)
        return line


def csv_records(lines: Iterator[str], separator: str, skip_blanks: bool) -> Iterator[list[str] | None]:
    """Records of CSV as RFC 4180 defines them; None for a line that breaks its rules. Blank lines are none.

    Where quotes do not fit, the line is broken on which the record began; the next line begins a new record.
    """
    source = _Lines(lines)
    reader = csv.reader(source, delimiter=separator, skipinitialspace=skip_blanks, strict=True)
    while True:
        source.used.clear()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error:
            source.again.extendleft(reversed(source.used[1:]))
            yield None
            continue
        if len(record) > 1 or (record and record[0].strip()):
            yield record


def json_decoder() -> json.JSONDecoder:
    """A decoder that keeps fractions as they are written, takes NaN for nothing, and refuses a name that an object has twice."""
    return json.JSONDecoder(
        object_pairs_hook=_object, parse_float=Fraction, parse_constant=lambda name: None if name == "NaN" else Fraction(name)
    )


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return fields


def json_lines(lines: Iterator[str]) -> Iterator[object]:
    """The value in each line, and of an array its values; None for a line that is no JSON. Blank lines are none."""
    decoder = json_decoder()
    for line in lines:
        text = line.strip(" \t\r\n\ufeff")
        if not text:
            continue
        try:
            value = decoder.decode(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            yield from value
        else:
            yield value


def json_values(pieces: Iterator[str]) -> Iterator[object]:
    """Values that follow each other in any number of lines; of the arrays around them, the values.

    Raises
    ------
    DataError
        At what is no JSON: where the next value begins cannot be known from there on.

    Notes
    -----
    Memory holds one value and one piece of text.
    """
    decoder, text, start, depth, passed = json_decoder(), "", 0, 0, 0
    piece: str | None = ""
    while True:
        while start < len(text) and (text[start] in "[]\ufeff" or text[start] in _SEPARATORS):
            depth += (text[start] == "[") - (text[start] == "]")
            start += 1
        try:
            if start == len(text) and piece is not None:
                raise ValueError("the text ends here")
            if start == len(text):
                break
            value, end = decoder.raw_decode(text, start)
            if end == len(text) and piece is not None and not isinstance(value, (dict, list)):
                raise ValueError("a number may go on")
        except (ValueError, RecursionError) as error:
            if piece is None:
                raise DataError(f"is no JSON from character {passed + start} on: {error}") from None
            piece = next(pieces, None)
            passed += start
            text, start = text[start:] + (piece or ""), 0
            continue
        yield value
        start = end
    if depth > 0:
        raise DataError("ends within an array: it was cut short")


def number_text(number: str) -> str | None:
    """Text of a JSON number as an id: whole numbers lose their fraction; None if it is no whole number or has lost digits."""
    match = _NUMBER.fullmatch(number)
    if not match:
        return None
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", int(match[4] or 0)
    if abs(exponent) > 20:
        return None
    digits = whole + fraction
    point = len(whole) + exponent
    if point < 0 or digits[max(point, 0) :].strip("0"):
        return None
    value = int(digits[:point].ljust(point, "0") or "0")
    return None if value >= _EXACT else f"{sign if value else ''}{value}"
