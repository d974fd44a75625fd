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
from metarec_spark.sources.names import wanted
from metarec_spark.sources.opening import open_source
from metarec_spark.sources.problems import MODIFIED, PROBLEM
from metarec_spark.sources.values import INTEGERS, blank, several, something, wrong_type

CONFLICT = "conflict"
"""Column: whether rows say different things of an item."""
_POSITION = "position"
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
    for group in open_source(spark, source, columns, where):
        fields = {c.TITLE: _title(group, source, where), c.ATTRIBUTES: _attributes(group, source, where)}
        rows = rows.unionByName(keyed(group, source, where, {**fields, c.CONTENT: _vector(group, where)}))
    return usable(rows, where, strict=False).drop(c.FILE)


def _title(group: Group, source: ItemSource, where: str) -> Column:
    if not isinstance(group.types.get(c.TITLE, T.StringType()), (T.StringType, *INTEGERS)):
        raise wrong_type(group, where, c.TITLE, "text")
    title = something(group.get(c.TITLE).cast("string"), source.null_values)
    return F.when(~blank(title), F.udf(unescaped, "string", useArrow=True)(title))


def _attributes(group: Group, source: ItemSource, where: str) -> Column:
    texts = several(group, c.ATTRIBUTES, source.attribute_separator, where)
    texts = F.filter(texts, lambda text: ~blank(something(text, source.null_values)))
    texts = F.udf(lambda values: values and [unescaped(value) for value in values], "array<string>", useArrow=True)(texts)
    return F.when(F.size(texts) > 0, texts)


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
