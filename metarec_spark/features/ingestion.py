"""Ingestion: rows of new and changed files → ``events``, ``rejected_events``, ``quality``, ``ingested``.

A run reads what :mod:`metarec_spark.features.deliveries` plans, and compares the new rows with the stored rows of the days that
they touch. Stored events stay, except: copies and bots that only show together with the new rows, events that changed cleaning
rules reject, and, in a source with ``delivery = "complete"``, events that none of its files has any more.

``events`` is written last, and its commit names the versions of the other tables that belong to it. A run that was killed before
that commit has changed nothing that counts: the next run restores the other tables, and reads the same files again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime
from itertools import takewhile

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.errors import DataError
from metarec_spark.features import cleaning, day_pool, erased
from metarec_spark.features.as_of import erased_users
from metarec_spark.features.caching import cached
from metarec_spark.features.cleaning import DAY, IS_STORED_EVENT
from metarec_spark.features.day_pool import Batch, compare
from metarec_spark.features.deliveries import Delivery, deliveries, readings_by_file, source_settings
from metarec_spark.features.gates import stopped_days_of
from metarec_spark.features.ingested import Ingested, RowCount, ingested_rows, read_ingested
from metarec_spark.features.new_rows import GATE_DAY, counted_rows, selected_rows
from metarec_spark.features.quality import KEPT, OUTCOME
from metarec_spark.job import Job, log
from metarec_spark.sources.events import open_events
from metarec_spark.warehouse.commits import Commit
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.spans import spans
from metarec_spark.warehouse.storage import hadoop_path

_BESIDE_EVENTS = (c.REJECTED_EVENTS, c.QUALITY, c.INGESTED)
"""Tables that are written before ``events``, and restored if ``events`` was not."""


@dataclass(frozen=True)
class CleaningCounts:
    """Numbers of rows that a run read, by outcome."""

    files: int
    """Files that were read, wholly or for some days."""
    read: int
    rejected: dict[str, int]
    """Rows by reason."""
    forgotten: int
    """Rows of erased users, which are stored nowhere."""
    left_out: dict[date, int]
    """Rows of stopped days; they are not among the rows that were read."""

    @property
    def events(self) -> int:
        """Rows that are events."""
        return self.read - sum(self.rejected.values()) - self.forgotten


def ingest(job: Job, *, history: bool = False) -> CleaningCounts:
    """Bring ``events`` to the end of the job's day.

    Parameters
    ----------
    history
        Read all files again, not only new and changed ones.

    Raises
    ------
    DataError
        If a source cannot be read, no source has an event, or a day lost too much.
    ConfigError
        If sources were reordered.
    """
    last = last_ingestion(job)
    _restore_unfinished(job, last)
    older = last is not None and c.INGESTED not in last.inputs
    if older:
        log.warning(
            "the tables are of a version that did not record which files it read: all files that are there are read again"
        )
        for name in (c.EVENTS, c.REJECTED_EVENTS):
            job.warehouse.ensure(name)  # with the column file
    known = read_ingested(job.warehouse.read(c.INGESTED) if job.warehouse.exists(c.INGESTED) else None)
    now = datetime.now(UTC)
    plan = deliveries(job.spark, job.config, known, job.ds, history=history, stored=older)
    for delivery in plan:
        _require_files(job, delivery, len(known.get(delivery.label, ())))
    _log_plan(plan)
    with ExitStack() as caches:
        rows = selected_rows(job, plan, now)
        if rows is None:
            stopped_days_of(job, None, [], last)
            return CleaningCounts(0, 0, {}, 0, {})
        rows = caches.enter_context(cached(rows, StorageLevel.DISK_ONLY))
        counts = counted_rows(rows)
        rows = rows.where(F.col(GATE_DAY) <= F.lit(job.ds))
        batch = compare(job, caches, rows, counts, plan, frozenset())
        by_file = day_pool.of_files(batch.outcomes) if batch else []
        if not job.warehouse.exists(c.EVENTS) and not any(outcome == KEPT for _, _, outcome, _ in by_file):
            raise DataError(f"no event on or before {job.ds} in any source: {_why_none(job, by_file, counts)}")
        left_out = stopped_days_of(job, batch, counts, last)
        if left_out:
            batch = compare(job, caches, rows, counts, plan, left_out)
            by_file = day_pool.of_files(batch.outcomes) if batch else []
        _write(job, batch, ingested_rows(readings_by_file(plan), counts, by_file, left_out, job.ds, now))
    return _counts(job, plan, counts, by_file, left_out)


def last_ingestion(job: Job) -> Commit | None:
    """The newest commit of an ingestion that is in effect in ``events``, by whatever job."""
    return job.warehouse.last_commit(c.EVENTS)


def _restore_unfinished(job: Job, last: Commit | None) -> None:
    """Take back what an ingestion wrote beside ``events`` without a commit to ``events`` that is in effect."""
    for name in _BESIDE_EVENTS:
        if last and name not in last.inputs and name != c.INGESTED:
            continue  # events was written by a version that had no such inputs
        finished = last.inputs.get(name, -1) if last else -1
        if not _ingestion_after(job, name, finished):
            continue
        log.warning("table %s: restored to its state before an ingestion that was not finished or was taken back", name)
        rows = job.warehouse.read(name, finished) if finished >= 0 else job.warehouse.read(name).limit(0)
        users = erased_users(job)
        if users is not None and c.USER_ID in contract(name).schema.names:
            rows = erased.without_items(erased.without(rows, users), users)
        job.warehouse.replace_all(name, rows, job.commit(inputs={name: finished}))


def _ingestion_after(job: Job, name: str, version: int) -> bool:
    """Whether an ingestion wrote to a table after a version, and nobody has taken that back."""
    newer = takewhile(lambda logged: logged.version > version, job.warehouse.commits(name))
    commits = (logged.metadata for logged in newer if logged.metadata)
    return next((bool(commit.settings) for commit in commits if commit.settings or commit.inputs == {name: version}), False)


def _log_plan(plan: Sequence[Delivery]) -> None:
    for delivery in plan:
        if delivery.parts:
            whole = sum(reading.days is None for reading in delivery.readings)
            due = len(delivery.readings) - whole
            text = "source %s: reading %d new or changed files and %d with rows of days not read before, of %d files"
            log.info(text, delivery.label, whole, due, len(delivery.present))
        if delivery.gone:
            text = "source %s: %d files that were read with other settings are not there any more: their events stay as they are"
            log.warning(text, delivery.label, delivery.gone)


def _require_files(job: Job, delivery: Delivery, known: int) -> None:
    """Stop if a source has no files and never had any, or if its folder is not there any more."""
    if delivery.present:
        return
    where = f"sources[{delivery.position}] {delivery.source.path}"
    if not known:
        open_events(job.spark, delivery.source, delivery.position).isEmpty()  # says what is wrong
        raise DataError(f"{where}: no file in it; check path and format")
    path, files = hadoop_path(job.spark, delivery.source.path)
    if not files.globStatus(path):
        raise DataError(f"{where}: not there, and {known} files of it were read before: is a disk not mounted? Check the path")
    log.warning("source %s: none of its %d files is there any more; their events stay", delivery.label, known)


def _why_none(job: Job, by_file: Sequence[tuple[str, str, str, int]], counts: Sequence[RowCount]) -> str:
    rejected = Counter[str]()
    for _, _, outcome, rows in by_file:
        rejected[outcome] += rows
    rejected[c.FORGOTTEN] += sum(n.rows for n in counts if n.forgotten and n.gate_day <= job.ds)
    rejected = +rejected
    if rejected:
        reasons = dict(sorted(rejected.items()))
        return f"all {rejected.total()} rows were rejected: {reasons}; schemas/rejected_events.json says what the reasons mean"
    oldest = min((n.day for n in counts if n.day), default=None)
    return f"the oldest is of {oldest}; choose a later --ds" if oldest else "the sources are empty"


def _write(job: Job, batch: Batch | None, ingested: Sequence[Ingested]) -> None:
    warehouse, commit = job.warehouse, job.commit(settings=_settings(job))
    for name in _BESIDE_EVENTS:
        warehouse.ensure(name)
    if batch:
        days, undated = spans(batch.days.dates), batch.days.undated
        warehouse.replace_days(c.REJECTED_EVENTS, cleaning.rejected(batch.judged), DAY, days, commit, undated=undated)
        warehouse.replace_days(c.QUALITY, batch.quality, DAY, days, commit, undated=undated)
    rows = job.spark.createDataFrame([astuple(row) for row in ingested], contract(c.INGESTED).schema)
    warehouse.merge(c.INGESTED, rows, commit)
    # events last: with this commit, and not before, the other tables count.
    commit = job.commit(settings=_settings(job), inputs={name: warehouse.version(name) for name in _BESIDE_EVENTS})
    warehouse.ensure(c.EVENTS)
    if batch is None:
        _append(job, job.spark.createDataFrame([], contract(c.EVENTS).schema), commit)
        return
    in_table, is_event = F.col(IS_STORED_EVENT), F.col(c.REASON).isNull()
    events = cleaning.accepted(batch.judged.where(~in_table))
    if batch.outcomes.where(in_table & (F.col(OUTCOME) != KEPT)).isEmpty():
        _append(job, events, commit)
        return
    key = list(contract(c.EVENTS).key)
    gone = cleaning.accepted(batch.judged.where(in_table & ~is_event).withColumn(c.REASON, F.lit(None).cast("string")))
    gone = gone.join(events.select(*key), key, "left_anti").select(*events.columns)
    changed = events.withColumn("gone", F.lit(False)).unionByName(gone.withColumn("gone", F.lit(True)))
    warehouse.merge(c.EVENTS, changed, commit, delete="gone", within=(c.EVENT_DATE, days))


def _append(job: Job, events: DataFrame, commit: Commit) -> None:
    # The transaction id makes a commit even of no rows: it says that the other tables count.
    job.warehouse.append(c.EVENTS, events, commit, app="metarec.ingestion", txn=job.warehouse.version(c.EVENTS) + 1)


def _settings(job: Job) -> str:
    return fingerprint(*[source_settings(job.config, source) for source in job.config.sources])


def _counts(
    job: Job,
    plan: Sequence[Delivery],
    counts: Sequence[RowCount],
    by_file: Sequence[tuple[str, str, str, int]],
    left_out: frozenset[date],
) -> CleaningCounts:
    outcomes, skipped, forgotten = Counter[str](), Counter[date](), 0
    for _, _, outcome, rows in by_file:
        outcomes[outcome] += rows
    for n in counts:
        if n.gate_day in left_out:
            skipped[n.gate_day] += n.rows
        elif n.forgotten and n.gate_day <= job.ds:
            forgotten += n.rows
    rejected = {reason: rows for reason, rows in sorted(outcomes.items()) if reason != KEPT}
    read = outcomes.total() + forgotten
    result = CleaningCounts(len(readings_by_file(plan)), read, rejected, forgotten, dict(sorted(skipped.items())))
    log.info("events: %d rows read, %d are events, rejected %s", result.read, result.events, rejected or "none")
    if forgotten:
        log.info("events: %d of the rows are of erased users, and are stored nowhere", forgotten)
    return result
