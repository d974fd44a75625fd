"""The generated log: same rows from the same scale, and the properties that recommenders live on."""

from __future__ import annotations

from datetime import date

import pytest
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from metarec_spark.errors import ConfigError
from metarec_spark.synthetic.arrivals import BOT_EVENTS, KINDS, UNKNOWN_TYPE, events
from metarec_spark.synthetic.generate import generate
from metarec_spark.synthetic.platforms import PLATFORMS, Scale, items
from metarec_spark.synthetic.topics import TOPICS


def scale(**fields: object) -> Scale:
    defaults = {"users": 1000, "events": 30_000, "items": 240, "days": 14, "first_day": date(2026, 3, 1), "seed": 7}
    return Scale(**(defaults | fields))


LARGE = scale(users=10_000, events=100_000, items=1200)


def with_topics(spark: SparkSession, log: DataFrame, of: Scale) -> DataFrame:
    """Clean events with the topic of their item, as its title names it."""
    topics = items(spark, of).select("item_id", F.split("title", " ")[1].alias("topic"))
    return log.where("kind = 'clean'").join(topics, "item_id")


def in_pairs(log: DataFrame) -> DataFrame:
    """(item, next_item, topic, next_topic) of consecutive events of a session: at most two minutes apart."""
    order = Window.partitionBy("user_id").orderBy("event_time")
    following = F.lead(F.struct("item_id", "topic", "event_time")).over(order)
    pairs = log.withColumn("next", following).where("unix_millis(next.event_time) - unix_millis(event_time) < 120000")
    return pairs.selectExpr("user_id", "item_id AS item", "next.item_id AS next_item", "topic", "next.topic AS next_topic")


def agreement(counts: DataFrame, other: DataFrame, condition: str = "true") -> float:
    """Share of equal topics among pairs of a user's events, one from each side, that meet the condition."""
    pairs = counts.alias("a").join(other.alias("b"), "user_id").where(condition)
    weight = F.col("a.count") * F.col("b.count")
    return pairs.agg(F.sum(F.when(F.expr("a.topic = b.topic"), weight)) / F.sum(weight)).first()[0]


def fingerprint(frame: DataFrame) -> tuple:
    """Row count and sum of row hashes: equal for the same rows in any order, and for practically no others."""
    row_hash = F.xxhash64(*sorted(frame.columns)).cast("decimal(38,0)")
    return frame.agg(F.count("*"), F.sum(row_hash)).first()


@pytest.fixture(scope="module")
def log(spark):
    cached = events(spark, scale()).cache()
    yield cached
    cached.unpersist()


@pytest.fixture(scope="module")
def large(spark):
    """Clean events enough for shares of platforms and items, without a user that weighs in them."""
    cached = events(spark, LARGE).where("kind = 'clean'").cache()
    yield cached
    cached.unpersist()


@pytest.fixture(scope="module")
def topical(spark, log):
    cached = with_topics(spark, log, scale()).cache()
    yield cached
    cached.unpersist()


def test_rows_depend_on_scale_and_seed_but_not_on_partitions(spark):
    small = scale(users=100, events=1000)
    one = fingerprint(events(spark, small, partitions=1))
    before = spark.conf.get("spark.sql.shuffle.partitions")
    try:
        spark.conf.set("spark.sql.shuffle.partitions", 3)
        assert fingerprint(events(spark, small, partitions=5)) == one
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert fingerprint(events(spark, scale(users=100, events=1000, seed=8))) != one


@pytest.mark.parametrize(("users", "number"), [(1, 7), (1000, 30_000)])
def test_people_have_exactly_the_events_asked_for(spark, users, number):
    log = events(spark, scale(users=users, events=number))
    assert log.where("kind NOT IN ('bot', 'duplicate')").count() == number


def test_a_platform_has_no_events_before_it_opens_and_the_others_stay_as_they_are(spark):
    small, before = scale(users=100, events=1000), F.col("event_time") < "2026-03-12"
    (all_rows, opened) = (events(spark, of) for of in (small, scale(users=100, events=1000, opens={"search": 11})))
    kept = all_rows.where((F.col("domain") != "search") | ~before | F.col("event_time").isNull())
    assert kept.exceptAll(opened).isEmpty() and opened.where((F.col("domain") == "search") & before).isEmpty()
    assert all_rows.count() - opened.count() > 0
    with pytest.raises(ConfigError, match="opens = .'books'.: expected some of"):
        scale(opens={"books": 3})


def test_every_kind_of_row_is_there_and_is_what_it_says(log):
    shares = {row["kind"]: row["count"] / 30_000 for row in log.groupBy("kind").count().collect()}
    assert {kind: shares[kind] for kind in KINDS} == pytest.approx(KINDS, rel=0.5)
    is_blank = "({0} IS NULL OR {0} = ' ')"
    kinds = {
        "late": "datediff(ds, event_time) BETWEEN 1 AND 2",
        "null_user": is_blank.format("user_id"),
        "null_item": is_blank.format("item_id"),
        "unknown_type": f"event_type = '{UNKNOWN_TYPE}'",
        "bad_time": "event_time IS NULL",
        "future_time": "year(event_time) = 2200",
    }
    wrong = [F.count_if(F.expr(f"coalesce({holds}, false) != (kind = '{kind}')")).alias(kind) for kind, holds in kinds.items()]
    assert log.agg(*wrong).first().asDict() == dict.fromkeys(kinds, 0)
    doubled = log.where("kind = 'duplicate'").drop("kind")
    assert doubled.exceptAll(log.where("kind = 'clean'").drop("kind")).isEmpty()


def test_rows_lie_within_the_log_and_arrive_on_their_day(log):
    wrong = log.where("kind IN ('clean', 'duplicate', 'bot') AND ds != to_date(event_time)")
    assert wrong.isEmpty()
    real = log.where("kind != 'future_time'")
    first, last = date(2026, 3, 1), date(2026, 3, 14)
    assert real.agg(F.min(F.to_date("event_time")), F.max(F.to_date("event_time"))).first() == (first, last)
    assert log.agg(F.min("ds"), F.max("ds")).first() == (first, last)


def test_bots_are_past_the_people_and_do_it_all_in_one_hour(log):
    hour = F.date_trunc("hour", "event_time").alias("hour")
    hourly = log.where("user_id >= 'u0001000'").groupBy("kind", "user_id", hour).count()
    assert [(row["kind"], row["count"]) for row in hourly.collect()] == [("bot", BOT_EVENTS)] * 2


def test_activity_is_long_tailed(log):
    per_user = log.where("kind = 'clean'").groupBy("user_id").count()
    counts = sorted((row["count"] for row in per_user.collect()), reverse=True)
    assert sum(counts[:10]) > 0.2 * sum(counts)
    assert counts[len(counts) // 2] < 0.5 * sum(counts) / len(counts)


def test_platforms_have_their_shares_and_users_are_on_one_to_five(large):
    total = large.count()
    sizes = {row["domain"]: row["count"] / total for row in large.groupBy("domain").count().collect()}
    assert sizes == pytest.approx({platform.name: platform.share for platform in PLATFORMS}, rel=0.25)
    busy = large.groupBy("user_id").agg(F.countDistinct("domain").alias("domains"), F.count("*").alias("n")).where("n > 60")
    users = {row["domains"]: row["count"] for row in busy.groupBy("domains").count().collect()}
    assert set(users) == {1, 2, 3, 4, 5}
    assert min(users.values()) > 0.05 * sum(users.values())


def test_event_types_and_values_are_of_the_platform(log):
    found = log.where("kind = 'clean'").groupBy("domain", "event_type").agg(F.max("value").alias("value")).collect()
    known = {(platform.name, kind) for platform in PLATFORMS for kind in platform.event_types}
    assert {(row["domain"], row["event_type"]) for row in found} == known
    assert {row["event_type"] for row in found if row["value"] is not None} == {"purchase", "play", "watch", "rate"}


def test_a_session_stays_with_its_topic(topical):
    same = in_pairs(topical).agg(F.avg(F.expr("int(topic = next_topic)"))).first()[0]
    assert 10 / len(TOPICS) < same < 0.75


def test_the_next_item_can_be_learned_from_other_users(topical):
    pairs = in_pairs(topical).withColumn("learn", F.expr("int(substring(user_id, -1)) < 7"))
    strongest = Window.partitionBy("item").orderBy(F.desc("count"), "next_item")
    learned = pairs.where("learn").groupBy("item", "next_item").count().withColumn("place", F.row_number().over(strongest))
    learned = learned.where("place = 1").selectExpr("item", "next_item AS expected")
    tested = pairs.where("NOT learn").join(learned, "item")
    hit = tested.agg(F.avg(F.expr("int(next_item = expected)"))).first()[0]
    popular = topical.groupBy("item_id").count().agg(F.max("count")).first()[0] / topical.count()
    assert 0.25 < hit < 0.6
    assert hit > 10 * popular


def test_a_tenth_of_the_items_has_far_more_than_a_tenth_of_the_events(large):
    tenth = F.ntile(10).over(Window.orderBy(F.desc("count"), "item_id")).alias("tenth")
    counts = large.groupBy("item_id").count().select(tenth, "count").groupBy("tenth").agg(F.sum("count").alias("events"))
    of_tenth = {row["tenth"]: row["events"] for row in counts.collect()}
    assert of_tenth[1] > 0.25 * sum(of_tenth.values())
    assert of_tenth[1] > 8 * of_tenth[10]


def test_a_shared_taste_is_the_same_on_other_platforms(spark, topical):
    other = scale(shared_taste=0.0)
    apart = with_topics(spark, events(spark, other), other)
    agreed = {}
    for name, log in (("shared", topical), ("own", apart)):
        counts = log.groupBy("user_id", "domain", "topic").count().cache()
        agreed[name] = agreement(counts, counts, "a.domain < b.domain")
        counts.unpersist()
    assert agreed["own"] < 1.5 / len(TOPICS)
    assert agreed["shared"] > 2.5 * agreed["own"]


def test_interests_drift(spark):
    long = scale(users=300, days=112)
    clean = with_topics(spark, events(spark, long), long)
    week = F.floor(F.datediff("event_time", F.lit(long.first_day)) / 7).alias("week")
    counts = clean.groupBy("user_id", week, "topic").count().cache()
    soon = agreement(counts, counts, "b.week = a.week + 1")
    later = agreement(counts, counts, "b.week >= a.week + 8")
    counts.unpersist()
    assert soon > 1.5 * later


def test_items_have_unique_ids_readable_titles_and_noisy_topics(spark, log):
    catalogue = items(spark, scale()).cache()
    assert catalogue.select("item_id", "domain").distinct().count() == 240 * len(PLATFORMS)
    named = log.where("kind != 'null_item'").select("item_id", "domain").distinct()
    assert named.join(catalogue, ["item_id", "domain"], "left_anti").isEmpty()
    (title,) = catalogue.where("item_id = 'shop-000000'").select("title").first()
    describing, topic, naming, noun, *_ = title.split()
    assert describing in TOPICS[topic][0] and naming in TOPICS[topic][1] and noun == "kit"
    many = items(spark, scale(items=1200))
    assert many.select("domain", "title").distinct().count() == many.count() == 1200 * len(PLATFORMS)
    said = catalogue.withColumn("said", F.expr("get(filter(attributes, a -> a LIKE 'topic:%'), 0)"))
    right = F.expr("int(said = concat('topic:', split(title, ' ')[1]))")
    missing, correct = said.agg(F.avg(F.expr("int(said IS NULL)")), F.avg(right)).first()
    assert missing == pytest.approx(0.1, abs=0.03)
    assert 0.8 < correct < 0.98
    catalogue.unpersist()


def test_generate_writes_by_arrival_day_and_counts_what_it_wrote(spark, tmp_path):
    small = scale(users=50, events=500, days=3)
    counts = generate(spark, small, f"file://{tmp_path}/")
    assert sorted(path.name for path in (tmp_path / "events").glob("ds=*")) == ["ds=2026-03-01", "ds=2026-03-02", "ds=2026-03-03"]
    written = spark.read.parquet(f"file://{tmp_path}/events")
    assert fingerprint(written) == fingerprint(events(spark, small).drop("kind"))
    assert sum(counts.values()) - counts["items"] == written.count()
    assert counts["items"] == spark.read.parquet(f"file://{tmp_path}/items").count()
    assert counts["bot"] == 2 * BOT_EVENTS and set(counts) == {"clean", "bot", "items", *KINDS}
    with pytest.raises(ConfigError, match="events exists already"):
        generate(spark, small, f"file://{tmp_path}")


@pytest.mark.parametrize(("field", "value"), [("users", 0), ("events", 0), ("items", 23), ("days", 0), ("shared_taste", 1.5)])
def test_a_scale_out_of_range_names_the_field(field, value):
    with pytest.raises(ConfigError, match=f"^{field} = {value}: expected"):
        scale(**{field: value})
