"""Point-in-time reads: the feature tables at pinned versions, as they were at the end of a day, without erased users."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.config.sections import Features, Split
from metarec_spark.features import erased
from metarec_spark.features.sequences import as_of, newer_than
from metarec_spark.features.split import train_part
from metarec_spark.features.transitions import transitions
from metarec_spark.job import Job, log
from metarec_spark.warehouse.contracts import conform
from metarec_spark.warehouse.tables import Warehouse


def users_as_of(job: Job, ds: date, versions: dict[str, int], features: Features) -> DataFrame:
    """Rows of ``user_sequences`` at pinned versions, as of the end of ``ds``: users with at least ``min_user_events`` events,
    except erased users.

    The table holds each user's newest events. If it has events after ``ds`` (an older day is run again, or back-filled), the
    sequences of the users who have them are computed again from ``events``.
    """
    rows = job.warehouse.read(c.USER_SEQUENCES, versions[c.USER_SEQUENCES])
    if has_newer(job.warehouse, versions[c.USER_SEQUENCES], ds):
        newer = newer_than(rows, ds)
        events, items = job.warehouse.read(c.EVENTS, versions[c.EVENTS]), job.warehouse.read(c.ITEMS, versions[c.ITEMS])
        rows = as_of(rows, newer, events, items, ds, features)
    rows = rows.where(F.col("events") >= features.min_user_events)
    erased_ids = erased_users(job)  # a pinned version may be older than the erasure
    return rows if erased_ids is None else erased.without(rows, erased_ids)


@lru_cache(maxsize=1)
def has_newer(warehouse: Warehouse, version: int, ds: date) -> bool:
    """Whether a version of ``user_sequences`` has an event after ``ds``; cached, since several steps need it."""
    return not newer_than(warehouse.read(c.USER_SEQUENCES, version), ds).isEmpty()


def transitions_as_of(job: Job, labelled: DataFrame, split: Split, versions: dict[str, int], folder: str) -> DataFrame:
    """Rows of ``item_transitions`` that count training events only.

    Read from the table at its pinned version, if it was computed from the pinned sequences with this split and day. Otherwise
    (an older day is run again, or the split was changed after the extract) they are computed again.

    Parameters
    ----------
    labelled
        :func:`metarec_spark.features.split.held_out` of :func:`users_as_of` with ``split``.
    folder
        URI of a scratch folder; it must last until the rows are written.
    """
    inputs = {name: versions[name] for name in (c.USER_SEQUENCES, c.ITEM_CONTENT)}
    commit = job.warehouse.last_commit(c.ITEM_TRANSITIONS)
    stored = commit and (commit.inputs, commit.settings) == (inputs, transition_settings(job, split))
    if stored and not has_newer(job.warehouse, versions[c.USER_SEQUENCES], job.ds):
        return job.warehouse.read(c.ITEM_TRANSITIONS, versions[c.ITEM_TRANSITIONS])
    log.info("counting transitions: item_transitions was counted with another split, day or version")
    tokens = job.warehouse.read(c.ITEM_CONTENT, versions[c.ITEM_CONTENT])
    rows = transitions(train_part(labelled), tokens, job.config.transitions, folder, job.config.features.context_types)
    return conform(rows, c.ITEM_TRANSITIONS).persist(StorageLevel.DISK_ONLY)  # several snapshots may be written from it


def erased_users(job: Job) -> DataFrame | None:
    """The table ``forgotten``, if anybody was ever erased."""
    return job.warehouse.read(c.FORGOTTEN) if job.warehouse.exists(c.FORGOTTEN) else None


def transition_settings(job: Job, split: Split) -> str:
    """Fingerprint of the settings that ``item_transitions`` depends on."""
    config = job.config
    # Only a temporal split moves with the day.
    split_day = (job.ds.isoformat(), config.features.day_zone) if split.protocol == "temporal" else None
    context = [config.features.context_types] if config.features.context_types else []
    return fingerprint(config.transitions, split, config.features.min_user_events, split_day, *context)
