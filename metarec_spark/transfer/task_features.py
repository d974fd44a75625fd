"""What can be said of a transfer task before anything is trained: sizes, density, spread, and what it shares with the others."""

from __future__ import annotations

import math

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

NAMES = ("users", "items", "events", "density", "entropy", "source_users", "source_events", "shared_users", "shared_words")


def statistics(users: DataFrame, content: DataFrame, domain: str) -> dict[str, float]:
    """Of a domain as target and all the others as source.

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
        Of the domain's events over its items, as a share of the largest possible; 1 where all are equally popular.
    source_users, source_events
        Counts elsewhere.
    shared_users, shared_words
        Share of the domain's people, and of its title words, that are also found elsewhere.
    """
    event = F.explode(F.arrays_zip(F.col(c.ITEM_IDX).alias("item"), F.col(c.DOMAIN).alias("of"))).alias("event")
    rows = users.select(c.USER_ID, event).select(c.USER_ID, "event.*", (F.col("event.of") == domain).alias("inside"))
    # How many items have so many events: few numbers, whose sum here does not depend on the order of the rows.
    sizes = (
        rows.groupBy("item", "inside")
        .agg(F.count("*").alias("events"))
        .groupBy("inside", "events")
        .agg(F.count("*").alias("items"))
    )
    sizes = [(row["inside"], row["events"], row["items"]) for row in sizes.toLocalIterator()]
    inside = [(events, items) for here, events, items in sizes if here]
    people = users.select(
        F.array_contains(c.DOMAIN, domain).alias("here"), F.exists(c.DOMAIN, lambda name: name != domain).alias("elsewhere")
    )
    of_people = people.agg(
        *(F.coalesce(F.sum(w.cast("long")), F.lit(0)) for w in (F.col("here"), F.col("elsewhere"), F.expr("here AND elsewhere")))
    )
    here, elsewhere, both = of_people.first()
    words = content.select((F.col(c.DOMAIN) == domain).alias("inside"), F.explode("tokens").alias("word"))
    words = (
        words.where(F.col("word").startswith("w:"))
        .groupBy("word")
        .agg(F.bool_or("inside").alias("here"), F.bool_or(~F.col("inside")).alias("elsewhere"))
    )
    own_words, shared_words = (
        words.where("here").agg(F.count("*"), F.coalesce(F.sum(F.col("elsewhere").cast("long")), F.lit(0))).first()
    )
    items, events = sum(n for _, n in inside), sum(of * n for of, n in inside)
    self_ = math.fsum(n * of * math.log(of) for of, n in inside)
    entropy = (math.log(events) - self_ / events) / math.log(items) if events and items > 1 else 1.0
    return {
        "users": float(here),
        "items": float(items),
        "events": float(events),
        "density": events / max(1, here * items),
        "entropy": float(entropy),
        "source_users": float(elsewhere),
        "source_events": float(sum(of * n for here, of, n in sizes if not here)),
        "shared_users": both / max(1, here),
        "shared_words": shared_words / max(1, own_words),
    }
