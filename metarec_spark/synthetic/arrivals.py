"""Events as they arrive: those of users and bots, some late, duplicate or broken."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.synthetic.behaviour import DAY_MS, behaviour
from metarec_spark.synthetic.draws import one_of, spread
from metarec_spark.synthetic.platforms import PLATFORMS, VALUES, Scale, item_id, of_platform

ARRIVAL_DAY = "ds"
KIND = "kind"
CLEAN, BOT = "clean", "bot"

KINDS = {
    "late": 0.02,
    "duplicate": 0.01,
    "null_user": 0.002,
    "null_item": 0.002,
    "unknown_type": 0.002,
    "bad_time": 0.001,
    "future_time": 0.001,
}
"""Kind of row → its share of users' events. A duplicate is an additional row; other kinds replace a clean row. Kinds that
cleaning rejects have the name of the reason."""
LATE_DAYS = 2
"""A late row arrives 1 to this many days after its event, but not after the last day."""
UNKNOWN_TYPE = "???"
FUTURE = datetime(2200, 1, 1, tzinfo=UTC)
BOT_EVENTS = 2000
"""Events of a bot, all in one clock hour."""
BOT_SHARE = 0.002
"""Bots' events as a share of users' events; there are at least two bots."""


def events(spark: SparkSession, scale: Scale, partitions: int | None = None) -> DataFrame:
    """Return the log as (user_id, item_id, domain, event_type, event_time, value, ds, kind).

    ``ds`` is the day on which a row arrived; ``kind`` is ``clean``, ``bot`` or one of ``KINDS``. Rows depend on the scale alone,
    not on partitions or order. Nothing is shuffled.

    Parameters
    ----------
    partitions
        Number of tasks, each with the same number of users; by default the session's parallelism.
    """
    kind = one_of(spread({**KINDS, CLEAN: 1 - sum(KINDS.values())}), scale.draw("kind", "session", "step"))
    people = behaviour(spark, scale, partitions or spark.sparkContext.defaultParallelism).withColumn(KIND, kind)
    return _arrived(_open(people, scale), scale).unionByName(_arrived(_open(_bots(spark, scale), scale), scale))


def bots(scale: Scale) -> int:
    """Return the number of bots; their numbers follow those of the users."""
    return max(2, round(scale.events * BOT_SHARE / BOT_EVENTS))


def _open(steps: DataFrame, scale: Scale) -> DataFrame:
    """The steps on platforms that are open by then."""
    opening: list[float] = [scale.opens.get(platform.name, 0) * DAY_MS for platform in PLATFORMS]
    return steps.where(F.col("time") >= of_platform(opening)) if scale.opens else steps


def _bots(spark: SparkSession, scale: Scale) -> DataFrame:
    """Events of bots, with the columns of :func:`behaviour`; a bot's session is a negative number."""
    rows = spark.range(0, bots(scale) * BOT_EVENTS, 1, 1)
    rows = rows.select(F.expr(f"-1 - id div {BOT_EVENTS}").alias("session"), (F.col("id") % BOT_EVENTS).alias("step"))
    hour = F.floor(scale.draw("bot hour", "session") * scale.days * 24)
    return rows.select(
        (scale.users - 1 - F.col("session")).alias("user"),
        "session",
        "step",
        one_of(spread({i: p.share for i, p in enumerate(PLATFORMS)}), scale.draw("bot platform", "session")).alias("platform"),
        F.floor(scale.draw("bot item", "session", "step") * scale.items).alias("number"),
        (hour * 3_600_000 + F.col("step") * (3_600_000 // BOT_EVENTS)).alias("time"),
        F.lit(BOT).alias(KIND),
    )


def _arrived(steps: DataFrame, scale: Scale) -> DataFrame:
    keys, kind = ["session", "step"], F.col(KIND)
    day, last_day = F.expr(f"time div {DAY_MS}"), scale.days - 1
    steps = steps.withColumn(KIND, F.when((kind == "late") & (day == last_day), CLEAN).otherwise(kind))
    copies = F.when(kind == "duplicate", F.array(F.lit(CLEAN), kind)).otherwise(F.array(kind))
    steps = steps.withColumn(KIND, F.explode(copies))

    user = F.lpad(F.col("user").cast("string"), max(7, len(str(scale.users + bots(scale)))), "0")
    blank = F.when(scale.draw("blank", *keys) < 0.5, " ")
    event_type = one_of(of_platform([spread(p.event_types) for p in PLATFORMS]), scale.draw("type", *keys))
    event_type = F.when(kind == "unknown_type", UNKNOWN_TYPE).otherwise(event_type)
    begin = datetime(scale.first_day.year, scale.first_day.month, scale.first_day.day, tzinfo=UTC)
    origin = F.when(kind == "future_time", _milliseconds(FUTURE)).otherwise(_milliseconds(begin))
    delay = F.when(kind == "late", 1 + F.floor(scale.draw("delay", *keys) * LATE_DAYS)).otherwise(0)
    arrival = F.least(day + delay, F.lit(last_day)).cast("int")
    return steps.select(
        F.when(kind == "null_user", blank).otherwise(F.concat(F.lit("u"), user)).alias(c.USER_ID),
        F.when(kind == "null_item", blank).otherwise(item_id(scale)).alias(c.ITEM_ID),
        of_platform([p.name for p in PLATFORMS]).alias(c.DOMAIN),
        event_type.alias(c.EVENT_TYPE),
        F.when(kind != "bad_time", F.timestamp_millis(F.col("time") + origin)).alias(c.EVENT_TIME),
        F.round(_largest_value(event_type) * scale.draw("value", *keys), 2).alias(c.VALUE),
        F.date_add(F.lit(scale.first_day), arrival).alias(ARRIVAL_DAY),
        kind.alias(KIND),
    )


def _largest_value(event_type: Column) -> Column:
    return F.coalesce(*[F.when(event_type == name, value) for name, value in VALUES.items()])


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp()) * 1000
