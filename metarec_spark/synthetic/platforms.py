"""The platforms, their items, and the scale of a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import ConfigError
from metarec_spark.synthetic.draws import scattered, uniform
from metarec_spark.synthetic.topics import BRANDS, TOPICS


@dataclass(frozen=True)
class Platform:
    """One domain of the log."""

    name: str
    """Domain of its rows."""
    share: float
    """Approximate share of all events."""
    event_types: dict[str, float]
    """Event type → share of the platform's events."""
    noun: str
    """Last word of its items' titles."""


PLATFORMS = (
    Platform("shop", 0.30, {"view": 0.75, "cart": 0.17, "purchase": 0.08}, "kit"),
    Platform("social", 0.25, {"like": 0.70, "share": 0.20, "follow": 0.10}, "group"),
    Platform("music", 0.20, {"play": 0.90, "like": 0.10}, "album"),
    Platform("video", 0.15, {"watch": 0.85, "rate": 0.15}, "film"),
    Platform("search", 0.10, {"click": 1.0}, "guide"),
)
# Event type → largest value: a price, a share of the running time, a rating. The others have no value.
VALUES = {"purchase": 200.0, "play": 1.0, "watch": 1.0, "rate": 5.0}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the log is, and its seed. Same scale, same rows.

    Raises
    ------
    ConfigError
        If a field is out of range.
    """

    users: int
    """Number of users, from 1; a user has one id on all platforms. With few events, the least active users have none."""
    events: int
    """Exact number of users' events, from 1, less those on a platform before it opens; duplicates and bots come on top (see
    arrivals.py)."""
    items: int
    """Items of each platform, at least one for each topic."""
    days: int
    """Days from the first to the last event, from 1."""
    first_day: date
    """UTC day of the first events."""
    seed: int
    """Any whole number of 64 bits."""
    shared_taste: float = 1.0
    """Probability, 0 to 1, that a user's taste on a platform is the one shared by all platforms."""
    opens: Mapping[str, int] = field(default_factory=dict)
    """Platform → number of the day, from 0, on which it opens; the others are there from the first day on."""

    def __post_init__(self) -> None:
        ranges = {"users": (1, 2**31 - 1), "events": (1, 2**53), "items": (len(TOPICS), 2**31 - 1), "days": (1, 36_500)}
        for name, (low, high) in {**ranges, "seed": (-(2**63), 2**63 - 1), "shared_taste": (0, 1)}.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected {low} to {high}")
        if unknown := self.opens.keys() - {platform.name for platform in PLATFORMS}:
            raise ConfigError(f"opens = {sorted(unknown)}: expected some of {[platform.name for platform in PLATFORMS]}")

    def draw(self, what: str, *keys: Column | str) -> Column:
        """Return a uniform number in [0, 1); see :func:`metarec_spark.synthetic.draws.uniform`."""
        return uniform(self.seed, what, *keys)


def items(spark: SparkSession, scale: Scale) -> DataFrame:
    """All items of all platforms as (item_id, domain, title, attributes).

    No two items of a platform have the same title: it names the topic with two of its words, in an order of its own for each
    platform, and, once all pairs of words are used, a number. The second word is the topic. One in ten ``topic:`` attributes is
    drawn from all, one in ten is missing.
    """
    keys = ["platform", "number"]
    numbered = spark.range(len(PLATFORMS) * scale.items).select(
        F.expr(f"cast(id div {scale.items} as int)").alias("platform"),
        (F.col("id") % scale.items).alias("number"),
    )
    numbered = numbered.withColumn("topic", F.col("number") % len(TOPICS))
    describing, naming = ([words[part] for words in TOPICS.values()] for part in (0, 1))
    words = len(describing[0])  # as many as naming ones
    pairs = F.sequence(F.lit(0), F.lit(words**2 - 1))
    order = F.array_sort(
        F.transform(pairs, lambda pair: F.struct(scale.draw("title", "platform", "topic", pair), pair.alias("pair")))
    )
    in_topic = F.expr(f"cast(number div {len(TOPICS)} as int)")
    pair, edition = order[in_topic % words**2]["pair"], 1 + F.floor(in_topic / words**2)
    title = F.concat_ws(
        " ",
        F.lit(describing)[F.col("topic")][F.floor(pair / words)],
        F.lit(list(TOPICS))[F.col("topic")],
        F.lit(naming)[F.col("topic")][pair % words],
        of_platform([p.noun for p in PLATFORMS]),
        F.when(edition > 1, edition.cast("string")),
    )
    brand = F.lit(BRANDS)[(F.col("topic") + F.floor(scale.draw("brand", *keys) * 3)) % len(BRANDS)]
    drawn = scale.draw("attribute", *keys)
    any_topic = F.floor(scale.draw("attribute topic", *keys) * len(TOPICS))
    shown_topic = F.lit(list(TOPICS))[F.when(drawn < 0.8, F.col("topic")).when(drawn < 0.9, any_topic)]
    attributes = F.array_compact(F.array(F.concat(F.lit("brand:"), brand), F.concat(F.lit("topic:"), shown_topic)))
    return numbered.select(
        item_id(scale).alias(c.ITEM_ID),
        of_platform([p.name for p in PLATFORMS]).alias(c.DOMAIN),
        title.alias(c.TITLE),
        attributes.alias(c.ATTRIBUTES),
    )


def item_id(scale: Scale) -> Column:
    """Return the item id of (platform, number); numbers go from 0 to ``scale.items`` − 1."""
    shown = scattered(F.col("number"), scale.items, scale.draw("item", "platform")).cast("string")
    prefix = of_platform([f"{p.name}-" for p in PLATFORMS])
    return F.concat(prefix, F.lpad(shown, max(6, len(str(scale.items))), "0"))


def items_of_topic(topic: Column, scale: Scale) -> Column:
    """Return the number of a platform's items with the topic: number % topics is an item's topic, number div topics its rank."""
    return F.floor((scale.items - 1 - topic) / len(TOPICS)) + 1


def of_platform(values: list[str] | list[float] | list[Column]) -> Column:
    """Return the value of the row's platform, from values in the order of ``PLATFORMS``."""
    return F.array(*[value if isinstance(value, Column) else F.lit(value) for value in values])[F.col("platform")]
