"""recommend: user_sequences + each domain's newest approved model + newer items → the day's rows of ``recommendations``."""

from __future__ import annotations

import math
from contextlib import ExitStack
from functools import partial, reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import ModelRejected
from metarec_spark.features.encoding import encoded, position
from metarec_spark.features.run import users_as_of
from metarec_spark.job import Job, Result, log
from metarec_spark.model import bundle
from metarec_spark.scoring import increment, newcomers, rules
from metarec_spark.scoring.batch import SCHEMA, Task, score
from metarec_spark.scoring.newcomers import Newcomers
from metarec_spark.scoring.rules import Rules
from metarec_spark.storage import local_path

USERS_PER_TASK = 5_000
_PINNED = (c.USER_SEQUENCES, c.EVENTS, c.ITEMS, c.ITEM_CONTENT, c.ITEM_TRANSITIONS)


def recommend(job: Job) -> Result:
    """Write the top-N of every (user, domain) that is due, replacing the day's rows."""
    config = job.config
    serving = models_of_domains(job)
    versions = {name: job.warehouse.version(name) for name in _PINNED}
    withheld = rules.withhold(job, versions[c.ITEMS])
    versions |= {} if withheld is None else {c.WITHHELD: withheld}
    users = users_as_of(job, job.ds, versions, config.features)
    served = [domain for _, domains in serving for domain in domains]
    unknown = users.select(F.explode("active_domains").alias(c.DOMAIN)).where(~F.col(c.DOMAIN).isin(served))
    unknown = {r[0]: r[1] for r in unknown.groupBy(c.DOMAIN).count().toLocalIterator()}
    if unknown:
        log.warning("no lists in domains that no approved model serves: %s (users each); train again, or adapt", unknown)
    ids = [model["model_id"] for model, _ in serving]
    with ExitStack() as written:
        came = [written.enter_context(newcomers.written(job, local_path(model["path"]), versions)) for model, _ in serving]
        ruled = written.enter_context(rules.written(job, versions))
        manifests = [bundle.read_manifest(local_path(model["path"])) for model, _ in serving]
        known = [(manifest, domains, new) for manifest, (_, domains), new in zip(manifests, serving, came, strict=True)]
        shaped = increment.settings(job, versions, known, ruled)
        kept = increment.kept(job, versions, known, shaped)
        due = users.join(kept.changed, c.USER_ID, "left_semi") if kept else users
        count = due.count()
        tasks = max(job.spark.sparkContext.defaultParallelism, math.ceil(count / USERS_PER_TASK))
        rows = [_lists(job, due, *served, new, ruled, tasks) for served, new in zip(serving, came, strict=True)]
        rows += [kept.lists] if kept else []
        commit = job.commit(inputs=versions, model_id=" ".join(ids), settings=shaped)
        job.warehouse.replace_days(c.RECOMMENDATIONS, reduce(DataFrame.unionByName, rows), "ds", job.ds, job.ds, commit)
    written = job.warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(job.ds))
    counts = written.agg(F.count("*"), F.countDistinct(c.USER_ID), F.coalesce(F.sum(F.size("items")), F.lit(0))).first()
    log.info("recommendations: %d lists for %d users, %d items, by %s; %d users scored", *counts, ", ".join(ids), count)
    details = {"items": counts[2], "models": ids, "new_items": [new.count if new else 0 for new in came], "scored_users": count}
    return Result(rows_in=counts[1], rows_out=counts[0], model_id=ids[0], details=details)


def _lists(
    job: Job, users: DataFrame, model: dict, domains: list[str], came: Newcomers | None, ruled: Rules | None, tasks: int
) -> DataFrame:
    """Rows of ``recommendations`` in the domains that one model serves."""
    folder, settings = local_path(model["path"]), job.config.recommend
    folders = (str(of.folder) if of else None for of in (came, ruled))
    task = Task(str(folder), settings.top_n, settings.exclude_seen, *folders, settings.min_score)
    rows = inputs(users, bundle.read_manifest(folder), domains, came, everywhere=settings.users == "all")
    rows = rows.where(F.size("wanted") > 0).repartition(tasks, c.USER_ID).sortWithinPartitions(c.USER_ID)
    rows = rows.mapInArrow(partial(score, task=task), SCHEMA)
    return rows.withColumns({"ds": F.lit(job.ds), "model_id": F.lit(model["model_id"])})


def newest_approved(job: Job) -> dict:
    """The approved base model with the newest day not after the job's.

    Raises
    ------
    ModelRejected
        Where there is none.
    """
    return next(row for row in _approved(job) if row["kind"] == "base")


def models_of_domains(job: Job) -> list[tuple[dict, list[str]]]:
    """Models, each with the domains that it serves today: of each domain the newest approved one; of a day's, an adapted one.

    Raises
    ------
    ModelRejected
        Where there is none.
    """
    models: dict[str, dict] = {}
    of_domain: dict[str, str] = {}
    for row in _approved(job):
        models[row["model_id"]] = row
        for domain in row["domains"]:
            of_domain.setdefault(domain, row["model_id"])
    used = dict.fromkeys(of_domain.values())
    return [(models[model_id], sorted(d for d, by in of_domain.items() if by == model_id)) for model_id in used]


def _approved(job: Job) -> list[dict]:
    """Approved models not after the job's day, newest first: a few a week."""
    approved = job.warehouse.read(c.MODELS).where((F.col("status") == "approved") & (F.col("ds") <= F.lit(job.ds)))
    rows = approved.orderBy(F.desc("ds"), F.col("kind") == "base", F.desc("model_id")).toLocalIterator()
    found = [row.asDict() for row in rows]
    if not any(row["kind"] == "base" for row in found):
        raise ModelRejected(
            f"no approved model on or before {job.ds} in {job.warehouse.root}; run `metarec train` and `metarec evaluate`"
        )
    return found


def inputs(users: DataFrame, manifest: dict, served: list[str], came: Newcomers | None, *, everywhere: bool) -> DataFrame:
    """(user_id, encoded sequence, seen_items, wanted, active), as :func:`metarec_spark.scoring.batch.score` takes them."""
    shape = {name: manifest[name] for name in ("domains", "event_types", "items", "max_length")}
    if came:
        users = newcomers.known_events(users, came.items, shape["items"])
        shape["items"] = came.end
    names = F.array(*[F.lit(name) for name in served])
    place = partial(position, manifest["domains"])
    frame = users.withColumn("active", F.transform(F.array_intersect("active_domains", names), place))
    frame = frame.withColumn("wanted", F.transform(names, place) if everywhere else F.col("active"))
    return encoded(frame.drop("active_domains", "events"), **shape)
