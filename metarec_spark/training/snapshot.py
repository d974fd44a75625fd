"""The training snapshot: pinned table versions as Parquet, in the shapes that ranks read.

``sequences`` and ``validation`` hold fixed-size arrays for Petastorm. ``items``, ``tokens`` and ``transitions`` hold what
every rank knows of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features import encoding
from metarec_spark.features.split import pairs, train_part
from metarec_spark.features.transitions import BACKWARD, FORWARD, SIMILARITY

SEQUENCES, VALIDATION, ITEMS, TOKENS, TRANSITIONS = "sequences", "validation", "items", "tokens", "transitions"
ROWS_PER_FILE = 50_000
SIGNALS = (FORWARD, BACKWARD, SIMILARITY)


def training_sequences(
    labelled: DataFrame, *, domains: Sequence[str], event_types: Sequence[str], items: int, max_length: int
) -> DataFrame:
    """(item_idx, domain, event_type, gap, length) of users with at least two training events.

    Parameters
    ----------
    labelled
        Rows of :func:`metarec_spark.features.split.held_out`.
    domains, event_types, items, max_length
        As :func:`metarec_spark.features.encoding.encoded` takes them.
    """
    known = {"domains": domains, "event_types": event_types, "items": items, "max_length": max_length}
    return encoding.encoded(train_part(labelled), **known).where(F.col(encoding.LENGTH) > 1)


def validation_pairs(
    labelled: DataFrame, most: int, *, domains: Sequence[str], event_types: Sequence[str], items: int, max_length: int
) -> DataFrame:
    """Contexts with ``target`` and ``target_domain``: at most ``most`` pairs a domain, the same ones for the same data."""
    known = {"domains": domains, "event_types": event_types, "items": items, "max_length": max_length}
    rows = encoding.encoded(pairs(labelled).where(F.col("split") == c.VALIDATION), **known)
    rows = rows.where((F.col(encoding.LENGTH) > 0) & F.col("target_domain").isin(list(domains)))
    by_hash = Window.partitionBy("target_domain").orderBy(F.xxhash64(c.USER_ID, "target_domain"), c.USER_ID)
    rows = rows.withColumn("place", F.row_number().over(by_hash)).where(F.col("place") <= most)
    rows = rows.withColumn("target_domain", encoding.position(domains, F.col("target_domain")))
    return rows.drop("split", "seen", "train_events", "place")


def spread(rows: DataFrame, files: int) -> DataFrame:
    """Deal rows to files by a hash of the user, in a fixed order: the same rows give the same files."""
    by_user = F.xxhash64(c.USER_ID)
    return rows.repartition(files, by_user).sortWithinPartitions(by_user, c.USER_ID).drop(c.USER_ID)


def catalogue_items(items: DataFrame, labelled: DataFrame, domains: Sequence[str]) -> DataFrame:
    """(item_idx, item_id, domain position, training events) of every item of the vocabulary."""
    trained = (
        train_part(labelled)
        .select(F.explode(c.ITEM_IDX).alias(c.ITEM_IDX))
        .groupBy(c.ITEM_IDX)
        .agg(F.count("*").alias("train_events"))
    )
    domain = encoding.position(domains, F.col(c.DOMAIN))
    rows = items.join(trained, c.ITEM_IDX, "left").na.fill(0, ["train_events"])
    return rows.select(c.ITEM_IDX, c.ITEM_ID, domain.alias(c.DOMAIN), "train_events")


def catalogue_tokens(content: DataFrame) -> DataFrame:
    """(item_idx, token hash, weight), a row a token."""
    token = F.explode(F.arrays_zip("tokens", "weights")).alias("token")
    return content.select(c.ITEM_IDX, token).select(
        c.ITEM_IDX, F.xxhash64("token.tokens").alias("token"), F.col("token.weights").alias("weight")
    )


def catalogue_transitions(transitions: DataFrame) -> DataFrame:
    """(item_idx, successor, forward, backward, similarity), a row a pair."""
    row = transitions.select(c.ITEM_IDX, F.explode("successors").alias("to"))
    return row.select(c.ITEM_IDX, F.col(f"to.{c.ITEM_IDX}").alias("successor"), *[f"to.{signal}" for signal in SIGNALS])
