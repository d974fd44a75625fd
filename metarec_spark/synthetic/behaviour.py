"""User behaviour: users with interests, their sessions in time, and the steps of a session through neighbouring items.

A task's memory grows with the sessions of one user.
"""

from __future__ import annotations

import math

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.synthetic.draws import popular, scattered
from metarec_spark.synthetic.platforms import PLATFORMS, Scale, items_of_topic
from metarec_spark.synthetic.topics import TOPICS

SESSION_EVENTS = 6
"""Mean number of events of a session; it has 1 to 2 · SESSION_EVENTS − 1."""
ACTIVITY_HEAD = 0.002
"""The user of rank r has sessions ∝ 1 / (r + ACTIVITY_HEAD · users): the busiest has 80 times the mean."""
POPULARITY_HEAD = 5
"""The item of rank r in its topic is chosen with weight 1 / (r + POPULARITY_HEAD)."""
INTERESTS = 3
"""Topics that a user is interested in at a time."""
INTEREST_DAYS = 28
"""Each interest is replaced this often, at a time of the user's own."""
EXPLORING = 0.1
"""Share of sessions on any topic instead of an interest."""
STRAYING = 0.25
"""Share of events on a popular item of any topic instead of the session's next item."""
SKIPPING = 0.25
"""A step moves on by two ranks of the topic, and with this probability by three."""

DAY_MS = 86_400_000
_STEP_MS = 60_000
_PAUSE_MS = 50_000
_SESSION_MS = 2 * SESSION_EVENTS * _STEP_MS


def behaviour(spark: SparkSession, scale: Scale, partitions: int) -> DataFrame:
    """Exactly ``scale.events`` events as (user, session, step, platform, number, time).

    ``platform`` and ``number`` name the item, ``time`` is in milliseconds from the start of the first day.
    """
    return _steps(_sessions(_people(spark, scale, partitions), scale), scale)


def _people(spark: SparkSession, scale: Scale, partitions: int) -> DataFrame:
    """Users with sessions as (user, platforms, first, end); a user has the sessions from first to end − 1."""
    users = spark.range(0, scale.users, 1, partitions).withColumnRenamed("id", "user")
    users = users.withColumn("rank", scattered(F.col("user"), scale.users, scale.draw("user")))

    def sessions_before(rank: Column) -> Column:
        cumulative = F.log1p(rank / (ACTIVITY_HEAD * scale.users)) / math.log1p(1 / ACTIVITY_HEAD)
        return F.round(cumulative * _sessions_of(scale)).cast("long")

    race = F.transform(F.lit(list(range(len(PLATFORMS)))), lambda p: _race(scale.draw("active", "user", p), p))
    active = 1 + F.floor(scale.draw("platforms", "user") * len(PLATFORMS))
    users = users.select(
        "user",
        F.slice(F.array_sort(race)["platform"], 1, active.cast("int")).alias("platforms"),
        sessions_before(F.col("rank")).alias("first"),
        sessions_before(F.col("rank") + 1).alias("end"),
    )
    return users.where("first < end")


def _sessions(people: DataFrame, scale: Scale) -> DataFrame:
    """Sessions as (user, session, platform, start, topic, opening); a session begins at rank ``opening`` of its topic."""
    sessions = people.withColumn("session", F.explode(F.sequence("first", F.col("end") - 1)))
    race = F.transform("platforms", lambda p: _race(scale.draw("platform", "session", p), p))
    # Each session begins in the first half of its slot of the user's time; the slots are rotated by a random angle per user.
    slot = (F.col("session") - F.col("first") + scale.draw("start", "session") / 2) / (F.col("end") - F.col("first"))
    start = F.floor((slot + scale.draw("turn", "user")) % 1 * (scale.days * DAY_MS - _SESSION_MS))
    sessions = sessions.select("user", "session", F.array_min(race)["platform"].alias("platform"), start.alias("start"))

    which = F.floor(scale.draw("which interest", "session") * INTERESTS)
    replaced = F.floor(F.col("start") / (INTEREST_DAYS * DAY_MS) + scale.draw("interest age", "user", which))
    of_person = scale.draw("shared taste", "user", "platform") < scale.shared_taste
    taste = F.when(of_person, -1).otherwise(F.col("platform"))
    interest = scale.draw("interest", "user", taste, which, replaced)
    topic = F.when(scale.draw("exploring", "session") < EXPLORING, scale.draw("explored", "session")).otherwise(interest)
    sessions = sessions.withColumn("topic", F.floor(topic * len(TOPICS)))
    count = items_of_topic(F.col("topic"), scale)
    return sessions.withColumn("opening", popular(scale.draw("opening", "session"), count, POPULARITY_HEAD))


def _steps(sessions: DataFrame, scale: Scale) -> DataFrame:
    keys = ["session", "step"]

    def events_before(session: Column) -> Column:
        about = session * SESSION_EVENTS + F.floor(scale.draw("length", session) * SESSION_EVENTS)
        return F.when(session == 0, 0).when(session == _sessions_of(scale), scale.events).otherwise(about)

    length = events_before(F.col("session") + 1) - events_before(F.col("session"))
    steps = sessions.withColumn("step", F.explode(F.sequence(F.lit(0).cast("long"), length - 1)))
    strays = scale.draw("straying", *keys) < STRAYING
    strayed_topic = F.floor(scale.draw("strayed topic", *keys) * len(TOPICS))
    steps = steps.withColumns({"strays": strays, "topic": F.when(strays, strayed_topic).otherwise(F.col("topic"))})
    count = items_of_topic(F.col("topic"), scale)
    walked = F.col("opening") + F.col("step") * 2 + (scale.draw("skipping", *keys) < SKIPPING).cast("int")
    strayed = popular(scale.draw("strayed", *keys), count, POPULARITY_HEAD)
    rank = F.when(F.col("strays"), strayed).otherwise(walked % count)
    number = rank * len(TOPICS) + F.col("topic")
    time = F.col("start") + F.col("step") * _STEP_MS + F.floor(scale.draw("pause", *keys) * _PAUSE_MS)
    return steps.select("user", *keys, "platform", number.alias("number"), time.alias("time"))


def _sessions_of(scale: Scale) -> int:
    return max(1, scale.events // SESSION_EVENTS)


def _race(drawn: Column, platform: Column) -> Column:
    """(time, platform) of a race in which a platform is first with the probability of its share."""
    shares = F.lit([p.share for p in PLATFORMS])
    return F.struct((-F.log1p(-drawn) / shares[platform]).alias("time"), platform.alias("platform"))
