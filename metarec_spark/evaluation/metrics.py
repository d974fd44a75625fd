"""Ranking metrics for one relevant item, each defined once, as a Spark column of the target's rank.

With one relevant item, hit rate and recall are the same number, and the ideal DCG is 1. Definitions: Järvelin & Kekäläinen
(2002) for NDCG; Voorhees (1999) for MRR; AUC as the share of candidates that the target beats.
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

SEGMENTS = ("all", "first_time", "repeat", "few_events", "long_user", "cold_user", "cold_item")
"""all: pairs whose target a list may hold; the last four are parts of it. first_time, repeat: whether the user had an event with
the target before; repeat is no part of ``all`` if lists leave seen items out."""
KEY = ("split", "domain", "segment", "scorer")


def _hit(rank: Column, k: int) -> Column:
    return F.when(rank <= k, 1.0).otherwise(0.0)


AT_K: dict[str, Callable[[Column, int], Column]] = {
    "ndcg": lambda rank, k: F.when(rank <= k, 1.0 / F.log2(rank + 1.0)).otherwise(0.0),
    "hit_rate": _hit,
    "recall": _hit,
    "precision": lambda rank, k: _hit(rank, k) / k,
    "f1": lambda rank, k: 2 * _hit(rank, k) / (k + 1),
    "mrr": lambda rank, k: F.when(rank <= k, 1.0 / rank).otherwise(0.0),
}
"""Metrics with a cutoff: (rank from 1, k) → value of one pair."""
METRICS = (*AT_K, "coverage", "auc", "accuracy", "loss", "ndcg_lead", "ndcg_lead_error")
"""All metrics, in the order in which the report shows them."""
_STEPS = 1 << 32


def mean(value: Column) -> Column:
    """Return the mean of a column's values, each rounded to 2 ** -32; null if all are.

    Sums of integers are exact, so the mean does not depend on the order of the rows, and a repeated run writes the same table. A
    sum of 2 ** 31 or more is an error (of a metric: with as many pairs).
    """
    steps = F.rint(value * _STEPS).cast("long")
    return F.sum(steps) / F.lit(_STEPS) / F.count(steps)


def auc(rank: Column, candidates: Column) -> Column:
    """Return the share of the other candidates that rank behind the target; null if there is no other.

    A target that the list may not hold has a rank behind all candidates, and the share 0.
    """
    return F.when(candidates > 1, F.greatest(candidates - rank, F.lit(0)) / (candidates - 1))


def aggregate(ranks: DataFrame, catalogue: dict[str, int], cutoffs: list[int]) -> DataFrame:
    """Return (split, domain, segment, scorer, metric, k, value, users) from rows of :func:`metarec_spark.evaluation.ranks.rank`.

    ``ndcg_lead`` is the model's NDCG minus the scorer's, and ``ndcg_lead_error`` the standard error of this paired difference.

    Parameters
    ----------
    ranks
        One row per pair and scorer.
    catalogue
        Platform → number of its items.
    cutoffs
        List lengths k.
    """
    belongs = [F.when(F.col(name), name) for name in SEGMENTS]
    rows = ranks.withColumn("segment", F.explode(F.array_compact(F.array(*belongs))))
    rank = F.col("rank")
    means = {f"{name}@{k}": mean(metric(rank, k)) for name, metric in AT_K.items() for k in cutoffs}
    means |= {"auc@0": mean(auc(rank, F.col("candidates"))), "accuracy@0": mean(_hit(rank, 1)), "loss@0": mean(F.col("loss"))}
    for k in cutoffs:
        lead = AT_K["ndcg"](F.col("model_rank"), k) - AT_K["ndcg"](rank, k)
        variance = F.greatest(mean(lead * lead) - mean(lead) ** 2, F.lit(0.0))
        means |= {f"ndcg_lead@{k}": mean(lead)}
        means |= {f"ndcg_lead_error@{k}": F.when(F.count("*") > 1, F.sqrt(variance / (F.count("*") - 1)))}
    wide = rows.groupBy(*KEY).agg(F.count("*").alias("users"), *[value.alias(name) for name, value in means.items()])
    wide = wide.join(_coverage(rows, catalogue, cutoffs), list(KEY), "left")
    names = [*means, *(f"coverage@{k}" for k in cutoffs)]
    values = F.map_from_arrays(F.array(*[F.lit(name) for name in names]), F.array(*[F.col(f"`{name}`") for name in names]))
    long = wide.select(*KEY, "users", F.explode(values).alias("name", "value")).where(F.col("value").isNotNull())
    parts = F.split("name", "@")
    return long.select(*KEY, parts[0].alias("metric"), parts[1].cast("int").alias("k"), "value", "users")


def _coverage(rows: DataFrame, catalogue: dict[str, int], cutoffs: list[int]) -> DataFrame:
    """Return the share of a platform's items that are in any list of length k: a row per key, a column ``coverage@k`` each."""
    placed = rows.select(*KEY, F.posexplode(F.slice("top", 1, max(cutoffs))).alias("place", "item"))
    best = placed.groupBy(*KEY, "item").agg(F.min("place").alias("place"))
    size = F.element_at(F.create_map(*[F.lit(part) for pair in catalogue.items() for part in pair]), F.col("domain"))
    covered = [(F.count_if(F.col("place") < k) / size).alias(f"coverage@{k}") for k in cutoffs]
    return best.groupBy(*KEY).agg(*covered)
