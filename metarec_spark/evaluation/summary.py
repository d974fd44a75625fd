"""What the report shows beside the metrics: how scores are spread, and a few lists that a person can judge."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c

BINS, EXAMPLES = 40, 4


def histogram(ranked: DataFrame) -> dict[str, dict[str, list]]:
    """Domain → edges of ``BINS`` bins, and how many held-out items and how many top items h scored in each.

    Parameters
    ----------
    ranked
        Rows of :func:`metarec_spark.evaluation.ranks.rank`.
    """
    rows = _of_model(ranked).where(F.col("score").isNotNull())
    low, high = F.min(F.least("score", "best")).alias("low"), F.max(F.greatest("score", "best")).alias("high")
    range_of = {row[c.DOMAIN]: (row["low"], row["high"]) for row in rows.groupBy(c.DOMAIN).agg(low, high).toLocalIterator()}
    found = {
        domain: {"edges": [a + (b - a) * i / BINS for i in range(BINS + 1)], "targets": [0] * BINS, "best": [0] * BINS}
        for domain, (a, b) in sorted(range_of.items())
    }
    for name, column in (("targets", "score"), ("best", "best")):
        edges = F.create_map(
            *[F.lit(part) for domain, (a, b) in range_of.items() for part in (domain, F.array(F.lit(a), F.lit(b)))]
        )
        bucket = _bin(F.col(column), F.element_at(edges, F.col(c.DOMAIN))) if range_of else F.lit(0)
        for row in rows.groupBy(c.DOMAIN, bucket.alias("bin")).count().toLocalIterator():
            found[row[c.DOMAIN]][name][row["bin"]] += row["count"]
    return found


def _bin(value: Column, edges: Column) -> Column:
    width = F.greatest(edges[1] - edges[0], F.lit(1e-9))
    return F.least(F.floor((value - edges[0]) / width * BINS), F.lit(BINS - 1)).cast("int")


def examples(ranked: DataFrame, items: DataFrame, content: DataFrame, longest: int) -> list[dict[str, Any]]:
    """``EXAMPLES`` held-out events of each domain, the same ones for the same users: history, target, rank and list by name.

    Parameters
    ----------
    ranked
        Rows of :func:`metarec_spark.evaluation.ranks.rank`.
    items, content
        Tables ``items`` and ``item_content``: an item is called by its title, or by its id where it has none.
    longest
        Items of a list that are shown.
    """
    order = F.row_number().over(Window.partitionBy(c.DOMAIN).orderBy(F.xxhash64(c.USER_ID), c.USER_ID))
    few = _of_model(ranked).withColumn("place", order).where(F.col("place") <= EXAMPLES).orderBy(c.DOMAIN, "place")
    rows = [row.asDict() for row in few.toLocalIterator()]
    wanted = sorted({item for row in rows for item in (row["target"], *row["history"], *row["top"])})
    titled = items.join(content.select(c.ITEM_IDX, c.TITLE), c.ITEM_IDX, "left").where(F.col(c.ITEM_IDX).isin(wanted))
    name = F.coalesce(c.TITLE, c.ITEM_ID)
    names = {row[0]: row[1] for row in titled.select(c.ITEM_IDX, name).toLocalIterator()}
    return [
        {
            "domain": row[c.DOMAIN],
            "user_id": row[c.USER_ID],
            "history": [names.get(item, str(item)) for item in row["history"]],
            "target": names.get(row["target"], str(row["target"])),
            "rank": row["rank"],
            "items": [
                [names.get(item, str(item)), score, item == row["target"]]
                for item, score in zip(row["top"][:longest], row["top_scores"][:longest], strict=True)
            ],
        }
        for row in rows
    ]


def _of_model(ranked: DataFrame) -> DataFrame:
    return ranked.where((F.col("scorer") == c.MODEL) & (F.col("split") == c.TEST))
