"""Bring values to what they mean: ids as text, words for nothing, numbers, several values in a row, days."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from metarec_spark import columns as c
from metarec_spark.config.inputs import File
from metarec_spark.errors import DataError
from metarec_spark.sources.group import Group
from metarec_spark.sources.problems import BAD_DAY, BAD_ENCODING, BAD_ID, PROBLEM

LONGEST = 1024
"""Characters of an id, a domain or an event type. Of longer ones, one character more is read, and the row is rejected."""
INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_NUMBERS = (T.FloatType, T.DoubleType, T.DecimalType, *INTEGERS)
_ID_TYPES = (T.StringType, T.BinaryType, T.BooleanType, *_NUMBERS)
_EXACT = {T.FloatType: 2**24, T.DoubleType: 2**53}
"""Numbers below this are exact in a type."""
_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))
_WHOLE = r"^(-?(?:0|[1-9]\d*))\.0$"
_ROUNDED = r"^-?\d(?:\.\d+)?[eE]\+\d+$"
_NUMBER = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"
_DAY = r"^\s*(\d{4})[-/._]?(\d{2})[-/._]?(\d{2})(?:[T ].*|Z)?$"
_DAMAGED = "\ufffd"


def blank(text: Column) -> Column:
    """Return whether there is nothing but white space, or nothing at all."""
    return F.coalesce(F.ltrim(text, F.lit(_SPACE)) == "", F.lit(True))


def wrong_type(group: Group, where: str, name: str, usable: str) -> DataError:
    """Return the error for a column of a type that cannot be used."""
    name_in_file, got = group.spelled.get(name, name), group.types[name].simpleString()
    return DataError(
        f"{where}: {group.example}: column {name_in_file!r} is {got}; {name} must be {usable}: map another column or convert it"
    )


def platform(source: File) -> Column:
    """Return the platform of each row, by the name that the product knows it by."""
    name = F.lit(source.domain) if source.domain else F.col(c.DOMAIN)
    known = name
    for old, new in source.alias.items():
        known = F.when(name == old, new).otherwise(known)
    return known.alias(c.DOMAIN)


def something(text: Column, null_values: Sequence[str]) -> Column:
    """Return a text, null if it is a word for nothing."""
    words = sorted({word.lower() for word in null_values})
    return F.when(~F.lower(F.trim(text)).isin(words), text) if words else text


def with_ids(group: Group, names: Sequence[str], null_values: Sequence[str], where: str) -> Group:
    """Return a group whose columns of ids are text, with the problem of each row.

    Text stays as it stands, blanks and letter case included; words for nothing are null. Whole numbers lose their fraction, and
    so does a text of CSV, where nothing else says that 101.0 was a number. Longer texts than :data:`LONGEST` are cut to one
    character more.

    Raises
    ------
    DataError
        If a column is of a type that names nothing.
    """
    names = [name for name in names if name in group.types]
    texts, bad = {}, {}
    for name in names:
        text, bad[f"{name}_bad"] = _identity(group, name, null_values, where)
        texts[name] = F.substring(text, 1, LONGEST + 1)
    problems = [F.when(F.col(f"{name}_bad"), BAD_ID).when(F.contains(name, F.lit(_DAMAGED)), BAD_ENCODING) for name in names]
    rows = group.rows.withColumns({**texts, **bad}).withColumn(PROBLEM, F.coalesce(PROBLEM, *problems))
    ids = {name: F.when(~F.coalesce(f"{name}_bad", F.lit(False)), F.col(name)) for name in names}
    return replace(group, rows=rows.withColumns(ids).drop(*bad))


def _identity(group: Group, name: str, null_values: Sequence[str], where: str) -> tuple[Column, Column]:
    """Return a column as text, and whether a value is no id."""
    value, kind = group.get(name), group.types[name]
    if isinstance(kind, T.DecimalType):
        whole = F.floor(value).cast(T.DecimalType(38, 0)) if kind.scale else value
        return whole.cast("string"), whole != value
    if isinstance(kind, (T.FloatType, T.DoubleType)):
        exact = (F.abs(value) < F.lit(_EXACT[type(kind)])) & (F.floor(value) == value)
        return F.when(exact, value.cast("bigint")).cast("string"), ~exact & ~F.isnan(value)
    if isinstance(kind, (T.BooleanType, *INTEGERS)):
        return value.cast("string"), F.lit(False)
    if not isinstance(kind, (T.StringType, T.BinaryType)):
        raise wrong_type(group, where, name, "text or whole numbers")
    if group.kind == "typed":
        return something(F.make_valid_utf8(value.cast("string")), null_values), F.lit(False)
    if group.kind == "json":
        return something(value, null_values), F.lit(False)
    plain = F.when(F.endswith(value, F.lit(".0")), F.regexp_replace(value, _WHOLE, "$1")).otherwise(value)
    known = something(value, null_values)
    return F.when(known.isNotNull(), plain), F.rlike(value, F.lit(_ROUNDED))


def number(group: Group, name: str, where: str) -> Column:
    """Return a column as double, null if it is no number. A text may have a comma before one or two digits of its fraction."""
    value, kind = group.get(name), group.types.get(name, T.StringType())
    if isinstance(kind, T.StringType):
        value = F.regexp_replace(value, r"^(\s*[+-]?\d+),(\d\d?\s*)$", "$1.$2")
        return F.when(F.rlike(value, F.lit(_NUMBER)), value).try_cast("double")
    if not isinstance(kind, (T.BooleanType, *_NUMBERS)):
        raise wrong_type(group, where, name, "a number")
    return value.cast("double")


def truth(group: Group, name: str, where: str) -> Column:
    """Return a column as true or false, null if it is neither."""
    kind = group.types.get(name, T.StringType())
    if not isinstance(kind, (T.StringType, T.BooleanType, *_NUMBERS)):
        raise wrong_type(group, where, name, "true or false")
    # Through text: a number that is neither 1 nor 0 is not true.
    return F.regexp_replace(group.get(name).cast("string"), r"^([01])\.0+$", "$1").try_cast("boolean")


def several(group: Group, name: str, separator: str | None, where: str, *, one: bool = False) -> Column:
    """Return a column as array<string>: lists of lists are flattened, a text is divided by the separator.

    Parameters
    ----------
    one
        Whether a text without a separator is one value.

    Raises
    ------
    DataError
        If the column is no list, and it is not known how to divide it.
    """
    value, kind = group.get(name), group.types.get(name)
    if kind is None:
        return F.lit(None).cast("array<string>")
    if isinstance(kind, T.StringType) and separator is not None:
        parts = F.transform(F.split(value, re.escape(separator)), lambda part: F.trim(part))
        return F.filter(parts, lambda part: part != "")
    if one and isinstance(kind, _ID_TYPES):
        return F.array(_identity(group, name, (), where)[0])
    while isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.ArrayType):
        value, kind = F.flatten(F.filter(value, lambda part: part.isNotNull())), kind.elementType
    if not isinstance(kind, T.ArrayType) or not isinstance(kind.elementType, _ID_TYPES):
        hint = ", or a text with attribute_separator set to what separates them" if isinstance(kind, T.StringType) else ""
        raise wrong_type(group, where, name, f"a list of texts or numbers{hint}")
    return value.cast("array<string>")


def arrival(group: Group, name: str, where: str) -> tuple[Column, Column]:
    """Return a column as the day on which a row arrived, and the problem of each row, null if there is none."""
    kind = group.types.get(name, T.StringType())
    if not isinstance(kind, (T.StringType, T.DateType, T.TimestampType, T.TimestampNTZType, *INTEGERS)):
        raise wrong_type(group, where, name, "a day")
    text = group.get(name).cast("string")
    day = F.regexp_replace(F.when(F.rlike(text, F.lit(_DAY)), text), _DAY, "$1-$2-$3").try_cast("date")
    return day, F.when(day.isNull() & ~blank(text), BAD_DAY)
