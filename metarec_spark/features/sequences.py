"""User sequences: each user's newest events over all domains, in time order, one row per user."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Features
from metarec_spark.features.behaviour import has_dislikes, is_context, is_dislike

SEEN = "seen_items"
ACTIVE_DOMAINS = "active_domains"
_ORDER = (c.EVENT_TIME, c.ITEM_IDX, c.EVENT_TYPE, c.DOMAIN)
_DISLIKED = "disliked"


def sequences(events: DataFrame, items: DataFrame, features: Features) -> DataFrame:
    """Rows of ``user_sequences`` for the users of ``events``.

    Parameters
    ----------
    events
        All events of these users.
    items
        Table ``items``; an event's item must be in it.
    features
        Length of the longest sequence, and what events mean: a dislike's item is seen and its event is counted, but it is not in
        the sequence; an event that is context alone is in the sequence, but does not make its item a seen one.

    Notes
    -----
    Executor memory grows with the longest history of one user.
    """
    indexed = events.join(items.select(c.DOMAIN, c.ITEM_ID, c.ITEM_IDX), [c.DOMAIN, c.ITEM_ID])
    event = F.struct(*_ORDER)
    if has_dislikes(features):
        event = event.withField(_DISLIKED, is_dislike(features))
    history = indexed.groupBy(c.USER_ID).agg(F.sort_array(F.collect_list(event)).alias("history"))
    known = F.col("history")
    if features.context_types:
        known = F.filter(known, lambda one: ~is_context(features.context_types, one.getField))
    distinct = {SEEN: known[c.ITEM_IDX], ACTIVE_DOMAINS: F.col("history")[c.DOMAIN]}
    history = history.withColumn("events", F.size("history").cast("long"))
    history = history.withColumns({name: F.sort_array(F.array_distinct(values)) for name, values in distinct.items()})
    if has_dislikes(features):
        history = history.withColumn("history", F.filter("history", lambda one: ~one[_DISLIKED]))
    return _newest(history, features.max_length)


def extended(rows: DataFrame, added: DataFrame, items: DataFrame, features: Features) -> DataFrame:
    """:func:`sequences` of all events of the users in ``added``, from their stored rows and their new events.

    Valid for users who lost no event.

    Parameters
    ----------
    rows
        Table ``user_sequences`` before these events, made with the same ``features``.
    added
        New events.
    items, features
        As for :func:`sequences`.
    """
    new = sequences(added, items, features)
    both = rows.join(new.select(c.USER_ID), c.USER_ID, "left_semi").unionByName(new)
    joined = both.withColumn("history", F.arrays_zip(*_ORDER)).groupBy(c.USER_ID)
    history = joined.agg(
        F.sort_array(F.flatten(F.collect_list("history"))).alias("history"),
        *[F.sort_array(F.array_distinct(F.flatten(F.collect_list(name)))).alias(name) for name in (SEEN, ACTIVE_DOMAINS)],
        F.sum("events").alias("events"),
    )
    return _newest(history, features.max_length)


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
    again = sequences(then, items, features)
    return rows.join(newer, c.USER_ID, "left_anti").unionByName(again)
