"""extract: logs → events, rejected_events, quality → items → user_sequences, item_content → item_transitions.

Rows of new files are added to ``events`` (:mod:`metarec_spark.features.ingestion`). The later tables are updated from the change
feed of ``events``, since the version that they were last made from: the next run completes a run that was killed between two
tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.config.sections import Features
from metarec_spark.errors import DataError
from metarec_spark.features import erased
from metarec_spark.features.as_of import erased_users, transition_settings
from metarec_spark.features.behaviour import has_dislikes, is_dislike, meanings
from metarec_spark.features.caching import cached
from metarec_spark.features.change_feed import EventChanges, losing
from metarec_spark.features.content import content, usable
from metarec_spark.features.ingestion import ingest
from metarec_spark.features.items import counted, recounted, require_known, updated
from metarec_spark.features.sequences import extended, sequences
from metarec_spark.features.split import held_out, train_part
from metarec_spark.features.transitions import transitions
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.sources.items import CONFLICT, open_information
from metarec_spark.warehouse.storage import scratch_folder


@dataclass(frozen=True)
class ExtractDetails(Details):
    """What extract reports beside its counts."""

    files: int
    """Files that were read, wholly or for some days."""
    rejected: dict[str, int]
    """Rows by reason."""
    forgotten: int
    """Rows of erased users."""
    left_out: dict[str, int]
    """Stopped day → rows that were not published."""
    unusable_vectors: int
    items: int
    """Rows of the table, as of ``user_sequences``."""
    user_sequences: int


def extract(job: Job, *, history: bool = False) -> Result:
    """Bring all feature tables to the end of the job's day.

    Parameters
    ----------
    history
        Read all files of the sources again, not only new and changed ones.
    """
    if not job.config.sources:
        raise DataError("no [[sources]] in the configuration; name at least one behaviour log to extract from")
    counts = ingest(job, history=history)
    with _item_information(job) as (information, unusable_vectors):
        with EventChanges(job.warehouse, job.warehouse.version(c.EVENTS)) as changes:
            _items(job, changes, information)
            _sequences(job, changes)
        _content(job, information)
    _transitions(job)
    details = ExtractDetails(
        files=counts.files,
        rejected=counts.rejected,
        forgotten=counts.forgotten,
        left_out={str(day): rows for day, rows in counts.left_out.items()},
        unusable_vectors=unusable_vectors,
        items=job.warehouse.read(c.ITEMS).count(),
        user_sequences=job.warehouse.read(c.USER_SEQUENCES).count(),
    )
    return Result(rows_in=counts.read, rows_out=counts.events, details=details)


@contextmanager
def _item_information(job: Job) -> Iterator[tuple[DataFrame | None, int]]:
    """Item information of all item sources, one row per item, and the number of content vectors that are not usable."""
    if not job.config.items:
        yield None, 0
        return
    rows = erased.without_items(open_information(job.spark, job.config.items), erased_users(job))
    with cached(rows, StorageLevel.DISK_ONLY) as rows:
        conflicts, unusable = rows.agg(F.count_if(CONFLICT), F.count_if(~usable(F.col(c.CONTENT)))).collect()[0]
        if conflicts:
            log.warning(
                "%d items have rows that differ in title, attributes or content; the fuller and newer one counts", conflicts
            )
        if unusable:
            log.warning(
                "%d content vectors have values that are not finite numbers; these items have no content vector", unusable
            )
        yield rows.drop(CONFLICT), unusable


def _items(job: Job, changes: EventChanges, information: DataFrame | None) -> None:
    warehouse, key = job.warehouse, [c.DOMAIN, c.ITEM_ID]
    warehouse.ensure(c.ITEMS)
    events, items = warehouse.read(c.EVENTS, changes.version), warehouse.read(c.ITEMS)
    changed = changes.for_table(c.ITEMS)
    if changed is None:
        known = counted(events)
    else:
        lost = losing(changed, *key)
        known = recounted(items, changed.join(lost, key, "left_anti"))
        if not lost.isEmpty():
            from_events = counted(events.join(lost, key, "left_semi"))
            known = known.unionByName(lost.join(from_events, key, "left").na.fill(0, ["events"]))
    if information is not None:
        unseen = information.select(*key).join(items, key, "left_anti").join(known, key, "left_anti")
        none = F.lit(None).cast("date")
        known = known.unionByName(unseen.withColumns({"events": F.lit(0).cast("long"), "first_day": none, "last_day": none}))
    with cached(erased.without_items(known, erased_users(job))) as known:
        if information is not None:
            require_known(information, items, known, job.config.quality.min_known_share)
        if changes.since(c.ITEMS) == changes.version and known.isEmpty():
            return
        newest = _single(items.agg(F.max(c.ITEM_IDX)))
        first_free = 0 if newest is None else newest + 1
        warehouse.merge(c.ITEMS, updated(items, known, first_free), job.commit(inputs={c.EVENTS: changes.version}))


def _sequences(job: Job, changes: EventChanges) -> None:
    warehouse, features = job.warehouse, job.config.features
    settings = fingerprint(features.max_length, *meanings(features))
    if changes.since(c.USER_SEQUENCES, settings) == changes.version:
        return
    events, items = warehouse.read(c.EVENTS, changes.version), warehouse.read(c.ITEMS)
    commit = job.commit(inputs={c.EVENTS: changes.version}, settings=settings)
    changed = changes.for_table(c.USER_SEQUENCES, settings)
    _log_dislikes(events if changed is None else changed, features)
    if changed is None:
        warehouse.replace_all(c.USER_SEQUENCES, sequences(events, items, features), commit)
        return
    lost = losing(changed, c.USER_ID)
    added = changed.join(lost, c.USER_ID, "left_anti")
    rows = extended(warehouse.read(c.USER_SEQUENCES), added, items, features)
    if not lost.isEmpty():
        from_events = sequences(events.join(lost, c.USER_ID, "left_semi"), items, features)
        rows = rows.unionByName(lost.join(from_events, c.USER_ID, "left"))
    warehouse.merge(c.USER_SEQUENCES, rows.withColumn("gone", F.col("events").isNull()), commit, delete="gone")


def _log_dislikes(events: DataFrame, features: Features) -> None:
    """Log how many events are dislikes, by platform."""
    if not has_dislikes(features):
        return
    by_platform: dict[str, int] = dict(events.where(is_dislike(features)).groupBy(c.DOMAIN).count().collect())
    for domain in sorted({*features.dislike_below, *features.dislike_types}):
        log.info("platform %s: %d new events are dislikes", domain, by_platform.get(domain, 0))


def _content(job: Job, information: DataFrame | None) -> None:
    job.warehouse.ensure(c.ITEM_CONTENT)
    if information is None:
        return
    rows, stored = content(job.warehouse.read(c.ITEMS), information), job.warehouse.read(c.ITEM_CONTENT)
    same = reduce(Column.__and__, [rows[name].eqNullSafe(stored[name]) for name in rows.columns])
    with cached(rows.join(stored, same, "left_anti")) as changed:
        if not changed.isEmpty():
            job.warehouse.merge(c.ITEM_CONTENT, changed, job.commit(inputs={c.ITEMS: job.warehouse.version(c.ITEMS)}))


def _transitions(job: Job) -> None:
    warehouse, config = job.warehouse, job.config
    inputs = {name: warehouse.version(name) for name in (c.USER_SEQUENCES, c.ITEM_CONTENT)}
    settings = transition_settings(job, config.split)
    commit = warehouse.last_commit(c.ITEM_TRANSITIONS)
    if commit and commit.inputs == inputs and commit.settings == settings:
        return
    users = warehouse.read(c.USER_SEQUENCES, inputs[c.USER_SEQUENCES]).where(F.col("events") >= config.features.min_user_events)
    tokens = warehouse.read(c.ITEM_CONTENT, inputs[c.ITEM_CONTENT])
    with scratch_folder(job.spark, warehouse.path("_transitions")) as folder:
        labelled = held_out(users, config.split, job.ds, config.features)
        rows = transitions(train_part(labelled), tokens, config.transitions, folder, config.features.context_types)
        warehouse.replace_all(c.ITEM_TRANSITIONS, rows, job.commit(inputs=inputs, settings=settings))


def _single(rows: DataFrame) -> Any:
    """The value of a DataFrame of one row and one column."""
    (row,) = rows.collect()
    return row[0]
