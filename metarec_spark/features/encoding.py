"""Encoding of sequences: the integer arrays that a model reads, oldest event first."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features.behaviour import ContextTypes, is_context

LENGTH = "length"
GAP = "gap"
ARRAYS = (c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, GAP)
GAP_BUCKETS = 32


def encoded(
    frame: DataFrame,
    *,
    domains: Sequence[str],
    event_types: Sequence[str],
    items: int,
    max_length: int,
    context_types: ContextTypes,
) -> DataFrame:
    """Replace the four sequence arrays by array<int> of at most ``max_length``, and add ``gap`` and ``length``.

    The newest ``max_length`` events with a known item are encoded. ``domain`` is a position in ``domains``; ``event_type`` is a
    position in ``event_types`` from 1, and 0 for any other type, inverted (``~``) for an event that is context alone. ``gap`` is
    0 for the first event, else 1 + floor(log2(1 + seconds since the event before)), at most 31. Other columns are unchanged.

    Parameters
    ----------
    frame
        Rows with item_idx, domain, event_type and event_time arrays of equal length.
    domains, event_types
        Known names, in the model's order.
    items
        Number of items that the model knows: their indexes are below it.
    max_length
        Longest sequence that the model reads, in events.
    context_types
        As ``features.context_types``.
    """
    event = F.arrays_zip(c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME)
    known = F.filter(event, lambda e: (e[c.ITEM_IDX] < items) & (e[c.DOMAIN].isin(list(domains))))
    newest = F.slice(known, F.greatest(F.lit(1), F.size(known) - max_length + 1), max_length)
    frame = frame.withColumn("event", newest).withColumn(LENGTH, F.size("event"))
    seconds = F.transform(f"event.{c.EVENT_TIME}", lambda time: F.unix_timestamp(time))
    frame = frame.withColumn("seconds", seconds)
    gap = F.transform("seconds", lambda s, i: F.when(i == 0, 0).otherwise(_bucket(s - F.get("seconds", i - 1))))
    arrays = {
        c.ITEM_IDX: F.col(f"event.{c.ITEM_IDX}").cast("array<int>"),
        c.DOMAIN: F.transform(f"event.{c.DOMAIN}", lambda name: position(domains, name)),
        c.EVENT_TYPE: F.transform("event", lambda e: _event_type(e, event_types, context_types)),
        GAP: gap,
    }
    return frame.withColumns(arrays).drop("event", "seconds", c.EVENT_TIME)


def _event_type(event: Column, event_types: Sequence[str], context_types: ContextTypes) -> Column:
    number = position(event_types, event[c.EVENT_TYPE]) + 1
    return F.when(is_context(context_types, event.getField), F.bitwise_not(number)).otherwise(number) if context_types else number


def padded(frame: DataFrame, max_length: int) -> DataFrame:
    """Pad the arrays with 0 at the end, to ``max_length``."""
    fill = F.array_repeat(F.lit(0), F.lit(max_length) - F.col(LENGTH))
    return frame.withColumns({name: F.concat(name, fill) for name in ARRAYS})


def _bucket(seconds: Column) -> Column:
    return F.least(F.lit(GAP_BUCKETS - 1), 1 + F.floor(F.log2(1 + F.greatest(seconds, F.lit(0))))).cast("int")


def position(names: Sequence[str], name: Column) -> Column:
    """Position of a name in a list, from 0; -1 if the list does not have it."""
    return (F.array_position(F.array(*[F.lit(known) for known in names]).cast("array<string>"), name) - 1).cast("int")
