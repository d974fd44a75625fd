"""Held-out pairs as a model takes them."""

from __future__ import annotations

import math

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features.encoding import encoded, position
from metarec_spark.model.manifest import Manifest

PAIRS_PER_TASK = 5_000


def encoded_pairs(rows: DataFrame, manifest: Manifest) -> DataFrame:
    """Return pairs of platforms that the model knows, encoded, and distributed over tasks by user."""
    frame = encoded(
        rows,
        domains=manifest.domains,
        event_types=manifest.event_types,
        items=manifest.items,
        max_length=manifest.max_length,
        context_types=manifest.features.context_types,
    )
    frame = frame.withColumn("target_position", position(manifest.domains, F.col("target_domain")))
    tasks = max(frame.sparkSession.sparkContext.defaultParallelism, math.ceil(manifest.sequences / PAIRS_PER_TASK))
    return frame.where(F.col("target_domain").isin(manifest.serves)).repartition(tasks, c.USER_ID)
