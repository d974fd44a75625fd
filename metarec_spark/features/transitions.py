"""Item transitions: which items follow, precede or resemble which, within and across domains, as sparse successors per item."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.sections import Transitions

FORWARD, BACKWARD, SIMILARITY, WEIGHT = "forward", "backward", "similarity", "weight"


def transitions(sequences: DataFrame, content: DataFrame, settings: Transitions) -> DataFrame:
    """Rows of ``item_transitions`` from training sequences and item content.

    Of an item and a successor, three signals are kept as they are, so that they can be weighed anew later:

    - ``forward``: the sum of distance ** -gap_decay over the pairs of events, at a distance of at most max_gap, in which the
      successor comes later;
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

    Notes
    -----
    Rows grow with events × max_gap, and with content tokens × common_items.
    """
    event = F.arrays_zip(F.col(c.ITEM_IDX).alias("i"), F.col(c.DOMAIN).alias("d"))
    placed = sequences.select(F.posexplode(event).alias("p", "a"), event.alias("s"))
    counts = placed.groupBy(F.col("a.i").alias(c.ITEM_IDX)).agg(F.count("*").alias("n"))
    signals = _followed(placed, settings).unionByName(_alike(content, settings))
    signals = signals.groupBy("a", "b").agg(*[F.sum(name).alias(name) for name in (FORWARD, BACKWARD, SIMILARITY)])
    of_item = counts.select(F.col(c.ITEM_IDX).alias("item"), F.col("n").alias("item_n"))
    of_successor = counts.select(F.col(c.ITEM_IDX).alias("successor"), F.col("n").alias("successor_n"))
    signals = signals.join(of_item, F.col("a.i") == F.col("item"), "left")
    signals = signals.join(of_successor, F.col("b.i") == F.col("successor"), "left")
    signals = signals.withColumn(WEIGHT, _weight(settings).cast("float")).where(F.col(WEIGHT) > 0)
    strongest = Window.partitionBy("a", "b.d").orderBy(F.desc(WEIGHT), F.col("b.i"))
    top = signals.withColumn("place", F.row_number().over(strongest)).where(F.col("place") <= settings.successors)
    parts = [F.col(name).cast("float").alias(name) for name in (WEIGHT, FORWARD, BACKWARD, SIMILARITY)]
    order = (-F.col(WEIGHT)).alias("order")
    successor = F.struct(order, F.col("b.i").alias(c.ITEM_IDX), F.col("b.d").alias(c.DOMAIN), *parts)
    rows = top.groupBy("a").agg(F.sort_array(F.collect_list(successor)).alias("successors"))
    named = F.transform("successors", lambda s: s.dropFields("order"))
    return rows.select(F.col("a.i").alias(c.ITEM_IDX), F.col("a.d").alias(c.DOMAIN), named.alias("successors"))


def _weight(settings: Transitions) -> Column:
    damping = F.pow(F.coalesce("successor_n", F.lit(1)), F.lit(settings.popularity_damping))
    damping *= F.pow(F.coalesce("item_n", F.lit(1)), F.lit(settings.source_damping))
    followed = (F.col(FORWARD) + F.col(BACKWARD) * settings.backward) / damping
    return followed + F.col(SIMILARITY) * settings.similarity


def _followed(placed: DataFrame, settings: Transitions) -> DataFrame:
    """(a, b, forward, backward, similarity = 0) of every pair of items that stand near each other in a sequence."""
    later = F.posexplode(F.slice("s", F.col("p") + 2, settings.max_gap)).alias("g", "b")
    pair = placed.select("a", later).where(F.col("a.i") != F.col("b.i"))
    weight = F.sum(F.pow(F.col("g") + 1, F.lit(-settings.gap_decay)))
    forward = pair.groupBy("a", "b").agg(weight.alias("w"))
    there = forward.select("a", "b", F.col("w").alias(FORWARD), F.lit(0.0).alias(BACKWARD), F.lit(0.0).alias(SIMILARITY))
    back = forward.select(
        F.col("b").alias("a"),
        F.col("a").alias("b"),
        F.lit(0.0).alias(FORWARD),
        F.col("w").alias(BACKWARD),
        F.lit(0.0).alias(SIMILARITY),
    )
    return there.unionByName(back)


def _alike(content: DataFrame, settings: Transitions) -> DataFrame:
    """(a, b, forward = 0, backward = 0, similarity) of every two items that share a token which is not too common."""
    item = F.struct(F.col(c.ITEM_IDX).alias("i"), F.col(c.DOMAIN).alias("d"))
    token = F.explode(F.arrays_zip(F.col("tokens").alias("t"), F.col("weights").alias("w"))).alias("token")
    one = content.select(item.alias("item"), token).select("item", F.xxhash64("token.t").alias("t"), F.col("token.w").alias("w"))
    bag = F.collect_list(F.struct(F.col("item"), F.col("w")))
    shared = one.groupBy("t").agg(F.count("*").alias("n"), bag.alias("bag"))
    shared = shared.where(F.col("n").between(2, settings.common_items))
    first = shared.select("bag", F.explode("bag").alias("x"))
    both = first.select("x", F.explode("bag").alias("y")).where(F.col("x.item.i") < F.col("y.item.i"))
    pair = both.select(F.col("x.item").alias("a"), F.col("y.item").alias("b"), (F.col("x.w") * F.col("y.w")).alias("w"))
    alike = pair.groupBy("a", "b").agg(F.sum("w").alias(SIMILARITY))
    names = [F.lit(0.0).alias(FORWARD), F.lit(0.0).alias(BACKWARD), SIMILARITY]
    return alike.select("a", "b", *names).unionByName(alike.select(F.col("b").alias("a"), F.col("a").alias("b"), *names))
