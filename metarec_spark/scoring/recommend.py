"""recommend: user_sequences + each platform's newest approved model + newer items → the day's rows of ``recommendations``."""

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
from metarec_spark.scoring.batch import SCHEMA, ScoringTask, score, warm_up
from metarec_spark.scoring.incremental import ReusableLists, list_fingerprint, reusable_lists
from metarec_spark.scoring.new_items import NewItems, known_events, write_new_items
from metarec_spark.scoring.rules import Rules, write_rules
from metarec_spark.scoring.serving import ServingModel, serving_models
from metarec_spark.scoring.timings import Timings

USERS_PER_TASK, PAIRS_PER_TASK = 50_000, 2_500_000_000
"""Upper bounds of a Spark task: some seconds of encoding, and of search. Starting a task costs a tenth of a second."""
USERS_PER_PROCESS = 20_000
"""Users scored in the time that one more process takes to start and to load the model."""
_PINNED = (c.USER_SEQUENCES, c.EVENTS, c.ITEMS, c.ITEM_CONTENT, c.ITEM_TRANSITIONS)


@dataclass(frozen=True)
class RecommendDetails(Details):
    """Counts and costs of recommend."""

    items: int
    """Items in all lists."""
    models: list[str]
    new_items: list[int]
    """Model by model, items that are newer than it."""
    scored_users: int
    pairs: int
    """Pairs of a scored user and an eligible item."""
    list_seconds: float
    processor_seconds: dict[str, float]
    """Of Spark tasks, by part of the work."""


def recommend(job: Job) -> Result:
    """Write the top-N of every user and platform, replacing the day's rows."""
    with ThreadPoolExecutor(1) as background:
        background.submit(_start_workers, job)
        return _recommend(job)


def _start_workers(job: Job) -> None:
    """Start worker processes that have imported PyTorch and the rest, which takes seconds; one core is left to queries."""
    processes = max(1, job.spark.sparkContext.defaultParallelism - 1)
    job.spark.range(0, processes, 1, processes).mapInArrow(warm_up, "id long").write.format("noop").mode("overwrite").save()


def _recommend(job: Job) -> Result:
    models = serving_models(job)
    versions = {name: job.warehouse.version(name) for name in _PINNED}
    users = users_as_of(job, job.ds, versions, job.config.features)
    with ExitStack() as scratch_folders:
        models = [
            replace(model, new_items=scratch_folders.enter_context(write_new_items(job, model.folder, versions)))
            for model in models
        ]
        rules = scratch_folders.enter_context(write_rules(job, versions[c.ITEMS], models))
        versions |= {c.WITHHELD: rules.withheld} if rules and rules.withheld is not None else {}
        run_late = has_newer(job.warehouse, versions[c.USER_SEQUENCES], job.ds)
        settings = None if run_late else list_fingerprint(job, versions, models, rules)
        reused = scratch_folders.enter_context(reusable_lists(job, versions, models, settings))
        workload = _Workload.from_tables(job, users, reused, models, versions)
        due = users.join(reused.changed, c.USER_ID, "left_semi") if reused else users
        start = time.monotonic()
        rows = [_lists(job, due, model, rules, workload) for model in models] + ([reused.lists] if reused else [])
        commit = job.commit(inputs=versions, model_id=" ".join(model.model_id for model in models), settings=settings)
        job.warehouse.replace_days(c.RECOMMENDATIONS, reduce(DataFrame.unionByName, rows), "ds", [(job.ds, job.ds)], commit)
        seconds = time.monotonic() - start
    return _result(job, models, workload, seconds)


def _result(job: Job, models: list[ServingModel], workload: _Workload, seconds: float) -> Result:
    """Return what was written, and log it."""
    lists = job.warehouse.read(c.RECOMMENDATIONS).where(F.col("ds") == F.lit(job.ds))
    rows = lists.agg(F.count("*"), F.countDistinct(c.USER_ID), F.coalesce(F.sum(F.size("items")), F.lit(0))).toLocalIterator()
    list_count, user_count, item_count = next(iter(rows))
    ids = [model.model_id for model in models]
    counts = list_count, user_count, item_count, ", ".join(ids), workload.users
    log.info("recommendations: %d lists for %d users, %d items, by %s; %d users scored", *counts)
    spent = {name: round(used, 3) for name, used in workload.timings.seconds().items()}
    pairs = sum(workload.pairs_of.values())
    log.info("%.3g pairs of a user and an item in %.1f s; processor seconds of tasks: %s", pairs, seconds, spent)
    details = RecommendDetails(
        items=item_count,
        models=ids,
        new_items=[model.new_items.count if model.new_items else 0 for model in models],
        scored_users=workload.users,
        pairs=pairs,
        list_seconds=round(seconds, 1),
        processor_seconds=spent,
    )
    return Result(rows_in=user_count, rows_out=list_count, model_id=ids[0], details=details)


@dataclass(frozen=True)
class _Workload:
    """How much there is to score."""

    users: int
    pairs_of: dict[str, int]
    """Model → pairs of a user and an eligible item, over the lists that it makes."""
    timings: Timings
    cores: int
    """Tasks that run at a time."""

    @classmethod
    def from_tables(
        cls, job: Job, users: DataFrame, reused: ReusableLists | None, models: list[ServingModel], versions: dict[str, int]
    ) -> _Workload:
        """Count users and items of each platform; platforms without a model are warned of."""
        active, due = _users_by_domain(users, reused)
        served = [domain for model in models for domain in model.domains]
        _warn(job, served, {name: everyone for name, (everyone, _) in active.items() if name not in served})
        wanted = {name: changed for name, (_, changed) in active.items()}
        wanted |= dict.fromkeys(served, due) if job.config.recommend.users == "all" else {}
        sizes = _eligible_by_domain(job, models, versions)
        pairs_of = {model.model_id: sum(wanted.get(name, 0) * sizes.get(name, 0) for name in model.domains) for model in models}
        return cls(due, pairs_of, Timings(job.spark.sparkContext), job.spark.sparkContext.defaultParallelism)

    def tasks(self, model: ServingModel) -> int:
        """Return the number of Spark tasks: none exceeds ``USERS_PER_TASK`` or ``PAIRS_PER_TASK``; one per core if each then
        still gets ``USERS_PER_PROCESS``."""
        tasks = max(self.users / USERS_PER_TASK, self.pairs_of[model.model_id] / PAIRS_PER_TASK)
        return math.ceil(max(tasks, min(self.cores, self.users / USERS_PER_PROCESS), 1))


def _users_by_domain(users: DataFrame, reused: ReusableLists | None) -> tuple[dict[str, tuple[int, int]], int]:
    """Return domain → (active users, those of them who are scored), and the number of all users who are scored."""
    due = F.lit(True).alias("due")
    users = users.join(reused.changed.select(c.USER_ID, due), c.USER_ID, "left") if reused else users.select("*", due)
    active = users.select("due", F.explode(F.array_append("active_domains", F.lit(None))).alias(c.DOMAIN))  # null: everyone
    rows = active.groupBy(c.DOMAIN).agg(F.count("*"), F.count("due")).toLocalIterator()
    counts = {name: (everyone, due_users) for name, everyone, due_users in rows}
    return counts, counts.pop(None, (0, 0))[1]


def _eligible_by_domain(job: Job, models: list[ServingModel], versions: dict[str, int]) -> dict[str, int]:
    """Return the number of eligible items of each platform that is served."""
    items = job.warehouse.read(c.ITEMS, versions[c.ITEMS])
    items = reduce(DataFrame.unionByName, [model.known_items(items) for model in models])
    if c.WITHHELD in versions:
        items = items.join(job.warehouse.read(c.WITHHELD, versions[c.WITHHELD]), c.ITEM_IDX, "left_anti")
    return {row[c.DOMAIN]: row["count"] for row in items.groupBy(c.DOMAIN).count().toLocalIterator()}


def _warn(job: Job, served: list[str], unserved: dict[str, int]) -> None:
    if unknown := sorted(job.config.recommend.min_score.keys() - set(served)):
        log.warning("recommend.min_score names %s, which no approved model serves; served are %s", unknown, sorted(served))
    if unserved:
        log.warning("no lists in domains that no approved model serves: %s (users each); train again, or adapt", unserved)


def _lists(job: Job, users: DataFrame, model: ServingModel, rules: Rules | None, workload: _Workload) -> DataFrame:
    """Return rows of ``recommendations`` on the platforms that one model serves."""
    settings, new_items = job.config.recommend, model.new_items
    task = ScoringTask(
        model=str(model.folder),
        top_n=settings.top_n,
        seen_allowed=model.seen_allowed(settings),
        new_items=str(new_items.folder) if new_items else None,
        rules=str(rules.folder) if rules else None,
        min_score=settings.min_score,
    )
    rows = inputs(users, model.manifest, model.domains, new_items, everywhere=settings.users == "all")
    rows = rows.where(F.size("wanted") > 0).repartition(workload.tasks(model), c.USER_ID).sortWithinPartitions(c.USER_ID)
    rows = rows.mapInArrow(partial(score, task=task, timings=workload.timings), SCHEMA)
    return rows.withColumns({"ds": F.lit(job.ds), "model_id": F.lit(model.model_id)})


def inputs(users: DataFrame, manifest: Manifest, served: list[str], new_items: NewItems | None, *, everywhere: bool) -> DataFrame:
    """Return (user_id, encoded sequence, seen_items, wanted, active), as :func:`metarec_spark.scoring.batch.score` takes them.

    Parameters
    ----------
    served
        Platforms that get lists.
    everywhere
        Whether users get lists on platforms where they have no event.
    """
    if new_items:
        users = known_events(users, new_items.items, manifest.items)
    names = F.array(*[F.lit(name) for name in served])
    positions = partial(position, manifest.domains)
    frame = users.withColumn("active", F.transform(F.array_intersect("active_domains", names), positions))
    frame = frame.withColumn("wanted", F.transform(names, positions) if everywhere else F.col("active"))
    return encoded(
        frame.drop("active_domains", "events"),
        domains=manifest.domains,
        event_types=manifest.event_types,
        items=new_items.end if new_items else manifest.items,
        max_length=manifest.max_length,
        context_types=manifest.features.context_types,
    )
