"""Item-to-item transitions: which items follow, precede or resemble which, within and across domains; top-k per item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Transitions
from metarec_spark.features.behaviour import NO_CONTEXT, ContextTypes
from metarec_spark.features.neighbours import EVENTS, TOKENS, WEIGHTS, items
from metarec_spark.features.split import unless_context
from metarec_spark.features.windows import WINDOWS, windows
from metarec_spark.warehouse.contracts import contract

_AROUND = "around"


def transitions(
    sequences: DataFrame, content: DataFrame, settings: Transitions, folder: str, context_types: ContextTypes = NO_CONTEXT
) -> DataFrame:
    """Rows of ``item_transitions`` from training sequences and item content.

    Each pair (item, successor) has three signals, stored separately so that a model can weigh them again:

    - ``forward``: sum of distance ** -gap_decay, rounded to 2 ** -24, over the pairs of events at a distance of at most max_gap
      in which the successor comes later;
    - ``backward``: the same sum, over the pairs in which the successor comes earlier;
    - ``similarity``: scalar product of the weights of their content tokens, over tokens of at most ``common_items`` items.

    ``weight`` = (forward + backward setting · backward) / events(successor) ** popularity_damping / events(item) **
    source_damping + similarity setting · similarity. The table has the top ``successors`` of each item and domain of the
    successor; ties go to the smaller index.

    Parameters
    ----------
    sequences
        (user_id, item_idx, domain, …) arrays in time order.
    content
        (item_idx, domain, tokens, weights): table ``item_content``.
    folder
        URI of a folder for the items, which executors read; it must last until the rows are written.
    context_types
        An event that is context alone has successors, and is nobody's.

    Notes
    -----
    Shuffled bytes grow with events × max_gap: 4 for each pair and direction. Time also grows with content tokens × common_items.
    Every executor process holds all items: 100 bytes each, and 16 for each of their tokens. Windows are summed as they arrive, so
    memory does not grow with an item's events: beside the items there are an Arrow batch
    (``spark.sql.execution.arrow.maxBytesPerBatch``) and 16 MB of windows.
    """
    event = F.arrays_zip(F.col(c.ITEM_IDX).alias("i"), F.col(c.DOMAIN).alias("d"))
    counts = sequences.select(F.explode(event).alias("e")).groupBy("e.i", "e.d").agg(F.count("*").alias(EVENTS))
    _known_items(counts, content).coalesce(1).write.mode("overwrite").parquet(folder)
    known = sequences.sparkSession.read.parquet(folder)
    schema = f"{c.ITEM_IDX} int, {WINDOWS} binary"
    around = [F.transform(unless_context(c.ITEM_IDX, context_types), _or_none).alias(_AROUND)] if context_types else []
    around_events = sequences.select(c.ITEM_IDX, *around).mapInArrow(partial(_windows, max_gap=settings.max_gap), schema)
    # One empty row for each known item: an item without windows may still have similar items.
    all_items = around_events.unionByName(known.select(c.ITEM_IDX, F.lit("").cast("binary").alias(WINDOWS)))
    ordered = all_items.repartition(c.ITEM_IDX).sortWithinPartitions(c.ITEM_IDX)
    return ordered.mapInArrow(partial(_neighbours, folder=folder, settings=settings), contract(c.ITEM_TRANSITIONS).schema)


def _known_items(counts: DataFrame, content: DataFrame) -> DataFrame:
    """(item_idx, domain, events, tokens, weights), a row for each item with an event or with content; tokens are hashes."""
    hashes = F.transform("tokens", lambda token: F.xxhash64(token)).alias(TOKENS)
    content = content.select(c.ITEM_IDX, F.col(c.DOMAIN).alias("content_domain"), hashes, F.col("weights").alias(WEIGHTS))
    rows = counts.withColumnsRenamed({"i": c.ITEM_IDX, "d": "event_domain"}).join(content, c.ITEM_IDX, "full")
    none = F.array()
    return rows.select(
        c.ITEM_IDX,
        F.coalesce("event_domain", "content_domain").alias(c.DOMAIN),
        EVENTS,
        F.coalesce(TOKENS, none.cast("array<bigint>")).alias(TOKENS),
        F.coalesce(WEIGHTS, none.cast("array<float>")).alias(WEIGHTS),
    )


def _or_none(item: Column) -> Column:
    """An item, or -1: none."""
    return F.coalesce(item, F.lit(-1))


def _windows(batches: Iterable[pa.RecordBatch], max_gap: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield from windows(batch[c.ITEM_IDX], max_gap, batch[_AROUND] if _AROUND in batch.schema.names else None)


def _neighbours(batches: Iterable[pa.RecordBatch], folder: str, settings: Transitions) -> Iterator[pa.RecordBatch]:
    with_rows = (batch for batch in batches if batch.num_rows)
    for first in with_rows:
        yield from items(folder, settings.common_items).neighbours(chain([first], with_rows), settings)
