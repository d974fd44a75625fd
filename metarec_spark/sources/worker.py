"""Read the text of files in a Spark task: bytes → text → records → Arrow columns with our names. No Spark here."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.sources.dialects import Dialect, header_tree
from metarec_spark.sources.names import DAY, Wanted, find
from metarec_spark.sources.problems import BAD_ID, BAD_ROW, INSTANT, MODIFIED, PROBLEM
from metarec_spark.sources.records import Fraction, csv_records, json_decoder, json_lines, json_values, number_text
from metarec_spark.sources.times import TimeReader

_ROWS = 10_000
"""Rows that are held at a time."""
_PIECE = 1 << 16
_MOST_SHAPES = 1_000
_BARE = 4
"""Bytes of a file that its lines need not hold: a byte order mark and the last line end."""
Columns = tuple[Sequence[str | None], Sequence[Sequence[object]]]
"""The problem of each row, and the values of each column."""


@dataclass(frozen=True)
class TextFile:
    """What the driver knows of a file that a task reads."""

    dialect: Dialect
    partitions: Mapping[str, str | None]
    """Names and values of the folders ``name=value`` that it is in."""
    size: int | None
    """Bytes; None if it is compressed."""
    modified: datetime


def read_text(
    batches: Iterator[pa.RecordBatch],
    files: Mapping[str, TextFile],
    columns: tuple[Wanted, ...],
    times: TimeReader | None = None,
) -> Iterator[pa.RecordBatch]:
    """Return the rows of files: file, modified, problem, the columns as text, and the event time as an instant.

    Parameters
    ----------
    batches
        (bytes of a line without its end, path), the lines of a file in their order, and nothing between them.
    files
        By their paths.
    times
        Reader of event times; without one, rows have no instant.

    Raises
    ------
    DataError
        If a file cannot be read on.
    """
    for path, pieces in groupby(_pieces(batches), key=itemgetter(0)):
        file = files[path]
        encoding = file.dialect.encoding
        stream = _Bytes((data for _, data in pieces), wide="16" in encoding or "32" in encoding)
        text = io.TextIOWrapper(io.BufferedReader(stream), encoding, errors="replace", newline="")
        try:
            for problems, values in (_csv_columns if file.dialect.form == "csv" else _json_columns)(file, text, columns):
                yield _batch(path, file, problems, values, columns, times)
        except (DataError, UnicodeError) as error:
            raise DataError(f"{path}: {error}") from None
        if file.size is not None and file.dialect.form != "lines" and file.size - stream.count > _BARE:
            yield _batch(path, file, *_broken(1, file, columns), columns, times)  # a line was longer than any that is read


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes), the bytes of each file as they are in it but for a last line end."""
    last = None
    for batch in batches:
        lines, paths = batch.column(0), batch.column(1)
        changes = pc.indices_nonzero(pc.not_equal(paths[1:], paths[:-1])).to_pylist() if len(paths) > 1 else []
        starts = [0, *(change + 1 for change in changes)]
        for start, end in zip(starts, [*starts[1:], len(paths)], strict=True):
            if start == end:
                continue
            path = paths[start].as_py()
            data = b"\n".join(lines.slice(start, end - start).to_pylist())
            yield _spelled(path), data if path != last else b"\n" + data
            last = path


def _spelled(metadata_path: str) -> str:
    """Return a path in Spark's metadata, which is percent-encoded, as :class:`SourceFile` spells it."""
    return re.sub("^file:///", "file:/", unquote(metadata_path))


class _Bytes(io.RawIOBase):
    """A stream of the bytes that an iterator yields; ``wide`` if characters have several bytes."""

    def __init__(self, pieces: Iterable[bytes], wide: bool) -> None:
        self.pieces, self.left, self.count, self.wide = iter(pieces), b"", 0, wide

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self.left:
            piece = next(self.pieces, None)
            if piece is None and self.wide and self.count % 2:
                piece = b"\n"  # the last byte of the file, which was taken for a line end
            if piece is None:
                return 0
            self.left = piece
            self.count += len(piece)
        size = min(len(buffer), len(self.left))
        buffer[:size], self.left = self.left[:size], self.left[size:]
        return size


def _broken(count: int, file: TextFile, columns: tuple[Wanted, ...]) -> Columns:
    """Rows of which nothing can be read but the day of the folder that their file is in."""
    return [BAD_ROW] * count, [[_outside(column, file) if column.name == DAY else None] * count for column in columns]


def _batch(
    path: str,
    file: TextFile,
    problems: Sequence[str | None],
    values: Sequence[Sequence[object]],
    columns: tuple[Wanted, ...],
    times: TimeReader | None,
) -> pa.RecordBatch:
    count = len(problems)
    arrays = {
        c.FILE: pa.array([path] * count, pa.string()),
        MODIFIED: pa.array([file.modified] * count, pa.timestamp("us", "UTC")),
        PROBLEM: pa.array(problems, pa.string()),
    }
    for column, texts in zip(columns, values, strict=True):
        kind = pa.list_(pa.string()) if column.several else pa.string()
        try:
            arrays[column.name] = pa.array(texts, kind)
        except UnicodeEncodeError:  # JSON may name halves of a character
            arrays[column.name] = pa.array([_whole_characters(text) for text in texts], kind)
    if times:
        texts = cast("Sequence[str | None]", values[[column.name for column in columns].index(c.EVENT_TIME)])
        arrays[INSTANT] = pa.array(map(times, texts), pa.int64()).cast(pa.timestamp("us", "UTC"))
    return pa.RecordBatch.from_pydict(arrays)


def _whole_characters(value: object) -> object:
    if isinstance(value, list):
        return [_whole_characters(one) for one in value]
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def _csv_columns(file: TextFile, text: io.TextIOWrapper, columns: tuple[Wanted, ...]) -> Iterator[Columns]:
    """Yield columns of CSV. A record that has not as many fields as the header is broken: nobody can say which field is which."""
    dialect = file.dialect
    for _ in range(dialect.skip_lines):
        text.readline()
    records = csv_records(text, dialect.separator, dialect.skip_blanks)
    header = next(records, None) if dialect.has_header else [*dialect.header]
    if header is None:
        return
    names = [name.strip("\ufeff \t") for name in header]
    outside = [_outside(column, file) for column in columns]
    paths = [find(column, header_tree(names)) for column in columns]
    positions = [names.index(path[0]) if path else None for path in paths]
    while chunk := list(islice(records, _ROWS)):
        rows = [record for record in chunk if record is not None and len(record) == len(names) and record != header]
        if len(rows) < len(chunk):
            yield _broken(len(chunk) - len(rows), file, columns)
        if rows:
            fields = list(zip(*rows, strict=True))
            texts = [[value] * len(rows) if i is None else fields[i] for i, value in zip(positions, outside, strict=True)]
            values = [
                [_several(column, one) for one in column_texts] if column.several else column_texts
                for column, column_texts in zip(columns, texts, strict=True)
            ]
            yield [None] * len(rows), values


def _outside(column: Wanted, file: TextFile) -> str | None:
    """Value of a column where the file itself has none: of a folder, or the default."""
    path = find(column, file.partitions)
    return file.partitions[path[0]] if path else column.default


def _json_columns(file: TextFile, text: io.TextIOWrapper, columns: tuple[Wanted, ...]) -> Iterator[Columns]:
    """Yield columns of JSON. What is no object is broken, and so is an object with several names for one column."""
    records = json_lines(text) if file.dialect.form == "lines" else json_values(iter(lambda: text.read(_PIECE), ""))
    outside = [_outside(column, file) for column in columns]
    nested = any("." in spelling for column in columns for spelling in column.spellings)
    broken = [BAD_ROW, *(one[0] for one in _broken(1, file, columns)[1])]
    shapes: dict[tuple[str, ...], list[tuple[str, ...] | None]] = {}
    while chunk := list(islice(records, _ROWS)):
        rows = []
        for record in chunk:
            try:
                if not isinstance(record, dict):
                    raise DataError("is no object")
                shape = tuple(record)
                paths = None if nested else shapes.get(shape)
                if paths is None:
                    paths = [find(column, record) for column in columns]
                    if len(shapes) < _MOST_SHAPES:
                        shapes[shape] = paths
            except DataError:
                rows.append(broken)
            else:
                rows.append(_json_row(record, columns, paths, outside))
        problems, *values = zip(*rows, strict=True)
        yield problems, values


def _json_row(
    record: dict[str, object], columns: tuple[Wanted, ...], paths: list[tuple[str, ...] | None], outside: list[str | None]
) -> list[object]:
    row: list[object] = [None]
    for column, path, missing in zip(columns, paths, outside, strict=True):
        if path is None:
            row.append([missing] if column.several and missing is not None else missing)
            continue
        value: object = record
        for name in path:
            value = value[name]  # type: ignore[index]
        if type(value) is str or value is None:
            row.append(_several(column, value) if column.several else value)
        elif column.several:
            row.append(_flattened(column, value))
        elif isinstance(value, (dict, list)):
            row.append(None)
            row[0] = BAD_ROW
        elif isinstance(value, bool):
            row.append("true" if value else "false")
        elif column.is_id and isinstance(value, Fraction):
            row.append(number_text(value))
            if row[-1] is None:
                row[0] = BAD_ID
        else:
            row.append(str(value))
    return row


def _several(column: Wanted, text: object) -> list[str] | None:
    """Return the values that are given as one text: a JSON array, or texts between separators."""
    if not isinstance(text, str) or not text.strip():
        return None
    if column.separator is not None:
        return [part.strip() for part in text.split(column.separator) if part.strip()]
    try:
        value = json_decoder().decode(text.strip())
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list):
        return _flattened(column, value)
    if column.or_one:
        return [text]
    hint = "set attribute_separator to what separates them, or write" if column.name == c.ATTRIBUTES else "write"
    raise DataError(f"column {column.spellings[0]!r} holds the text {text[:50]!r}: {hint} a JSON array")


def _flattened(column: Wanted, value: object) -> list[str]:
    if isinstance(value, list):
        return [text for one in value for text in _flattened(column, one)]
    if isinstance(value, dict):
        raise DataError(
            f"column {column.spellings[0]!r} holds objects; {column.name} must be texts or numbers: map another column"
        )
    if value is None:
        return []
    if column.is_id and isinstance(value, Fraction):
        return [number_text(value) or value]
    return [("true" if value else "false") if isinstance(value, bool) else str(value)]
