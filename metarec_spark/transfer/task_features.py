"""Task meta-features: what is known of a transfer task before training: sizes, density, entropy, overlap with other domains."""

from __future__ import annotations

import math

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

NAMES = ("users", "items", "events", "density", "entropy", "source_users", "source_events", "shared_users", "shared_words")


def task_meta_features(users: DataFrame, content: DataFrame, domain: str) -> dict[str, float]:
    """Return the meta-features of the task whose target is ``domain`` and whose sources are all other domains.

    Parameters
    ----------
    users
        Training sequences, (user_id, item_idx, domain, …).
    content
        Table ``item_content``.

    Returns
    -------
    users, items, events
        Counts in the domain.
    density
        events / (users · items).
    entropy
        Entropy of the domain's events over its items, as a share of the largest possible; 1 if all are equally popular.
    source_users, source_events
        Counts in the other domains.
    shared_users, shared_words
        Share of the domain's users, and of its title words, that also occur in other domains.
    """
    event = F.explode(F.arrays_zip(F.col(c.ITEM_IDX).alias("item"), F.col(c.DOMAIN).alias("domain"))).alias("event")
    events = users.select(event).select("event.item", (F.col("event.domain") == domain).alias("inside"))
    # Items by their number of events: few rows, whose sums on the driver do not depend on the rows' order.
    sizes = events.groupBy("item", "inside").agg(F.count("*").alias("events"))
    sizes = sizes.groupBy("inside", "events").agg(F.count("*").alias("items"))
    counts = [(row["inside"], row["events"], row["items"]) for row in sizes.toLocalIterator()]
    inside = [(n, items) for is_inside, n, items in counts if is_inside]
    item_count, event_count = sum(items for _, items in inside), sum(n * items for n, items in inside)
    source_events = sum(n * items for is_inside, n, items in counts if not is_inside)
    weighted = math.fsum(items * n * math.log(n) for n, items in inside)
    entropy = (math.log(event_count) - weighted / event_count) / math.log(item_count) if item_count > 1 else 1.0
    in_domain = F.array_contains(c.DOMAIN, domain)
    elsewhere = F.exists(c.DOMAIN, lambda name: name != domain)
    own_users, source_users, shared_users = _counts(users, in_domain, elsewhere, in_domain & elsewhere)
    words = content.select((F.col(c.DOMAIN) == domain).alias("inside"), F.explode("tokens").alias("word"))
    by_word = words.where(F.col("word").startswith("w:")).groupBy("word")
    rows = by_word.agg(F.bool_or("inside").alias("own"), F.bool_or(~F.col("inside")).alias("elsewhere"))
    own_words, shared_words = _counts(rows, F.col("own"), F.col("own") & F.col("elsewhere"))
    return {
        "users": float(own_users),
        "items": float(item_count),
        "events": float(event_count),
        "density": event_count / max(1, own_users * item_count),
        "entropy": float(entropy),
        "source_users": float(source_users),
        "source_events": float(source_events),
        "shared_users": shared_users / max(1, own_users),
        "shared_words": shared_words / max(1, own_words),
    }


def _counts(rows: DataFrame, *conditions: Column) -> list[int]:
    """Number of rows that meet each condition."""
    (counted,) = rows.agg(*(F.count(F.when(condition, 1)) for condition in conditions)).collect()
    return list(counted)
