"""The item catalogue of a model: items, content tokens, content vectors and transitions, one DataFrame each.

Training writes all items beside a snapshot; scoring writes the items that are newer than the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features import encoding
from metarec_spark.features.behaviour import NO_CONTEXT, ContextTypes
from metarec_spark.features.neighbours import BACKWARD, FORWARD, SIMILARITY
from metarec_spark.features.split import train_part, unless_context

ITEMS, TOKENS, VECTORS, TRANSITIONS = "items", "tokens", "vectors", "transitions"
SIGNALS = (FORWARD, BACKWARD, SIMILARITY)


def catalogue_items(
    items: DataFrame, labelled: DataFrame, domains: Sequence[str], context_types: ContextTypes = NO_CONTEXT
) -> DataFrame:
    """(item_idx, item_id, domain, train_events) of every item; ``domain`` is its position in ``domains``.

    Events that are context alone do not count.
    """
    trained = (
        train_part(labelled)
        .select(F.explode(unless_context(c.ITEM_IDX, context_types)).alias(c.ITEM_IDX))
        .groupBy(c.ITEM_IDX)
        .agg(F.count("*").alias("train_events"))
    )
    domain = encoding.position(domains, F.col(c.DOMAIN))
    rows = items.join(trained, c.ITEM_IDX, "left").na.fill(0, ["train_events"])
    return rows.select(c.ITEM_IDX, c.ITEM_ID, domain.alias(c.DOMAIN), "train_events")


def catalogue_tokens(content: DataFrame) -> DataFrame:
    """(item_idx, token, weight), a row for each token of an item; ``token`` is its hash."""
    token = F.explode(F.arrays_zip("tokens", "weights")).alias("token")
    return content.select(c.ITEM_IDX, token).select(
        c.ITEM_IDX, F.xxhash64("token.tokens").alias("token"), F.col("token.weights").alias("weight")
    )


def catalogue_vectors(content: DataFrame) -> DataFrame:
    """(item_idx, vector) of the items that have a content vector."""
    return content.where(F.size("vector") > 0).select(c.ITEM_IDX, "vector")


def catalogue_transitions(transitions: DataFrame) -> DataFrame:
    """(item_idx, successor, forward, backward, similarity), a row for each pair of items."""
    row = transitions.select(c.ITEM_IDX, F.explode("successors").alias("to"))
    return row.select(c.ITEM_IDX, F.col(f"to.{c.ITEM_IDX}").alias("successor"), *[f"to.{signal}" for signal in SIGNALS])
