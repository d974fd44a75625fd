"""Open item files, and join what several files and rows say of an item."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from metarec_spark import columns as c
from metarec_spark.config.inputs import ItemSource
from metarec_spark.sources.group import Group
from metarec_spark.sources.keyed import keyed, usable
from metarec_spark.sources.names import Wanted, wanted
from metarec_spark.sources.opening import open_source
from metarec_spark.sources.problems import MODIFIED, PROBLEM
from metarec_spark.sources.values import INTEGERS, blank, number, several, something, wrong_type

CONFLICT = "conflict"
"""Column: whether rows say different things of an item."""
_POSITION = "position"
_ATTRIBUTE, _NUMBER = "attribute", "number"
_FIELDS = (c.TITLE, c.ATTRIBUTES, c.CONTENT)
_SCHEMA = (
    f"{c.DOMAIN} string, {c.ITEM_ID} string, {c.TITLE} string, {c.ATTRIBUTES} array<string>, {c.CONTENT} array<float>, "
    f"{c.FILE} string, {MODIFIED} timestamp, {PROBLEM} string"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def open_items(spark: SparkSession, source: ItemSource, position: int) -> DataFrame:
    """Open one item file as (domain, item_id, title, attributes, content, modified), without rows that lack a key.

    HTML entities in titles and attributes become the characters that they stand for.

    Raises
    ------
    DataError
        As :func:`metarec_spark.sources.events.open_events`.
    """
    where = f"items[{position}] {source.path}"
    rows = spark.createDataFrame([], _SCHEMA)
    columns = wanted(source, (c.ITEM_ID, c.DOMAIN), _FIELDS, separator=source.attribute_separator)
    columns += [
        Wanted(ours, (name,), mapped=True, several=True, separator=source.attribute_separator, or_one=True)
        for ours, name in _more(_ATTRIBUTE, source.attribute_columns)
    ]
    columns += [Wanted(ours, (name,), mapped=True) for ours, name in _more(_NUMBER, source.number_columns)]
    for group in open_source(spark, source, columns, where):
        fields = {c.TITLE: _title(group, source, where), c.ATTRIBUTES: _attributes(group, source, where)}
        rows = rows.unionByName(keyed(group, source, where, {**fields, c.CONTENT: _vector(group, where)}))
    return usable(rows, where, strict=False).drop(c.FILE)


def _title(group: Group, source: ItemSource, where: str) -> Column:
    if not isinstance(group.types.get(c.TITLE, T.StringType()), (T.StringType, *INTEGERS)):
        raise wrong_type(group, where, c.TITLE, "text")
    title = something(group.get(c.TITLE).cast("string"), source.null_values)
    return F.when(~blank(title), F.udf(unescaped, "string", useArrow=True)(title))


def _more(kind: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return our name of each of some columns, and the files'."""
    return [(f"{kind}_{number}", name) for number, name in enumerate(names)]


def _attributes(group: Group, source: ItemSource, where: str) -> Column:
    def texts_of(column: str, *, one: bool) -> Column:
        values = several(group, column, source.attribute_separator, where, one=one)
        return F.filter(values, lambda text: ~blank(something(text, source.null_values)))

    texts = texts_of(c.ATTRIBUTES, one=False)
    named = [_named(name, texts_of(column, one=True)) for column, name in _more(_ATTRIBUTE, source.attribute_columns)]
    named += [_sizes(name, number(group, column, where)) for column, name in _more(_NUMBER, source.number_columns)]
    if named:
        none = F.array().cast("array<string>")
        texts = F.concat(*[F.coalesce(part, none) for part in (texts, *named)])
    texts = F.udf(lambda values: values and [unescaped(value) for value in values], "array<string>", useArrow=True)(texts)
    return F.when(F.size(texts) > 0, texts)


def _named(name: str, values: Column) -> Column:
    """Return the values of a column as attributes that no other column's values are equal to."""
    return F.transform(values, lambda value: F.concat(F.lit(f"{name}="), value))


def _sizes(name: str, value: Column) -> Column:
    """Return the two nearest half-octaves of a number as attributes: numbers of neighbouring ones share one of them."""
    steps = F.floor(2 * F.log2(F.abs(value)))
    sign = F.when(value < 0, "-").otherwise("")
    bins = [F.concat(F.lit(f"{name}~"), sign, F.lit("2^"), ((steps + more) / 2).cast("string")) for more in (0, 1)]
    usable = F.abs(value) < F.lit(float("inf"))  # Spark orders NaN above infinity
    return F.when(value == 0, F.array(F.lit(f"{name}~0"))).when(usable, F.array(*bins))


def _vector(group: Group, where: str) -> Column:
    kind = group.types.get(c.CONTENT)
    if isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.NumericType):
        vector = group.get(c.CONTENT).cast("array<float>")
    else:
        vector = F.transform(several(group, c.CONTENT, None, where), lambda number: number.try_cast("float"))
    return F.when(F.size(vector) > 0, vector)


def unescaped(text: str | None) -> str | None:
    """Return a text in which HTML entities are the characters that they stand for; an ampersand without a semicolon stays."""
    return text and _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def open_information(spark: SparkSession, items: Sequence[ItemSource]) -> DataFrame:
    """Return (domain, item_id, title, attributes, content, conflict), one row an item, from all item sources.

    Each field is of the first source that has it; within a source, of the row that has most fields, then of the newest file.
    """
    every = [open_items(spark, source, i).withColumn(_POSITION, F.lit(i)) for i, source in enumerate(items)]
    rows = reduce(DataFrame.unionByName, every)
    filled = sum((F.col(name).isNotNull().cast("int") for name in _FIELDS), F.lit(0))
    order = [F.col(_POSITION), (-filled).alias("fewer"), (-F.unix_micros(MODIFIED)).alias("older")]
    first = [F.min(F.when(F.col(name).isNotNull(), F.struct(*order, name)))[name].alias(name) for name in _FIELDS]
    differing = reduce(Column.__or__, [F.coalesce(F.min(name) != F.max(name), F.lit(False)) for name in _FIELDS])
    return rows.groupBy(c.DOMAIN, c.ITEM_ID).agg(*first, differing.alias(CONFLICT))
