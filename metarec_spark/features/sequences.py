"""User sequences: each user's newest events over all domains, in time order, one row per user."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

SEEN = "seen_items"
ACTIVE_DOMAINS = "active_domains"
_ORDER = (c.EVENT_TIME, c.ITEM_IDX, c.EVENT_TYPE, c.DOMAIN)


def sequences(events: DataFrame, items: DataFrame, max_length: int) -> DataFrame:
    """Rows of ``user_sequences`` for the users of ``events``.

    Parameters
    ----------
    events
        All events of these users.
    items
        Table ``items``; an event's item must be in it.
    max_length
        Longest sequence, in events; the newest ones.

    Notes
    -----
    Executor memory grows with the longest history of one user.
    """
    indexed = events.join(items.select(c.DOMAIN, c.ITEM_ID, c.ITEM_IDX), [c.DOMAIN, c.ITEM_ID])
    event = F.struct(*_ORDER)
    history = indexed.groupBy(c.USER_ID).agg(F.sort_array(F.collect_list(event)).alias("history"))
    history = history.withColumn("events", F.size("history").cast("long"))
    distinct = {SEEN: c.ITEM_IDX, ACTIVE_DOMAINS: c.DOMAIN}
    history = history.withColumns({name: F.sort_array(F.array_distinct(f"history.{key}")) for name, key in distinct.items()})
    return _newest(history, max_length)


def extended(rows: DataFrame, added: DataFrame, items: DataFrame, max_length: int) -> DataFrame:
    """:func:`sequences` of all events of the users in ``added``, from their stored rows and their new events.

    Valid for users who lost no event.

    Parameters
    ----------
    rows
        Table ``user_sequences`` before these events, of the same ``max_length``.
    added
        New events.
    items, max_length
        As for :func:`sequences`.
    """
    new = sequences(added, items, max_length)
    both = rows.join(new.select(c.USER_ID), c.USER_ID, "left_semi").unionByName(new)
    joined = both.withColumn("history", F.arrays_zip(*_ORDER)).groupBy(c.USER_ID)
    history = joined.agg(
        F.sort_array(F.flatten(F.collect_list("history"))).alias("history"),
        *[F.sort_array(F.array_distinct(F.flatten(F.collect_list(name)))).alias(name) for name in (SEEN, ACTIVE_DOMAINS)],
        F.sum("events").alias("events"),
    )
    return _newest(history, max_length)


def _newest(history: DataFrame, max_length: int) -> DataFrame:
    newest = F.slice("history", F.greatest(F.lit(1), F.size("history") - max_length + 1), max_length)
    history = history.withColumn("newest", newest)
    arrays = [F.col(f"newest.{name}").alias(name) for name in (c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME)]
    return history.select(c.USER_ID, *arrays, SEEN, ACTIVE_DOMAINS, "events")


def newer_than(rows: DataFrame, ds: date) -> DataFrame:
    """(user_id) of the users whose ``user_sequences`` row has an event after the day ``ds``."""
    return rows.where(F.to_date(F.element_at(c.EVENT_TIME, -1)) > F.lit(ds)).select(c.USER_ID)


def as_of(rows: DataFrame, newer: DataFrame, events: DataFrame, items: DataFrame, ds: date, max_length: int) -> DataFrame:
    """Rows of ``user_sequences`` as of the end of ``ds``: rows of the ``newer`` users are computed again from ``events``."""
    then = events.where(F.col(c.EVENT_DATE) <= F.lit(ds)).join(newer, c.USER_ID, "left_semi")
    return rows.join(newer, c.USER_ID, "left_anti").unionByName(sequences(then, items, max_length))
