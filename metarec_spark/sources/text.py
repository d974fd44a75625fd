"""Open CSV and JSON files: Spark brings the bytes of whole files, decompressed, from anywhere; Python's csv and json read them.

Spark's own readers of CSV and JSON take one file's header for all, cannot say which rows are broken, and guess at quotes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.inputs import File, Source
from metarec_spark.errors import DataError
from metarec_spark.runtime.logs import log
from metarec_spark.sources.dialects import Dialect, csv_dialect, header_tree, json_dialect
from metarec_spark.sources.files import SourceFile, beside, heads, literal
from metarec_spark.sources.group import Group
from metarec_spark.sources.names import Tree, Wanted, check, find, merged
from metarec_spark.sources.problems import INSTANT, MODIFIED, PROBLEM
from metarec_spark.sources.records import LONGEST_LINE
from metarec_spark.sources.times import TimeReader
from metarec_spark.sources.worker import TextFile, read_text

_UNDIVIDED = str(1 << 40)
_BYTES_PER_TASK = 16 << 20
"""A task reads about as many: to start one that runs Python takes longer than to read a small file."""


def open_text(
    spark: SparkSession, source: File, columns: Sequence[Wanted], files: Sequence[SourceFile], where: str
) -> list[Group]:
    """Open CSV or JSON files.

    Raises
    ------
    DataError
        If a file is no text, is of another format, or lacks a column that it must have.

    Notes
    -----
    The driver reads the first 256 KB of each file. A task reads whole files, one after the other, and holds 10,000 rows; of
    JSON with a value in each line, it reads parts of files.
    """
    readable: dict[SourceFile, TextFile] = {}
    names: dict[str, Tree] = {}
    dialects: dict[Dialect, Dialect] = {}
    any_name = False
    for file, head in zip(files, heads(spark, files), strict=True):
        try:
            if not head.data.strip():
                continue
            if source.format == "csv":
                dialect = csv_dialect(head.data, head.whole, source, columns)
                tree = header_tree(dialect.header)
            else:
                dialect, values = json_dialect(head.data, head.whole, source)
                tree = _names_in(values, columns)
        except DataError as error:
            raise DataError(f"{file.path}: {error}") from None
        partitions = file.partitions
        any_name = any_name or bool(tree)
        names[file.path] = {**partitions, **tree}
        dialect = dialects.setdefault(dialect, dialect)
        size = None if head.compressed else file.size
        readable[file] = TextFile(dialect, partitions, size, file.modified)
    _log_dialects(readable, where)
    if source.format == "csv":
        check(columns, names, in_each=True)
    divided = {file: text for file, text in readable.items() if text.dialect.form == "lines" and "utf-8" in text.dialect.encoding}
    groups = []
    for part in (divided, {file: text for file, text in readable.items() if file not in divided}):
        if part:
            rows = _rows(spark, source, part, columns, whole=part is not divided)
            groups.append(Group(rows, next(iter(part)).path, "csv" if source.format == "csv" else "json"))
    if source.format == "json" and any_name:
        _check_json(spark, source, columns, names, readable)
    return groups


def _names_in(values: Sequence[object], columns: Sequence[Wanted]) -> Tree:
    objects = [value for value in values if isinstance(value, dict)]
    if values and not objects:
        raise DataError("holds no JSON objects; check path and format")
    tree = merged(objects)
    for column in columns:
        path = find(column, tree) or ()
        present = [value for value in (_at(path, one) for one in objects) if value is not None]
        nested = [value for value in present if isinstance(value, dict)]
        if path and nested and len(nested) == len(present):  # if not all are objects, the rows that have one are broken
            fields = ", ".join(f"{'.'.join(path)}.{name}" for name in merged(nested))
            raise DataError(f"column {'.'.join(path)!r} is an object; map {column.name} to one of {fields}")
    return tree


def _at(path: Sequence[str], value: object) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _check_json(
    spark: SparkSession,
    source: File,
    columns: Sequence[Wanted],
    names: dict[str, Tree],
    files: dict[SourceFile, TextFile],
) -> None:
    """Check that at least one object has each column that is needed; if no file begins with one, all are read."""
    tree = {next(iter(names)): merged(list(names.values()))}
    for column in columns:
        try:
            check([column], tree, in_each=False)
        except DataError as error:
            rows = _rows(spark, source, files, [replace(column, default=None)], whole=True)
            if rows.where(F.col(column.name).isNotNull()).isEmpty():
                raise error from None


def _log_dialects(files: dict[SourceFile, TextFile], where: str) -> None:
    guessed = [file.path for file, text in files.items() if text.dialect.guessed]
    if guessed:
        log.warning(
            "%s: %d files are not UTF-8 and are read as windows-1252, %s among them; set encoding if that is wrong",
            where,
            len(guessed),
            guessed[0],
        )
    dialects = Counter((text.dialect.form, text.dialect.encoding, text.dialect.separator) for text in files.values())
    for (form, encoding, separator), count in dialects.items():
        log.info("%s: %d files are %s, %s%s", where, count, form, encoding, f", separator {separator!r}" if form == "csv" else "")


def _rows(
    spark: SparkSession, source: File, files: dict[SourceFile, TextFile], columns: Sequence[Wanted], *, whole: bool
) -> DataFrame:
    session = _whole_files(spark) if whole else spark
    reader = session.read.option("lineSep", "\n").option("mapreduce.input.linerecordreader.line.maxlength", LONGEST_LINE)
    lines = reader.text([literal(file.path) for file in files]).select(F.col("value").cast("binary"), "_metadata.file_path")
    lines = lines.coalesce(max(1, sum(file.size for file in files) // _BYTES_PER_TASK))
    schema = [f"{c.FILE} string", f"{MODIFIED} timestamp", f"{PROBLEM} string"]
    schema += [f"{column.name} {'array<string>' if column.several else 'string'}" for column in columns]
    by_path = {file.path: text for file, text in files.items()}
    has_time = any(column.name == c.EVENT_TIME for column in columns)
    times = TimeReader.from_source(source) if has_time and isinstance(source, Source) else None
    schema += [f"{INSTANT} timestamp"] if times else []
    return lines.mapInArrow(partial(read_text, files=by_path, columns=tuple(columns), times=times), ", ".join(schema))


@cache
def _whole_files(spark: SparkSession) -> SparkSession:
    """Return a session whose tasks read whole files."""
    return beside(spark, {"spark.sql.files.maxPartitionBytes": _UNDIVIDED, "spark.sql.files.openCostInBytes": _UNDIVIDED})
