"""The data of a model's report: what was measured, how scores are distributed, and a few lists that a person can judge."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.model.manifest import Epoch

BINS, EXAMPLES = 40, 4


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(_Part):
    """A row of ``metrics``, of the test split."""

    domain: str
    segment: str
    scorer: str
    metric: str
    k: int
    value: float
    users: int


class Histogram(_Part):
    """Scores of the held-out items and of the top items of the lists: n + 1 edges, n counts each."""

    edges: list[float]
    targets: list[int]
    top: list[int]


class ListedItem(_Part):
    name: str
    score: float
    held_out: bool


class Example(_Part):
    """A held-out event: the user's last events, the item that came next, and the list."""

    domain: str
    user_id: str
    history: list[str]
    """Newest last."""
    target: str
    rank: int
    """From 1."""
    items: list[ListedItem]


class Report(_Part):
    """What the page shows. Its texts may hold anything: they are escaped."""

    model_id: str
    ds: str
    """Logical day, YYYY-MM-DD."""
    status: str
    """approved or rejected."""
    reason: str
    facts: dict[str, str]
    """Sequences, items, epochs, code version and the like."""
    history: list[Epoch]
    domains: list[str]
    metrics: list[Metric]
    """Empty if nothing was held out."""
    parameters: dict[str, dict[str, float]]
    """Platform → tuned parameter → value."""
    histograms: dict[str, Histogram]
    examples: list[Example]


def histograms(ranked: DataFrame) -> dict[str, Histogram]:
    """Return, by platform, how many held-out items and how many top items the model scored in each of ``BINS`` bins.

    Parameters
    ----------
    ranked
        Rows of :func:`metarec_spark.evaluation.ranks.rank`.
    """
    rows = _rows_of_model(ranked).where(F.col("score").isNotNull())
    low, high = F.min(F.least("score", "best")).alias("low"), F.max(F.greatest("score", "best")).alias("high")
    range_of = {row[c.DOMAIN]: (row["low"], row["high"]) for row in rows.groupBy(c.DOMAIN).agg(low, high).toLocalIterator()}
    if not range_of:
        return {}
    ends = F.create_map(*[F.lit(part) for domain, (a, b) in range_of.items() for part in (domain, F.array(F.lit(a), F.lit(b)))])
    counts = {domain: ([0] * BINS, [0] * BINS) for domain in sorted(range_of)}
    for n, column in enumerate(("score", "best")):
        bin_index = _bin(F.col(column), F.element_at(ends, F.col(c.DOMAIN)))
        for domain, number, count in rows.groupBy(c.DOMAIN, bin_index.alias("bin")).count().toLocalIterator():
            counts[domain][n][number] = count
    return {
        domain: Histogram(edges=[a + (b - a) * n / BINS for n in range(BINS + 1)], targets=targets, top=top)
        for domain, (targets, top) in counts.items()
        for a, b in [range_of[domain]]
    }


def _bin(value: Column, ends: Column) -> Column:
    width = F.greatest(ends[1] - ends[0], F.lit(1e-9))
    return F.least(F.floor((value - ends[0]) / width * BINS), F.lit(BINS - 1)).cast("int")


def examples(ranked: DataFrame, items: DataFrame, content: DataFrame, longest: int) -> list[Example]:
    """Return ``EXAMPLES`` held-out events of each platform, the same ones for the same users.

    Parameters
    ----------
    ranked
        Rows of :func:`metarec_spark.evaluation.ranks.rank`.
    items, content
        Tables ``items`` and ``item_content``: an item is called by its title, or by its id if it has none.
    longest
        Items of a list that are shown.
    """
    order = F.row_number().over(Window.partitionBy(c.DOMAIN).orderBy(F.xxhash64(c.USER_ID), c.USER_ID))
    few = _rows_of_model(ranked).withColumn("place", order).where(F.col("place") <= EXAMPLES).orderBy(c.DOMAIN, "place")
    rows = [row.asDict() for row in few.toLocalIterator()]
    wanted = sorted({item for row in rows for item in (row["target"], *row["history"], *row["top"])})
    titled = items.join(content.select(c.ITEM_IDX, c.TITLE), c.ITEM_IDX, "left").where(F.col(c.ITEM_IDX).isin(wanted))
    named = titled.select(c.ITEM_IDX, F.coalesce(c.TITLE, c.ITEM_ID))
    names = {row[0]: row[1] for row in named.toLocalIterator()}

    def name(item: int) -> str:
        return names.get(item, str(item))

    return [
        Example(
            domain=row[c.DOMAIN],
            user_id=row[c.USER_ID],
            history=[name(item) for item in row["history"]],
            target=name(row["target"]),
            rank=row["rank"],
            items=[
                ListedItem(name=name(item), score=score, held_out=item == row["target"])
                for item, score in list(zip(row["top"], row["top_scores"], strict=True))[:longest]
            ],
        )
        for row in rows
    ]


def _rows_of_model(ranked: DataFrame) -> DataFrame:
    return ranked.where(F.col("scorer") == c.MODEL)
