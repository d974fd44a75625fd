"""Open a source and bring its columns to ours: names mapped, types checked, nothing judged yet."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from metarec_spark import columns as c
from metarec_spark.config.sections import Cap, File, ItemList, ItemSource, Source
from metarec_spark.errors import DataError
from metarec_spark.sources.files import file_of_row

ARRIVAL = "arrival"
TIME_TEXT = "time_text"
PROBLEM = "problem"
LONGEST = 1024
"""Characters of an id, a domain or an event type. Of longer ones, one character more is read, and the row is rejected."""
_LONGEST_LINE = 16 << 20
_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))
_CORRUPT = "_corrupt"
_INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_ID_TYPES = (T.StringType, *_INTEGERS)
_TIME_TYPES = (T.TimestampType, T.TimestampNTZType, T.DateType, T.StringType, *_INTEGERS)
_NUMBER_TYPES = (T.StringType, T.FloatType, T.DoubleType, T.DecimalType, *_INTEGERS)
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


def open_events(spark: SparkSession, source: Source, position: int, files: Sequence[str] | None = None) -> DataFrame:
    """Open one behaviour log: source, user_id, item_id, domain, event_type, event_time, time_text, value, arrival, file, problem.

    Ids, domains, event types and times that are too long are cut to one character more than may be.

    ``event_time`` is null if the time cannot be read; ``time_text`` is the time as it arrived, null if it arrived as
    ``event_time``. ``arrival`` is the day on which the row arrived, null if the source has no ``day_column``. ``file`` is the
    file that the row was read from, as :func:`metarec_spark.sources.files.list_files` spells it. ``problem`` is the reason why
    what stands in the file is no row, null if it is one.

    Parameters
    ----------
    position
        Index of the source in the configuration.
    files
        Files to read, as :func:`metarec_spark.sources.files.list_files` spells them; None: all files of the source. Of a Delta
        table, data files of its current version.

    Raises
    ------
    DataError
        Where the source cannot be opened, a needed column is missing, or a column has a type that cannot be used.
    """
    where = f"sources[{position}] {source.path}"
    frame = _open(spark, source, where, files)
    pick = _Picker(frame, source, where)
    user = pick.required(c.USER_ID, _ID_TYPES).cast("string")
    if source.user_namespace:
        user = F.when(~blank(user), F.concat(F.lit(f"{source.user_namespace}:"), user))
    time = pick.required(c.EVENT_TIME, _TIME_TYPES)
    time_type = frame.select(time).schema[0].dataType
    event_time, text = _timestamp(time, time_type, source.time_unit), time.cast("string")
    value = pick.optional(c.VALUE, _NUMBER_TYPES)
    value = pick.optional("rating", _NUMBER_TYPES) if value is None and c.VALUE not in source.columns else value
    event_type = pick.optional(c.EVENT_TYPE, _ID_TYPES)
    domain = F.lit(source.domain) if source.domain else pick.required(c.DOMAIN, _ID_TYPES).cast("string")
    arrival = pick.column(source.day_column) if source.day_column else F.lit(None)
    return frame.select(
        F.lit(f"{position}:{source.format}").alias(c.SOURCE),
        _cut(user).alias(c.USER_ID),
        _cut(pick.required(c.ITEM_ID, _ID_TYPES).cast("string")).alias(c.ITEM_ID),
        _cut(domain).alias(c.DOMAIN),
        (F.lit("event") if event_type is None else _cut(event_type.cast("string"))).alias(c.EVENT_TYPE),
        event_time.alias(c.EVENT_TIME),
        (F.when(event_time.isNull(), _cut(text)) if isinstance(time_type, T.TimestampType) else _cut(text)).alias(TIME_TEXT),
        (F.lit(None).cast("double") if value is None else value.try_cast("double")).alias(c.VALUE),
        arrival.cast("string").try_cast("date").alias(ARRIVAL),
        file_of_row().alias(c.FILE),
        F.lit(None).cast("string").alias(PROBLEM),
    )


def open_items(spark: SparkSession, source: ItemSource, position: int) -> DataFrame:
    """Open one item file as (domain, item_id, title, attributes, content), without rows that lack a key.

    Raises
    ------
    DataError
        As :func:`open_events`.
    """
    where = f"items[{position}] {source.path}"
    frame = _open(spark, source, where)
    pick = _Picker(frame, source, where)
    title = pick.optional(c.TITLE, (T.StringType,))
    attributes = pick.optional(c.ATTRIBUTES, (T.ArrayType,))
    content = pick.optional(c.CONTENT, (T.ArrayType,))
    domain = F.lit(source.domain) if source.domain else pick.required(c.DOMAIN, _ID_TYPES).cast("string")
    rows = frame.select(
        domain.alias(c.DOMAIN),
        pick.required(c.ITEM_ID, _ID_TYPES).cast("string").alias(c.ITEM_ID),
        (F.lit(None).cast("string") if title is None else title).alias(c.TITLE),
        (F.lit(None) if attributes is None else attributes).cast("array<string>").alias(c.ATTRIBUTES),
        (F.lit(None) if content is None else content).cast("array<float>").alias(c.CONTENT),
    )
    return _with_key(rows)


def open_list(spark: SparkSession, source: ItemList, where: str) -> DataFrame:
    """Open an allow or block list as (domain, item_id, listed), without rows that lack a key.

    ``listed`` is true where the file has no such column, and null where it cannot be read.

    Raises
    ------
    DataError
        As :func:`open_events`; ``where`` names the list.
    """
    frame = _open(spark, source, where)
    pick = _Picker(frame, source, where)
    listed = pick.optional(c.LISTED, (T.BooleanType, T.StringType, *_INTEGERS))
    # Through text: a number that is neither 1 nor 0 is not true.
    said = F.lit(True) if listed is None else listed.cast("string").try_cast("boolean")
    return _of_items(frame, pick, source, said.alias(c.LISTED))


def open_groups(spark: SparkSession, source: Cap, where: str) -> DataFrame:
    """Open the groups of a cap as (domain, item_id, group), a row for each item in a group; otherwise as :func:`open_list`."""
    frame = _open(spark, source, where)
    pick = _Picker(frame, source, where)
    group = pick.required(c.GROUP, (*_ID_TYPES, T.ArrayType))
    several = isinstance(frame.select(group).schema[0].dataType, T.ArrayType)
    groups = group.cast("array<string>") if several else F.array(group.cast("string"))
    rows = _of_items(frame, pick, source, F.explode(groups).alias(c.GROUP))
    return rows.where(~blank(F.col(c.GROUP))).distinct()


def _of_items(frame: DataFrame, pick: _Picker, source: File, said: Column) -> DataFrame:
    domain = F.lit(source.domain) if source.domain else pick.required(c.DOMAIN, _ID_TYPES).cast("string")
    item = pick.required(c.ITEM_ID, _ID_TYPES).cast("string")
    return _with_key(frame.select(domain.alias(c.DOMAIN), item.alias(c.ITEM_ID), said))


def _with_key(rows: DataFrame) -> DataFrame:
    usable = [~blank(F.col(name)) & (F.length(name) <= LONGEST) for name in (c.DOMAIN, c.ITEM_ID)]
    return rows.where(usable[0] & usable[1])


def blank(text: Column) -> Column:
    """Whether there is nothing but white space, or nothing at all."""
    return F.coalesce(F.ltrim(text, F.lit(_SPACE)) == "", F.lit(True))


def _cut(text: Column) -> Column:
    return F.substring(text, 1, LONGEST + 1)


class _Picker:
    """Finds mapped columns in a source, or explains why it cannot."""

    def __init__(self, frame: DataFrame, source: File, where: str) -> None:
        self.types = {field.name: field.dataType for field in frame.schema}
        self.mapping, self.where = source.columns, where

    def required(self, name: str, types: tuple[type[T.DataType], ...]) -> Column:
        found = self.optional(name, types)
        if found is None:
            close = difflib.get_close_matches(name, self.types, n=1)
            hint = (
                f"; did you mean columns = {{ {name} = {close[0]!r} }}?" if close else f'; map it: columns = {{ {name} = "…" }}'
            )
            raise DataError(f"{self.where}: no column {name!r} among {', '.join(self.types)}{hint}")
        return found

    def optional(self, name: str, types: tuple[type[T.DataType], ...]) -> Column | None:
        theirs = self.mapping.get(name, name)
        if theirs not in self.types:
            if name in self.mapping:
                self.column(theirs)
            return None
        if not isinstance(self.types[theirs], types):
            usable = ", ".join(kind.typeName() for kind in types)
            got = self.types[theirs].simpleString()
            raise DataError(
                f"{self.where}: column {theirs!r} is {got}; {name} must be one of {usable}: map another column or convert it"
            )
        return self.column(theirs)

    def column(self, theirs: str) -> Column:
        if theirs not in self.types:
            raise DataError(f"{self.where}: no column {theirs!r} among {', '.join(self.types)}")
        return F.col("`" + theirs.replace("`", "``") + "`")


def _open(spark: SparkSession, source: File, where: str, files: Sequence[str] | None = None) -> DataFrame:
    paths = [source.path] if files is None else list(files)
    try:
        if source.format == "delta":
            rows = spark.read.format("delta").load(source.path)
            return rows if files is None else rows.where(file_of_row().isin(paths))
        if source.format == "json":
            return _open_json(spark, paths)
        if source.format == "csv":
            return _lines(spark).csv(paths, header=True, inferSchema=False)
        return spark.read.format(source.format).load(paths)
    except AnalysisException as error:
        known = {
            "PATH_NOT_FOUND": "no such file or folder",
            "UNABLE_TO_INFER_SCHEMA": f"no {source.format} data in it",
            "DELTA_TABLE_NOT_FOUND": "no Delta table there",
        }
        reason = known.get(error.getCondition() or "", str(error).splitlines()[0])
        raise DataError(f"{where}: cannot be read as {source.format}: {reason}; check path and format") from None


def _lines(spark: SparkSession) -> DataFrameReader:
    """A reader of text that passes over longer lines than anybody writes: a compressed file may hold one of any length."""
    return spark.read.option("mapreduce.input.linerecordreader.line.maxlength", _LONGEST_LINE)


def _open_json(spark: SparkSession, path: list[str]) -> DataFrame:
    """Read JSON lines with the columns of the first thousand, scalars as text, so that one odd row changes no type."""
    sample = spark.read.json(_lines(spark).text(path).limit(1000).rdd.map(lambda row: row[0]), columnNameOfCorruptRecord=_CORRUPT)
    kept = [field for field in sample.schema if field.name != _CORRUPT]
    if not kept:
        raise AnalysisException(message="no JSON objects in it")
    as_text = [
        T.StructField(f.name, f.dataType if isinstance(f.dataType, (T.ArrayType, T.StructType)) else T.StringType()) for f in kept
    ]
    return _lines(spark).json(path, schema=T.StructType(as_text))


def _counted(number: Column, unit: str) -> Column:
    """A time from its count of units since 1970."""
    per_second = _PER_SECOND[unit]
    in_reach = F.when(number.between(0, _LAST_SECOND * per_second), number.cast("bigint"))
    return F.timestamp_micros(in_reach * F.lit(1_000_000 // per_second).cast("bigint"))


def _timestamp(time: Column, kind: T.DataType, unit: str) -> Column:
    """Read a time as UTC; null where it is no time from 1970 to 9999."""
    if isinstance(kind, _INTEGERS):
        parsed = _counted(time, unit)
    elif isinstance(kind, T.StringType):
        # JSON and CSV give numbers as text; fewer digits are a year, or a day such as 20240110, which is not guessed at.
        number = F.when(time.rlike(r"^\d{9,}$"), time).try_cast("bigint")
        parsed = F.coalesce(F.try_to_timestamp(time), _counted(number, unit))
    else:
        parsed = time.cast("timestamp")
    return F.when(parsed >= F.lit("1970-01-01").cast("timestamp"), parsed)
