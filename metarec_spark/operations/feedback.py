"""feedback: recommendations × later events → ``feedback``, and which domains to train again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.errors import DataError
from metarec_spark.features.behaviour import is_context
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.model import artifact

_KEY = (c.USER_ID, c.DOMAIN, c.ITEM_ID)


@dataclass(frozen=True)
class FeedbackDetails(Details):
    """What feedback reports beside its counts."""

    domains: dict[str, dict[str, float]]
    """Domain → lists, share of them that was followed, items, share of new items."""
    retrain: list[str]
    """Domains to train again."""


def collect(job: Job) -> Result:
    """Hold the lists of the last ``feedback.days`` days against the events up to the end of the job's day."""
    days = job.config.feedback.days
    first, last = job.ds - timedelta(days=days), job.ds - timedelta(days=1)
    versions = {name: job.warehouse.version(name) for name in (c.RECOMMENDATIONS, c.EVENTS)}
    lists = job.warehouse.read(c.RECOMMENDATIONS, versions[c.RECOMMENDATIONS]).where(
        F.col("ds").between(F.lit(first), F.lit(last))
    )
    if lists.isEmpty():
        raise DataError(f"no recommendations from {first} to {last}; run `metarec recommend` on a day before {job.ds}")
    events = job.warehouse.read(c.EVENTS, versions[c.EVENTS]).where(F.col(c.EVENT_DATE).between(F.lit(first), F.lit(job.ds)))
    events = events.where(~is_context(job.config.features.context_types))
    job.warehouse.replace_days(c.FEEDBACK, followed(lists, events, days), "ds", [(first, last)], job.commit(inputs=versions))
    written = job.warehouse.read(c.FEEDBACK).where(F.col("ds").between(F.lit(first), F.lit(last)))
    by_list = written.groupBy(c.DOMAIN, "ds", c.USER_ID).agg(F.max("followed").alias("hit"), F.count("*").alias("items"))
    outcome = by_list.groupBy(c.DOMAIN).agg(
        F.count("*").alias("lists"), F.avg(F.col("hit").cast("double")).alias("hit"), F.sum("items").alias("items")
    )
    domains = {
        row[c.DOMAIN]: {"lists": row["lists"], "followed": round(row["hit"], 4), "items": row["items"]}
        for row in outcome.toLocalIterator()
    }
    model = registry.newest_approved(job)
    today = events.where(F.col(c.EVENT_DATE) == F.lit(job.ds))
    share = _new_items(job, today, artifact.read_manifest(model.path).items)
    for domain, value in share.items():
        domains.setdefault(domain, {"lists": 0, "followed": 0.0, "items": 0})["new_item_share"] = value
    retrain = sorted(domain for domain, value in share.items() if value > job.config.feedback.retrain_new_items)
    log.info("feedback %s to %s: %s; train again: %s", first, last, domains, ", ".join(retrain) or "nothing")
    rows = sum(value["items"] for value in domains.values())
    return Result(rows_in=rows, rows_out=rows, model_id=model.model_id, details=FeedbackDetails(domains, retrain))


def followed(lists: DataFrame, events: DataFrame, days: int) -> DataFrame:
    """Rows of ``feedback``: every recommended item, with the first event of the user with it in the ``days`` days after.

    Parameters
    ----------
    lists
        Rows of ``recommendations``.
    events
        Rows of ``events`` on and after the lists' days.
    days
        Days after a list's day that count.
    """
    shown = lists.select("ds", c.USER_ID, c.DOMAIN, "model_id", F.posexplode("items").alias("place", "item"))
    shown = shown.select(
        "ds", c.USER_ID, c.DOMAIN, "model_id", (F.col("place") + 1).alias("rank"), F.col("item.item_id").alias(c.ITEM_ID)
    )
    daily = events.groupBy(*_KEY, c.EVENT_DATE).agg(F.min(c.EVENT_TIME).alias(c.EVENT_TIME))
    after = F.col(c.EVENT_DATE).between(F.date_add("ds", 1), F.date_add("ds", days))
    hits = shown.join(daily, list(_KEY)).where(after).groupBy("ds", *_KEY).agg(F.min(c.EVENT_TIME).alias(c.EVENT_TIME))
    rows = shown.join(hits, ["ds", *_KEY], "left").withColumn("followed", F.col(c.EVENT_TIME).isNotNull())
    return rows.select("ds", *_KEY, "rank", "model_id", "followed", c.EVENT_TIME)


def _new_items(job: Job, events: DataFrame, known: int) -> dict[str, float]:
    """Per domain, the share of the day's events that are with items that the model lacks; domains are few by nature."""
    indexed = events.join(job.warehouse.read(c.ITEMS).select(c.DOMAIN, c.ITEM_ID, c.ITEM_IDX), [c.DOMAIN, c.ITEM_ID])
    share = indexed.groupBy(c.DOMAIN).agg(F.avg((F.col(c.ITEM_IDX) >= known).cast("double")).alias("share"))
    return {row[0]: round(row[1], 4) for row in share.toLocalIterator()}
