"""Train / validation / test split: which positions of a user's sequence are held out.

There is one target per (user, domain) and split, never an event that is context alone (``features.context_types``).
leave_one_out: the newest event in the domain is the test target, the one before it the validation target.
temporal: the first event in the domain on the test days is the test target, the first on the validation days the validation
target; no event of these days is a training event.
"""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Features, Split
from metarec_spark.features.behaviour import NO_CONTEXT, ContextTypes, is_context
from metarec_spark.features.days import start_of

NOTHING_HELD_OUT = Split(protocol="none")
TARGETS = "targets"
TRAIN_POSITIONS = "train_positions"
TEST_CONTEXT = "test_context"
_ITEMS, _DOMAINS = "items_not_context", "domains_not_context"
_SEQUENCE = (c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME)


def held_out(sequences: DataFrame, split: Split, ds: date, features: Features = Features()) -> DataFrame:
    """Add ``targets``, ``train_positions`` and ``test_context``; positions count from 0.

    ``targets`` is array<struct<domain, split, position>>; the other two are array<int>: positions of the training events, and
    of the events that may precede a test target.

    Parameters
    ----------
    sequences
        Table ``user_sequences``.
    split
        Protocol and lengths of the split.
    ds
        The logical day: the last test day of a temporal split.
    features
        The time zone of the days, and which events are context alone.
    """
    frame = sequences.withColumn("n", F.size(c.ITEM_IDX)).withColumn("domains", F.array_distinct(c.DOMAIN))
    if split.protocol == "none":
        none = F.array().cast("array<struct<domain:string,split:string,position:int>>")
        frame = frame.withColumn(TARGETS, none).withColumn(TRAIN_POSITIONS, _positions(F.col("n")))
        return frame.withColumn(TEST_CONTEXT, F.col(TRAIN_POSITIONS)).drop("n", "domains")
    # The domain of each event that may be a target.
    frame = frame.withColumn(_DOMAINS, unless_context(c.DOMAIN, features.context_types))
    frame = _leave_one_out(frame, features) if split.protocol == "leave_one_out" else _temporal(frame, split, ds, features)
    frame = frame.withColumn(TARGETS, F.filter(TARGETS, lambda target: target["position"] >= 0))
    return frame.drop("n", "domains", _DOMAINS)


def _leave_one_out(frame: DataFrame, features: Features) -> DataFrame:
    frame = frame.withColumn("backwards", F.reverse(_DOMAINS))
    n, backwards = F.col("n"), F.col("backwards")

    def last_two(domain: Column) -> Column:
        newest = F.array_position(backwards, domain).cast("int")
        older = F.array_position(F.slice(backwards, newest + 1, n), domain).cast("int")
        return F.array(
            _target(domain, c.TEST, F.when(newest > 0, n - newest).otherwise(-1)),
            _target(domain, c.VALIDATION, F.when((newest > 0) & (older > 0), n - newest - older).otherwise(-1)),
        )

    frame = frame.withColumn(TARGETS, F.flatten(F.transform("domains", last_two))).drop("backwards")
    is_test = F.filter(TARGETS, lambda target: target["split"] == c.TEST)
    return frame.withColumns(
        {
            TEST_CONTEXT: _before(is_test, n, features),
            TRAIN_POSITIONS: _before(F.col(TARGETS), n, features),
        }
    )


def _before(targets: Column, n: Column, features: Features) -> Column:
    """Positions of the events that do not tell of a target: all but the targets and what follows them in their domains."""
    if not features.context_types:  # each domain ends with its targets
        return F.array_except(_positions(n), targets["position"])

    def tells(position: Column) -> Column:
        domain = F.get(F.col(c.DOMAIN), position)
        return F.exists(targets, lambda t: (t["domain"] == domain) & (t["position"] >= 0) & (t["position"] <= position))

    return F.filter(_positions(n), lambda position: ~tells(position))


def _temporal(frame: DataFrame, split: Split, ds: date, features: Features) -> DataFrame:
    first_test_day = ds - timedelta(days=split.test_days - 1)
    test_from = start_of(first_test_day, features.day_zone)
    validation_from = start_of(first_test_day - timedelta(days=split.validation_days), features.day_zone)
    times, domains = F.col(c.EVENT_TIME), F.col(_DOMAINS)
    earlier = F.size(F.filter(times, lambda time: time < F.lit(validation_from)))
    before_test = F.size(F.filter(times, lambda time: time < F.lit(test_from)))
    frame = frame.withColumn("earlier", earlier).withColumn("before_test", before_test)
    n, earlier, before_test = F.col("n"), F.col("earlier"), F.col("before_test")

    def first_in(domain: Column, start: Column, end: Column) -> Column:
        first = F.array_position(F.slice(domains, start + 1, end - start), domain).cast("int")
        return F.when(first > 0, start + first - 1).otherwise(-1)

    def both(domain: Column) -> Column:
        return F.array(
            _target(domain, c.TEST, first_in(domain, before_test, n)),
            _target(domain, c.VALIDATION, first_in(domain, earlier, before_test)),
        )

    frame = frame.withColumn(TARGETS, F.flatten(F.transform("domains", both)))
    frame = frame.withColumn(TEST_CONTEXT, _positions(before_test)).withColumn(TRAIN_POSITIONS, _positions(earlier))
    return frame.drop("earlier", "before_test")


def train_part(sequences: DataFrame) -> DataFrame:
    """Training events of :func:`held_out` rows; users without any are dropped."""
    training = [_at(name, F.col(TRAIN_POSITIONS)).alias(name) for name in _SEQUENCE]
    return sequences.where(F.size(TRAIN_POSITIONS) > 0).select(c.USER_ID, *training)


def unless_context(column: str, context_types: ContextTypes) -> Column:
    """An array column of the events, with null in place of the values of events that are context alone."""
    if not context_types:
        return F.col(column)
    fields = F.col(column).alias("value"), F.col(c.DOMAIN), F.col(c.EVENT_TYPE)
    return F.transform(F.arrays_zip(*fields), lambda e: F.when(~is_context(context_types, e.getField), e["value"]))


def pairs(sequences: DataFrame, context_types: ContextTypes = NO_CONTEXT) -> DataFrame:
    """Evaluation cases of :func:`held_out` rows: per (user, domain, split), the target and its context.

    Returns (user_id, target_domain, split, target, four context arrays, seen, repeat, train_events). The context of a validation
    target has the training events before it; the context of a test target may have validation events too. No context has test
    events, or events after the target. ``seen``: items of the user's history, without those of hidden events and without the
    target. ``repeat``: whether an event of the context has the target's item. ``train_events``: number of the user's training
    events in the target's domain. Events that are context alone count for none of the last three.
    """
    own = {_ITEMS: unless_context(c.ITEM_IDX, context_types), _DOMAINS: unless_context(c.DOMAIN, context_types)}
    frame = sequences.withColumns({**own, "target_row": F.explode(TARGETS)})
    split, position = F.col("target_row.split"), F.col("target_row.position")
    frame = frame.withColumn("allowed", F.when(split == c.TEST, F.col(TEST_CONTEXT)).otherwise(F.col(TRAIN_POSITIONS)))
    frame = frame.withColumn("context", F.filter("allowed", lambda p: p < position))
    hidden = F.array_except(_positions(F.size(c.ITEM_IDX)), F.col("allowed"))
    known_items, hidden_items = _at(_ITEMS, F.col("allowed")), _at(_ITEMS, hidden)
    target = F.get(F.col(c.ITEM_IDX), position)
    seen = F.array_except("seen_items", F.array_union(F.array_except(hidden_items, known_items), F.array(target)))
    trained_in = F.filter(_at(_DOMAINS, F.col(TRAIN_POSITIONS)), lambda domain: domain == F.col("target_row.domain"))
    # Before the select: inside it, a lambda would read the new context arrays instead of the columns of the same names.
    repeat = F.coalesce(F.array_contains(_at(_ITEMS, F.col("context")), target), F.lit(False))
    frame = frame.withColumns({"seen": seen, "repeat": repeat, "train_events": F.size(trained_in)})
    return frame.select(
        c.USER_ID,
        F.col("target_row.domain").alias("target_domain"),
        split.alias("split"),
        target.alias("target"),
        *[_at(name, F.col("context")).alias(name) for name in _SEQUENCE],
        "seen",
        "repeat",
        "train_events",
    )


def _at(column: str, positions: Column) -> Column:
    """The values of an array column at positions."""
    return F.transform(positions, lambda p: F.get(F.col(column), p))


def _target(domain: Column, split: str, position: Column) -> Column:
    return F.struct(domain.alias("domain"), F.lit(split).alias("split"), position.cast("int").alias("position"))


def _positions(n: Column) -> Column:
    """0 … n - 1, as array<int>; empty if n is 0."""
    return F.when(n > 0, F.sequence(F.lit(0), n - 1)).otherwise(F.array().cast("array<int>"))
