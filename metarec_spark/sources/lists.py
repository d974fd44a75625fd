"""Open lists of items: allow and block lists, and the groups of caps. They must be whole: a row that cannot be read stops."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.inputs import Cap, ItemList
from metarec_spark.sources.keyed import keyed, usable
from metarec_spark.sources.names import wanted
from metarec_spark.sources.opening import open_source
from metarec_spark.sources.problems import MODIFIED, PROBLEM
from metarec_spark.sources.values import blank, several, something, truth

_KEY = f"{c.DOMAIN} string, {c.ITEM_ID} string"
_REST = f"{c.FILE} string, {MODIFIED} timestamp, {PROBLEM} string"


def open_list(spark: SparkSession, source: ItemList, where: str) -> DataFrame:
    """Open an allow or block list as (domain, item_id, listed), without rows that lack a key.

    ``listed`` is true if the file, or the JSON object, has no such column, and null if it cannot be read.

    Raises
    ------
    DataError
        As :func:`metarec_spark.sources.events.open_events`, and if a row cannot be read; ``where`` names the list.
    """
    rows = spark.createDataFrame([], f"{_KEY}, {c.LISTED} boolean, {_REST}")
    for group in open_source(spark, source, wanted(source, (c.ITEM_ID, c.DOMAIN), (c.LISTED,)), where):
        rows = rows.unionByName(keyed(group, source, where, {c.LISTED: truth(group, c.LISTED, where)}))
    return usable(rows, where, strict=True).select(c.DOMAIN, c.ITEM_ID, c.LISTED)


def open_groups(spark: SparkSession, source: Cap, where: str) -> DataFrame:
    """Open the groups of a cap as (domain, item_id, group), a row for each item in a group; otherwise as :func:`open_list`."""
    rows = spark.createDataFrame([], f"{_KEY}, {c.GROUP} array<string>, {_REST}")
    for group in open_source(spark, source, wanted(source, (c.ITEM_ID, c.DOMAIN, c.GROUP)), where):
        rows = rows.unionByName(keyed(group, source, where, {c.GROUP: several(group, c.GROUP, None, where, one=True)}))
    rows = usable(rows, where, strict=True).select(c.DOMAIN, c.ITEM_ID, F.explode(c.GROUP).alias(c.GROUP))
    return rows.where(~blank(something(F.col(c.GROUP), source.null_values))).distinct()
