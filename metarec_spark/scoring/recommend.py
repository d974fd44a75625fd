"""recommend: user_sequences + each domain's newest approved model + newer items → the day's rows of ``recommendations``."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features.as_of import has_newer, users_as_of
from metarec_spark.features.encoding import encoded, position
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.model.manifest import Manifest
from metarec_spark.scoring import incremental, new_items, rules
from metarec_spark.scoring.batch import SCHEMA, Task, score, warm_up
from metarec_spark.scoring.incremental import Kept
from metarec_spark.scoring.rules import Rules
from metarec_spark.scoring.serving import ServingModel, models_of_domains
from metarec_spark.scoring.timings import Timings

USERS_PER_TASK, PAIRS_PER_TASK = 50_000, 2_500_000_000
"""Of a task, at most, about: some seconds of encoding, and of search. A task costs a tenth of a second to begin."""
USERS_PER_PROCESS = 20_000
"""Scored in about the time that one more process takes to start and to load the model."""
_PINNED = (c.USER_SEQUENCES, c.EVENTS, c.ITEMS, c.ITEM_CONTENT, c.ITEM_TRANSITIONS)


@dataclass(frozen=True)
class RecommendDetails(Details):
    """What recommend reports beside its counts."""

    items: int
    """Items in all lists."""
    models: list[str]
    new_items: list[int]
    """Of each model, items that came after it."""
    scored_users: int
    pairs: int
    """Of a scored user and an item on offer."""
    list_seconds: float
    processor_seconds: dict[str, float]
    """Of tasks, by part of the work."""


def recommend(job: Job) -> Result:
    """Write the top-N of every (user, domain) that is due, replacing the day's rows."""
    with ThreadPoolExecutor(1) as beside:
        beside.submit(_prepare, job)
        return _recommend(job)


def _prepare(job: Job) -> None:
    """Have processes ready that have imported PyTorch and the rest, which takes some seconds; one core is left to queries."""
    processes = max(1, job.spark.sparkContext.defaultParallelism - 1)
    job.spark.range(0, processes, 1, processes).mapInArrow(warm_up, "id long").write.format("noop").mode("overwrite").save()


def _recommend(job: Job) -> Result:
    models = models_of_domains(job)
    versions = {name: job.warehouse.version(name) for name in _PINNED}
    users = users_as_of(job, job.ds, versions, job.config.features)
    with ExitStack() as written:
        models = [replace(of, came=written.enter_context(new_items.written(job, of.folder, versions))) for of in models]
        ruled = written.enter_context(rules.written(job, versions[c.ITEMS], models))
        versions |= {c.WITHHELD: ruled.withheld} if ruled and ruled.withheld is not None else {}
        late = has_newer(job.warehouse, versions[c.USER_SEQUENCES], job.ds)
        shaped = None if late else incremental.settings(job, versions, models, ruled)
        kept = written.enter_context(incremental.kept(job, versions, models, shaped))
        work = _Work.of(job, users, kept, models, versions)
        due = users.join(kept.changed, c.USER_ID, "left_semi") if kept else users
        start = time.monotonic()
        rows = [_lists(job, due, of, ruled, work) for of in models] + ([kept.lists] if kept else [])
        ids = [of.model_id for of in models]
        commit = job.commit(inputs=versions, model_id=" ".join(ids), settings=shaped)
        job.warehouse.replace_days(c.RECOMMENDATIONS, reduce(DataFrame.unionByName, rows), "ds", job.ds, job.ds, commit)
        seconds = time.monotonic() - start
    lists = job.warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(job.ds))
    counts = lists.agg(F.count("*"), F.countDistinct(c.USER_ID), F.coalesce(F.sum(F.size("items")), F.lit(0))).first()
    log.info("recommendations: %d lists for %d users, %d items, by %s; %d users scored", *counts, ", ".join(ids), work.users)
    spent = {name: round(value, 3) for name, value in work.timings.seconds().items()}
    pairs = sum(work.pairs_of.values())
    log.info("%.3g pairs of a user and an item in %.1f s; processor seconds of tasks: %s", pairs, seconds, spent)
    new = [of.came.count if of.came else 0 for of in models]
    details = RecommendDetails(counts[2], ids, new, work.users, pairs, round(seconds, 1), spent)
    return Result(rows_in=counts[1], rows_out=counts[0], model_id=ids[0], details=details)


@dataclass(frozen=True)
class _Work:
    """What there is to score, and what it costs."""

    users: int
    pairs_of: dict[str, int]
    """Model → pairs of a user and an item on offer, in the domains where it makes the user a list."""
    timings: Timings
    cores: int
    """That tasks run on at a time."""

    @classmethod
    def of(cls, job: Job, users: DataFrame, kept: Kept | None, models: list[ServingModel], versions: dict[str, int]) -> _Work:
        due = F.lit(True).alias("due")
        users = users.join(kept.changed.select(c.USER_ID, due), c.USER_ID, "left") if kept else users.select("*", due)
        active = users.select("due", F.explode(F.array_append("active_domains", F.lit(None))).alias(c.DOMAIN))  # null: everyone
        counts = {name: of for name, *of in active.groupBy(c.DOMAIN).agg(F.count("*"), F.count("due")).toLocalIterator()}
        _, due_users = counts.pop(None, (0, 0))
        loaded_model = [domain for of in models for domain in of.domains]
        _warn(job, loaded_model, {name: everyone for name, (everyone, _) in counts.items() if name not in loaded_model})
        wanted = dict.fromkeys(loaded_model, due_users) if job.config.recommend.users == "all" else {}
        wanted = {name: due for name, (_, due) in counts.items()} | wanted
        items = job.warehouse.read(c.ITEMS, versions[c.ITEMS])
        items = reduce(DataFrame.unionByName, [of.known(items) for of in models])
        if c.WITHHELD in versions:
            items = items.join(job.warehouse.read(c.WITHHELD, versions[c.WITHHELD]), c.ITEM_IDX, "left_anti")
        sizes = dict(items.groupBy(c.DOMAIN).count().toLocalIterator())
        pairs_of = {of.model_id: sum(wanted.get(name, 0) * sizes.get(name, 0) for name in of.domains) for of in models}
        return cls(due_users, pairs_of, Timings(job.spark.sparkContext), job.spark.sparkContext.defaultParallelism)

    def tasks(self, model: ServingModel) -> int:
        """So many that none has more than ``USERS_PER_TASK`` users or ``PAIRS_PER_TASK`` pairs; as many as there are cores, where
        that leaves each ``USERS_PER_PROCESS``."""
        tasks = max(self.users / USERS_PER_TASK, self.pairs_of[model.model_id] / PAIRS_PER_TASK)
        return math.ceil(max(tasks, min(self.cores, self.users / USERS_PER_PROCESS), 1))


def _warn(job: Job, loaded_model: list[str], unserved: dict[str, int]) -> None:
    if unknown := sorted(job.config.recommend.min_score.keys() - loaded_model):
        log.warning("recommend.min_score names %s, which no approved model serves; served are %s", unknown, sorted(loaded_model))
    if unserved:
        said = "no lists in domains that no approved model serves: %s (users each); train again, or adapt"
        log.warning(said, unserved)


def _lists(job: Job, users: DataFrame, model: ServingModel, ruled: Rules | None, work: _Work) -> DataFrame:
    """Rows of ``recommendations`` in the domains that one model serves."""
    settings = job.config.recommend
    folders = (str(of.folder) if of else None for of in (model.came, ruled))
    task = Task(str(model.folder), settings.top_n, settings.exclude_seen, *folders, settings.min_score)
    rows = inputs(users, model.manifest, model.domains, model.came, everywhere=settings.users == "all")
    rows = rows.where(F.size("wanted") > 0).repartition(work.tasks(model), c.USER_ID).sortWithinPartitions(c.USER_ID)
    rows = rows.mapInArrow(partial(score, task=task, timings=work.timings), SCHEMA)
    return rows.withColumns({"ds": F.lit(job.ds), "model_id": F.lit(model.model_id)})


def inputs(
    users: DataFrame, manifest: Manifest, loaded_model: list[str], came: new_items.NewItems | None, *, everywhere: bool
) -> DataFrame:
    """(user_id, encoded sequence, seen_items, wanted, active), as :func:`metarec_spark.scoring.batch.score` takes them."""
    if came:
        users = new_items.known_events(users, came.items, manifest.items)
    names = F.array(*[F.lit(name) for name in loaded_model])
    place = partial(position, manifest.domains)
    frame = users.withColumn("active", F.transform(F.array_intersect("active_domains", names), place))
    frame = frame.withColumn("wanted", F.transform(names, place) if everywhere else F.col("active"))
    return encoded(
        frame.drop("active_domains", "events"),
        domains=manifest.domains,
        event_types=manifest.event_types,
        items=came.end if came else manifest.items,
        max_length=manifest.max_length,
    )
