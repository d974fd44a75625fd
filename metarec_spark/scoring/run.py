"""recommend: user_sequences + the newest approved model → the day's rows of ``recommendations``."""

from __future__ import annotations

import math
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import ModelRejected
from metarec_spark.features.encoding import encoded, position
from metarec_spark.features.run import users_as_of
from metarec_spark.job import Job, Result, log
from metarec_spark.model import bundle
from metarec_spark.scoring.batch import SCHEMA, Task, score
from metarec_spark.storage import local_path

USERS_PER_TASK = 5_000


def recommend(job: Job) -> Result:
    """Write the top-N of every (user, domain) that is due, replacing the day's rows."""
    config = job.config
    row = newest_approved(job)
    folder = local_path(row["path"])
    manifest = bundle.read_manifest(folder)
    versions = {name: job.warehouse.version(name) for name in (c.USER_SEQUENCES, c.EVENTS, c.ITEMS)}
    users = users_as_of(job, job.ds, versions, config.features)
    unknown = users.select(F.explode("active_domains").alias(c.DOMAIN)).where(~F.col(c.DOMAIN).isin(manifest["domains"]))
    unknown = {r[0]: r[1] for r in unknown.groupBy(c.DOMAIN).count().toLocalIterator()}
    if unknown:
        log.warning("no lists in domains that model %s has not seen: %s (users each); train again", row["model_id"], unknown)
    task = Task(str(folder), config.recommend.top_n, config.recommend.exclude_seen)
    rows = inputs(users, manifest, everywhere=config.recommend.users == "all")
    tasks = max(job.spark.sparkContext.defaultParallelism, math.ceil(users.count() / USERS_PER_TASK))
    rows = rows.repartition(tasks, c.USER_ID).sortWithinPartitions(c.USER_ID).mapInArrow(partial(score, task=task), SCHEMA)
    rows = rows.withColumns({"ds": F.lit(job.ds), "model_id": F.lit(row["model_id"])})
    commit = job.commit(inputs=versions, model_id=row["model_id"])
    job.warehouse.replace_days(c.RECOMMENDATIONS, rows, "ds", job.ds, job.ds, commit)
    written = job.warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(job.ds))
    counts = written.agg(F.count("*"), F.countDistinct(c.USER_ID), F.coalesce(F.sum(F.size("items")), F.lit(0))).first()
    log.info("recommendations: %d lists for %d users, %d items, by model %s", *counts, row["model_id"])
    return Result(rows_in=counts[1], rows_out=counts[0], model_id=row["model_id"], details={"items": counts[2]})


def newest_approved(job: Job) -> dict:
    """The approved model with the newest day not after the job's.

    Raises
    ------
    ModelRejected
        Where there is none.
    """
    approved = job.warehouse.read(c.MODELS).where((F.col("status") == "approved") & (F.col("ds") <= F.lit(job.ds)))
    row = approved.orderBy(F.desc("ds"), F.desc("model_id")).first()
    if row is None:
        raise ModelRejected(
            f"no approved model on or before {job.ds} in {job.warehouse.root}; run `metarec train` and `metarec evaluate`"
        )
    return row.asDict()


def inputs(users: DataFrame, manifest: dict, *, everywhere: bool) -> DataFrame:
    """(user_id, encoded sequence, seen_items, wanted): ``wanted`` lists positions of the domains that are due."""
    domains = manifest["domains"]
    if everywhere:
        wanted = F.sequence(F.lit(0), F.lit(len(domains) - 1))
    else:
        positions = F.transform("active_domains", lambda name: position(domains, name))
        wanted = F.filter(positions, lambda place: place >= 0)
    frame = users.withColumn("wanted", wanted).drop("active_domains", "events")
    shape = {name: manifest[name] for name in ("domains", "event_types", "items", "max_length")}
    return encoded(frame, **shape)
