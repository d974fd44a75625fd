"""Item transitions: which items follow which, within and across domains, as sparse top-M successors per item."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config import Transitions


def transitions(sequences: DataFrame, settings: Transitions) -> DataFrame:
    """Rows of ``item_transitions`` from training sequences.

    A pair of events at distance g ≤ max_gap adds g ** -gap_decay to earlier → later and ``backward`` times that to later →
    earlier. The sum is divided by events(successor) ** popularity_damping and events(item) ** source_damping, and the
    strongest ``successors`` per item are kept; ties go to the smaller index.

    Parameters
    ----------
    sequences
        (user_id, item_idx, domain, …) arrays in time order.
    """
    event = F.arrays_zip(F.col(c.ITEM_IDX).alias("i"), F.col(c.DOMAIN).alias("d"))
    placed = sequences.select(F.posexplode(event).alias("p", "a"), event.alias("s"))
    counts = placed.groupBy(F.col("a.i").alias(c.ITEM_IDX)).agg(F.count("*").alias("n"))
    later = F.posexplode(F.slice("s", F.col("p") + 2, settings.max_gap)).alias("g", "b")
    pair = placed.select("a", later).where(F.col("a.i") != F.col("b.i"))
    weight = F.sum(F.pow(F.col("g") + 1, F.lit(-settings.gap_decay)))
    forward = pair.groupBy("a", "b").agg(weight.alias("w"))
    backward = forward.select(F.col("b").alias("a"), F.col("a").alias("b"), (F.col("w") * settings.backward).alias("w"))
    both = forward.unionByName(backward).groupBy("a", "b").agg(F.sum("w").alias("w")).where("w > 0")
    of_source = counts.select(F.col(c.ITEM_IDX).alias("source"), F.col("n").alias("source_n"))
    of_successor = counts.select(F.col(c.ITEM_IDX).alias("successor"), F.col("n").alias("successor_n"))
    damped = both.join(of_source, F.col("a.i") == F.col("source")).join(of_successor, F.col("b.i") == F.col("successor"))
    damping = F.pow("successor_n", F.lit(settings.popularity_damping)) * F.pow("source_n", F.lit(settings.source_damping))
    damped = damped.select("a", "b", (F.col("w") / damping).cast("float").alias("w"))
    strongest = Window.partitionBy("a").orderBy(F.desc("w"), F.col("b.i"))
    top = damped.withColumn("place", F.row_number().over(strongest)).where(F.col("place") <= settings.successors)
    successor = F.struct("place", F.col("b.i").alias(c.ITEM_IDX), F.col("b.d").alias(c.DOMAIN), F.col("w").alias("weight"))
    rows = top.groupBy("a").agg(F.sort_array(F.collect_list(successor)).alias("successors"))
    unplaced = F.transform("successors", lambda s: F.struct(s[c.ITEM_IDX], s[c.DOMAIN], s["weight"]))
    return rows.select(F.col("a.i").alias(c.ITEM_IDX), F.col("a.d").alias(c.DOMAIN), unplaced.alias("successors"))
