"""Rows that describe items: each has a domain and an item id, and what has none is counted."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.inputs import File
from metarec_spark.errors import DataError
from metarec_spark.runtime.logs import log
from metarec_spark.sources.group import Group
from metarec_spark.sources.problems import MODIFIED, PROBLEM
from metarec_spark.sources.values import LONGEST, blank, platform, with_ids

NO_KEY = "no usable item_id or domain"


def keyed(group: Group, source: File, where: str, more: Mapping[str, Column]) -> DataFrame:
    """Return the rows of a group as (domain, item_id, …, file, modified, problem)."""
    rows = with_ids(group, (c.ITEM_ID, c.DOMAIN), source.null_values, where).rows
    rows = rows.select(
        platform(source), c.ITEM_ID, *(column.alias(name) for name, column in more.items()), c.FILE, MODIFIED, PROBLEM
    )
    lost = [blank(F.col(name)) | (F.length(name) > LONGEST) for name in (c.DOMAIN, c.ITEM_ID)]
    return rows.withColumn(PROBLEM, F.coalesce(PROBLEM, F.when(lost[0] | lost[1], NO_KEY)))


def usable(rows: DataFrame, where: str, *, strict: bool) -> DataFrame:
    """Return the rows without a problem, and log how many have one.

    Parameters
    ----------
    strict
        Whether a row that cannot be read is an error; rows that name no item never are.

    Raises
    ------
    DataError
        If a row cannot be read, with its file.

    Notes
    -----
    Reads the rows once; the driver holds a count for each file with a problem.
    """
    counts = rows.where(F.col(PROBLEM).isNotNull()).groupBy(c.FILE, PROBLEM).count().orderBy(c.FILE, PROBLEM).collect()
    for file, problem, count in counts:
        if strict and problem != NO_KEY:
            raise DataError(f"{where}: {file}: {count} rows cannot be read ({problem}); correct them: a list must be whole")
        log.warning("%s: %s: %d rows are passed over (%s)", where, file, count, problem)
    return rows.where(F.col(PROBLEM).isNull()).drop(PROBLEM)
