"""The people that a request to forget names: ids on the command line, or in a file of ids or of CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metarec_spark import columns as c
from metarec_spark.errors import ConfigError

_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Person:
    """Somebody who is named."""

    where: str
    """The option, or the line of the file."""
    readings: tuple[str, ...]
    """The id as it stands, and as a log's reader could have stored it: the first that the tables hold is meant."""


def people(given: Sequence[str], file: Path | None) -> list[Person]:
    """People that were given, and those of a file: one id a line, or a CSV with the column ``user_id``.

    Raises
    ------
    ConfigError
        If there is none, the file cannot be read, or an id is blank or no text.
    """
    named = [Person(f"--user {number}", _readings(user)) for number, user in enumerate(given, 1)]
    if file:
        try:
            text = file.read_bytes().decode("utf-8-sig")
            named += _of_table(text) or _of_lines(text)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            expected = f"give a UTF-8 file with one user id a line, or a CSV with a column {c.USER_ID}"
            raise ConfigError(f"--users {file}: cannot be read: {error}; {expected}") from None
    if not named:
        raise ConfigError("nobody is named; give --user ID, any number of times, or --users FILE with one id a line")
    for person in named:
        if not person.readings or any("\ud800" <= letter <= "\udfff" for letter in person.readings[0]):
            raise ConfigError(f"{person.where}: the user id is blank or not UTF-8; no table holds such an id")
    return named


def _readings(*texts: str) -> tuple[str, ...]:
    """Each text as it stands, without white space around it, and without the decimals of a whole number; blank ones left out."""
    forms = [form for text in texts for form in (text, text.strip(), re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip()))]
    return tuple(dict.fromkeys(form for form in forms if form.strip()))


def _of_table(text: str) -> list[Person]:
    """Rows of a CSV whose header names the column ``user_id``; none if there is no such header."""
    header = text.partition("\n")[0]
    for delimiter in _DELIMITERS:
        names = [name.strip().lower() for name in next(csv.reader([header.strip("\r")], delimiter=delimiter), [])]
        if c.USER_ID in names:
            rows = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
            next(rows)
            return list(_cells(rows, names.index(c.USER_ID)))
    return []


def _cells(rows: Iterator[list[str]], column: int) -> Iterator[Person]:
    for row in rows:
        if row:
            yield Person(f"line {rows.line_num}", _readings(row[column] if column < len(row) else ""))  # type: ignore[attr-defined]


def _of_lines(text: str) -> list[Person]:
    """One id a line; of a quoted line, what is in the quotes, too."""
    named = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line:
            cells = next(csv.reader([line]), []) if line.lstrip().startswith('"') else []
            named.append(Person(f"line {number}", _readings(line, *(cells if len(cells) == 1 else []))))
    return named
