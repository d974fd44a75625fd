"""Item transitions: which items follow, precede or resemble which, within and across domains, as sparse successors per item."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Transitions
from metarec_spark.features.neighbours import EVENTS, TOKENS, WEIGHTS, items
from metarec_spark.features.windows import NEAR, windows
from metarec_spark.warehouse.contracts import contract


def transitions(sequences: DataFrame, content: DataFrame, settings: Transitions, folder: str) -> DataFrame:
    """Rows of ``item_transitions`` from training sequences and item content.

    Of an item and a successor, three signals are kept as they are, so that they can be weighed anew later:

    - ``forward``: the sum of distance ** -gap_decay, rounded to 2 ** -24, over the pairs of events, at a distance of at most
      max_gap, in which the successor comes later;
    - ``backward``: the same where it comes earlier;
    - ``similarity``: the scalar product of their content tokens' weights, over tokens of at most ``common_items`` items.

    ``weight`` joins them: (forward + backward setting · backward) / events(successor) ** popularity_damping / events(item) **
    source_damping + similarity setting · similarity. The ``successors`` heaviest per item and domain of the successor are kept;
    ties go to the smaller index.

    Parameters
    ----------
    sequences
        (user_id, item_idx, domain, …) arrays in time order.
    content
        (item_idx, domain, tokens, weights): table ``item_content``.
    folder
        Where what is known of the items is written for the executors; it must last until the rows are written.

    Notes
    -----
    Shuffled bytes grow with events × max_gap, 4 for each pair and each way; time also with content tokens × common_items. Every
    executor process holds what is known of all items: 100 bytes each, and 16 for each of their tokens. What stands near an item
    is summed as it comes, so memory does not grow with an item's events: beside the items there are an Arrow batch
    (``spark.sql.execution.arrow.maxBytesPerBatch``) and 16 MB of windows.
    """
    event = F.arrays_zip(F.col(c.ITEM_IDX).alias("i"), F.col(c.DOMAIN).alias("d"))
    counts = sequences.select(F.explode(event).alias("e")).groupBy("e.i", "e.d").agg(F.count("*").alias(EVENTS))
    known, file = _sent(_known(counts, content), folder)
    near = sequences.select(c.ITEM_IDX).mapInArrow(partial(_near, max_gap=settings.max_gap), f"{c.ITEM_IDX} int, {NEAR} binary")
    # A row for each known item, since some resemble others and stand near none.
    asked = near.unionByName(known.select(c.ITEM_IDX, F.lit("").cast("binary").alias(NEAR)))
    ordered = asked.repartition(c.ITEM_IDX).sortWithinPartitions(c.ITEM_IDX)
    return ordered.mapInArrow(partial(_successors, file=file, settings=settings), contract(c.ITEM_TRANSITIONS).schema)


def _known(counts: DataFrame, content: DataFrame) -> DataFrame:
    """(item_idx, domain, events, tokens, weights), a row for each item with an event or with content; tokens are hashes."""
    hashes = F.transform("tokens", lambda token: F.xxhash64(token)).alias(TOKENS)
    content = content.select(c.ITEM_IDX, F.col(c.DOMAIN).alias("named"), hashes, F.col("weights").alias(WEIGHTS))
    rows = counts.withColumnsRenamed({"i": c.ITEM_IDX, "d": "seen"}).join(content, c.ITEM_IDX, "full")
    none = F.array()
    return rows.select(
        *[c.ITEM_IDX, F.coalesce("seen", "named").alias(c.DOMAIN), EVENTS],
        F.coalesce(TOKENS, none.cast("array<bigint>")).alias(TOKENS),
        F.coalesce(WEIGHTS, none.cast("array<float>")).alias(WEIGHTS),
    )


def _sent(rows: DataFrame, folder: str) -> tuple[DataFrame, str]:
    """Write rows as one file, and have Spark send it to every executor: the rows, and the name that the file has there."""
    spark = rows.sparkSession
    rows.coalesce(1).write.mode("overwrite").parquet(folder)
    written = spark.read.parquet(folder)
    (file,) = written.inputFiles()
    spark.sparkContext.addFile(file)
    return written, file.rpartition("/")[2]


def _near(batches: Iterator[pa.RecordBatch], max_gap: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield from windows(batch[c.ITEM_IDX], max_gap)


def _successors(batches: Iterator[pa.RecordBatch], file: str, settings: Transitions) -> Iterator[pa.RecordBatch]:
    some = (batch for batch in batches if batch.num_rows)
    for first in some:
        yield from items(SparkFiles.get(file), settings.common_items).successors(chain([first], some), settings)
