"""Which positions of a user's sequence are held out: neither in training nor in its context.

One target per (user, domain) and split. leave_one_out: the newest event in the domain is the test, the one before it the
validation. temporal: the first event in the domain on the test days is the test, the first on the validation days the
validation, and nothing from those days on is trained on.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Split

TARGETS = "targets"
TRAIN_POSITIONS = "train_positions"
TEST_CONTEXT = "test_context"
_SEQUENCE = (c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME)


def held_out(sequences: DataFrame, split: Split, ds: date) -> DataFrame:
    """Add ``targets``, ``train_positions`` and ``test_context``; positions count from 0.

    ``targets`` is array<struct<domain, split, position>>; the other two are array<int>: what may be trained on, and what may
    precede a test target.

    Parameters
    ----------
    sequences
        Table ``user_sequences``.
    split
        The protocol.
    ds
        The logical day; the last one of a temporal test.
    """
    frame = sequences.withColumn("n", F.size(c.ITEM_IDX)).withColumn("domains", F.array_distinct(c.DOMAIN))
    if split.protocol == "none":
        none = F.array().cast("array<struct<domain:string,split:string,position:int>>")
        frame = frame.withColumn(TARGETS, none).withColumn(TRAIN_POSITIONS, _positions(F.col("n")))
        return frame.withColumn(TEST_CONTEXT, F.col(TRAIN_POSITIONS)).drop("n", "domains")
    frame = _leave_one_out(frame) if split.protocol == "leave_one_out" else _temporal(frame, split, ds)
    frame = frame.withColumn(TARGETS, F.filter(TARGETS, lambda target: target["position"] >= 0))
    return frame.drop("n", "domains")


def _leave_one_out(frame: DataFrame) -> DataFrame:
    frame = frame.withColumn("backwards", F.reverse(c.DOMAIN))
    n, backwards = F.col("n"), F.col("backwards")

    def last_two(domain: Column) -> Column:
        newest = F.array_position(backwards, domain).cast("int")
        older = F.array_position(F.slice(backwards, newest + 1, n), domain).cast("int")
        return F.array(
            _target(domain, c.TEST, n - newest),
            _target(domain, c.VALIDATION, F.when(older > 0, n - newest - older).otherwise(-1)),
        )

    frame = frame.withColumn(TARGETS, F.flatten(F.transform("domains", last_two)))
    test = F.filter(TARGETS, lambda target: target["split"] == c.TEST)["position"]
    frame = frame.withColumn(TEST_CONTEXT, F.array_except(_positions(n), test))
    return frame.withColumn(TRAIN_POSITIONS, F.array_except(_positions(n), F.col(f"{TARGETS}.position"))).drop("backwards")


def _temporal(frame: DataFrame, split: Split, ds: date) -> DataFrame:
    # With its zone: Spark reads a datetime without one in the zone of the driver's machine.
    test_from = datetime.combine(ds - timedelta(days=split.test_days - 1), datetime.min.time(), UTC)
    validation_from = test_from - timedelta(days=split.validation_days)
    times, domains = F.col(c.EVENT_TIME), F.col(c.DOMAIN)
    earlier = F.size(F.filter(times, lambda time: time < F.lit(validation_from)))
    before_test = F.size(F.filter(times, lambda time: time < F.lit(test_from)))
    frame = frame.withColumn("earlier", earlier).withColumn("before_test", before_test)
    n, earlier, before_test = F.col("n"), F.col("earlier"), F.col("before_test")

    def first_in(domain: Column, start: Column, end: Column) -> Column:
        found = F.array_position(F.slice(domains, start + 1, end - start), domain).cast("int")
        return F.when(found > 0, start + found - 1).otherwise(-1)

    def both(domain: Column) -> Column:
        return F.array(
            _target(domain, c.TEST, first_in(domain, before_test, n)),
            _target(domain, c.VALIDATION, first_in(domain, earlier, before_test)),
        )

    frame = frame.withColumn(TARGETS, F.flatten(F.transform("domains", both)))
    frame = frame.withColumn(TEST_CONTEXT, _positions(before_test)).withColumn(TRAIN_POSITIONS, _positions(earlier))
    return frame.drop("earlier", "before_test")


def train_part(sequences: DataFrame) -> DataFrame:
    """Cut the arrays of :func:`held_out` rows down to the training positions; users with none left are dropped."""
    kept = [_at(name, F.col(TRAIN_POSITIONS)).alias(name) for name in _SEQUENCE]
    return sequences.where(F.size(TRAIN_POSITIONS) > 0).select(c.USER_ID, *kept)


def pairs(sequences: DataFrame) -> DataFrame:
    """One row per (user, domain, split) of :func:`held_out` rows: the target and the context that may predict it.

    Returns (user_id, target_domain, split, target, four context arrays, seen, train_events). The context of a validation
    target is the training events before it; that of a test target may hold validation events too. Never in a context: test
    events, and events after the target. ``seen`` lists the items of the user's history less those of the hidden events; the
    target is never in it. ``train_events`` counts the user's training events in the target's domain.
    """
    frame = sequences.withColumn("target_row", F.explode(TARGETS))
    of_split, position = F.col("target_row.split"), F.col("target_row.position")
    frame = frame.withColumn("allowed", F.when(of_split == c.TEST, F.col(TEST_CONTEXT)).otherwise(F.col(TRAIN_POSITIONS)))
    frame = frame.withColumn("context", F.filter("allowed", lambda p: p < position))
    hidden = F.array_except(_positions(F.size(c.ITEM_IDX)), F.col("allowed"))
    known_items, hidden_items = _at(c.ITEM_IDX, F.col("allowed")), _at(c.ITEM_IDX, hidden)
    target = F.get(F.col(c.ITEM_IDX), position)
    seen = F.array_except("seen_items", F.array_union(F.array_except(hidden_items, known_items), F.array(target)))
    trained_in = F.filter(_at(c.DOMAIN, F.col(TRAIN_POSITIONS)), lambda domain: domain == F.col("target_row.domain"))
    # Before the select: there, a lambda would read the context arrays in place of the columns that they are named after.
    frame = frame.withColumn("seen", seen).withColumn("train_events", F.size(trained_in))
    return frame.select(
        c.USER_ID,
        F.col("target_row.domain").alias("target_domain"),
        of_split.alias("split"),
        target.alias("target"),
        *[_at(name, F.col("context")).alias(name) for name in _SEQUENCE],
        "seen",
        "train_events",
    )


def _at(column: str, positions: Column) -> Column:
    """The values of an array column at positions."""
    return F.transform(positions, lambda p: F.get(F.col(column), p))


def _target(domain: Column, split: str, position: Column) -> Column:
    return F.struct(domain.alias("domain"), F.lit(split).alias("split"), position.cast("int").alias("position"))


def _positions(n: Column) -> Column:
    """0 … n - 1, as array<int>; empty where n is 0."""
    return F.when(n > 0, F.sequence(F.lit(0), n - 1)).otherwise(F.array().cast("array<int>"))
