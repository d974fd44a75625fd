"""User sequences: each user's newest events over all domains, in time order, one row per user."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Features

SEEN = "seen_items"
ACTIVE_DOMAINS = "active_domains"
_ORDER = (c.EVENT_TIME, c.ITEM_IDX, c.EVENT_TYPE, c.DOMAIN)
_DISLIKED = "disliked"


def sequences(
    events: DataFrame, items: DataFrame, max_length: int, dislike_below: Mapping[str, float] | None = None
) -> DataFrame:
    """Rows of ``user_sequences`` for the users of ``events``.

    Parameters
    ----------
    events
        All events of these users.
    items
        Table ``items``; an event's item must be in it.
    max_length
        Longest sequence, in events; the newest ones.
    dislike_below
        Domain → least ``value`` of an event that is no dislike. A dislike's item is seen and its event is counted, but it is not
        in the sequence.

    Notes
    -----
    Executor memory grows with the longest history of one user.
    """
    indexed = events.join(items.select(c.DOMAIN, c.ITEM_ID, c.ITEM_IDX), [c.DOMAIN, c.ITEM_ID])
    event = F.struct(*_ORDER)
    if dislike_below:
        event = event.withField(_DISLIKED, disliked(dislike_below))
    history = indexed.groupBy(c.USER_ID).agg(F.sort_array(F.collect_list(event)).alias("history"))
    history = history.withColumn("events", F.size("history").cast("long"))
    distinct = {SEEN: c.ITEM_IDX, ACTIVE_DOMAINS: c.DOMAIN}
    history = history.withColumns({name: F.sort_array(F.array_distinct(f"history.{key}")) for name, key in distinct.items()})
    if dislike_below:
        history = history.withColumn("history", F.filter("history", lambda one: ~one[_DISLIKED]))
    return _newest(history, max_length)


def disliked(dislike_below: Mapping[str, float]) -> Column:
    """Whether an event's ``value`` says that the user does not like the item."""
    parts = [(F.col(c.DOMAIN) == F.lit(domain)) & (F.col(c.VALUE) < F.lit(least)) for domain, least in dislike_below.items()]
    return F.coalesce(reduce(Column.__or__, parts), F.lit(False))


def extended(
    rows: DataFrame, added: DataFrame, items: DataFrame, max_length: int, dislike_below: Mapping[str, float] | None = None
) -> DataFrame:
    """:func:`sequences` of all events of the users in ``added``, from their stored rows and their new events.

    Valid for users who lost no event.

    Parameters
    ----------
    rows
        Table ``user_sequences`` before these events, of the same ``max_length`` and ``dislike_below``.
    added
        New events.
    items, max_length, dislike_below
        As for :func:`sequences`.
    """
    new = sequences(added, items, max_length, dislike_below)
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
    newest = F.get(c.EVENT_TIME, F.size(c.EVENT_TIME) - 1)  # null of a user who has disliked everything
    return rows.where(F.to_date(newest) > F.lit(ds)).select(c.USER_ID)


def as_of(rows: DataFrame, newer: DataFrame, events: DataFrame, items: DataFrame, ds: date, features: Features) -> DataFrame:
    """Rows of ``user_sequences`` as of the end of ``ds``: rows of the ``newer`` users are computed again from ``events``."""
    then = events.where(F.col(c.EVENT_DATE) <= F.lit(ds)).join(newer, c.USER_ID, "left_semi")
    again = sequences(then, items, features.max_length, features.dislike_below)
    return rows.join(newer, c.USER_ID, "left_anti").unionByName(again)
