"""Find out from a file's first bytes how its text is written: encoding, form of JSON, separator and header of CSV."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metarec_spark.errors import DataError
from metarec_spark.sources.names import Tree, Wanted, find
from metarec_spark.sources.records import json_lines, json_values

if TYPE_CHECKING:  # tasks import this file, and need no configuration
    from metarec_spark.config.inputs import File

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WESTERN = "cp1252"
_SIGNS = "“”„‘’‚«»‹›–—…•·°§©®™€£¥¢¿¡ºª²³¹½¼¾±×÷´`¨¸¬¦µ¶\xa0\xad"
_KINDS = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"PAR1": "Parquet", b"ORC": "ORC", b"Obj\x01": "Avro"}
_COMPRESSED = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\x28\xb5\x2f\xfd": ".zst", b"\xfd7zXZ": ".xz"}
_EXCEL = re.compile(r"\ufeff?sep=([,;\t|])\r?\n")
"""First line of CSV as Excel writes it."""
_LONG = 10_000


@dataclass(frozen=True)
class Dialect:
    """How the text of a file is written."""

    form: str
    """csv; lines: a JSON value in each line; values: JSON values over any number of lines, and arrays of them."""
    encoding: str
    guessed: bool = False
    """Whether the encoding was chosen because the bytes are not UTF-8 and look like it."""
    separator: str = ","
    skip_blanks: bool = False
    """Whether a blank follows each separator."""
    skip_lines: int = 0
    """Lines before the header."""
    header: tuple[str, ...] = ()
    """Names of the columns of CSV."""
    has_header: bool = True
    """Whether the first line of CSV has these names."""


def encoding_of(head: bytes, whole: bool, chosen: str) -> tuple[str, bool]:
    """Return the encoding of a text, and whether it is a guess.

    Parameters
    ----------
    head
        First bytes of the file.
    whole
        Whether they are all bytes of the file.
    chosen
        What the configuration says.

    Raises
    ------
    DataError
        If the bytes are no text, or in an encoding that cannot be told from others.
    """
    for start, kind in _KINDS.items():
        if head.startswith(start):
            raise DataError(f"is {kind}, not text; unpack it, or correct format")
    for start, ending in _COMPRESSED.items():
        if head.startswith(start):
            raise DataError(f"is compressed, but its name does not end with {ending}; rename it")
    if chosen != "auto":
        return chosen, False
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name, False
    zeros = head[::2].count(0), head[1::2].count(0)
    if max(zeros) > len(head) / 5 and min(zeros) < len(head) / 20:
        return ("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"), False
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head, final=whole)
    damaged, letters = text.count("\ufffd"), len(re.findall(r"[^\x00-\x7f\ufffd]", text))
    if damaged <= letters:
        return "utf-8", False
    runs = re.findall(r"[^\x00-\x7f]+", head.decode(_WESTERN, "replace"))
    written = all(letter.isalpha() or letter in _SIGNS for run in runs for letter in run)
    if written and not any(len(run) > 3 or (len(run) > 2 and run.isalpha()) for run in runs):
        return _WESTERN, True
    raise DataError("is not UTF-8; set encoding to what it is written in, such as 'cp1251', 'shift_jis' or 'gb18030'")


def csv_dialect(head: bytes, whole: bool, source: File, columns: Sequence[Wanted]) -> Dialect:
    """Return the dialect of a CSV file: of the separators, the one that gives its header most of the columns, or, where the names
    are given, the one that gives its first line most fields.

    Raises
    ------
    DataError
        As :func:`encoding_of`, or if a name that is needed stands twice in the header.
    """
    encoding, guessed = encoding_of(head, whole, source.encoding)
    text = head.decode(encoding, "replace")
    excel = _EXCEL.match(text)
    candidates = [source.separator] if source.separator != "auto" else [excel[1]] if excel else [",", ";", "\t", "|"]
    dialects = []
    for separator in candidates:
        lines = io.StringIO(text[excel.end() :] if excel else text, newline="")
        first = next((row for row in csv.reader(lines, delimiter=separator) if any(name.strip("\ufeff ") for name in row)), [])
        header = tuple(name.strip("\ufeff \t") for name in first)
        blanks = len(first) > 1 and all(name.startswith(" ") for name in first[1:])
        if blanks:
            lines.seek(0)
            first = next(row for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if any(row))
            header = tuple(name.strip("\ufeff \t") for name in first)
        fields, header = len(header), tuple(source.names) or header
        matches = sum(find(column, header_tree(header)) is not None for column in columns)
        dialect = Dialect("csv", encoding, guessed, separator, blanks, int(excel is not None), header, not source.names)
        dialects.append((matches, fields, dialect))
    _, fields, best = max(dialects, key=lambda dialect: dialect[:2])
    if source.names and fields not in (0, len(source.names)):
        raise DataError(f"its first line has {fields} fields, and names has {len(source.names)}; name each of its columns")
    for column in columns:
        path = find(column, header_tree(best.header))
        if path and best.header.count(path[0]) > 1:
            raise DataError(f"column {path[0]!r} stands {best.header.count(path[0])} times in the header; rename all but one")
    return best


def header_tree(header: Sequence[str]) -> Tree:
    """Return the names of a header."""
    return dict.fromkeys(name for name in header if name)


def json_dialect(head: bytes, whole: bool, source: File) -> tuple[Dialect, list[object]]:
    """Return the dialect of a JSON file, and the values that its first bytes hold."""
    encoding, guessed = encoding_of(head, whole, source.encoding)
    text = head.decode(encoding, "replace").lstrip("\ufeff \t\r\n")
    lines = io.StringIO(text, newline="").readlines()
    if not whole and len(lines) > 1:
        lines.pop()  # it is cut
    if text.startswith("{"):
        # An object that fills its line, or a broken first line before others that are objects.
        filled = (any(json_lines(iter([line]))) for line in lines if line.startswith("{"))
        in_lines = len(lines[0]) > _LONG or any(json_lines(iter(lines[:1]))) or (_begins_broken(text) and any(filled))
    else:
        in_lines = not text.startswith("[")
    if in_lines:
        return Dialect("lines", encoding, guessed), list(json_lines(iter(lines)))
    return Dialect("values", encoding, guessed), list(_values(text, whole))


def _begins_broken(text: str) -> bool:
    try:
        return next(json_values(iter([text])), None) is None
    except DataError:
        return True


def _values(text: str, whole: bool) -> Iterator[object]:
    try:
        yield from json_values(iter([text]))
    except DataError:
        if whole:
            raise
