"""forget: remove people from every table, every report and every unfinished training, and drop their rows from then on.

The hash of an id goes into ``forgotten`` first, the rows go after it: a run that was killed is completed by the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.evaluation import report
from metarec_spark.features.erased import AS_ITEM, HASH, hash_of, hashed
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.operations import erased_items
from metarec_spark.operations.people import Person
from metarec_spark.registry import versions_in_use
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.storage import exists, list_names, remove

_SHOWN = 12
"""Digits of a hash that stand for a person in logs and results."""
_NAMED = 10
"""People that a message names, at most."""


@dataclass(frozen=True)
class Removed:
    """What forget removed from a table, and which versions still hold it; the last three are None if none does."""

    rows: int
    in_versions_before: int | None = None
    removed_from: str | None = None
    """First day on which ``maintain`` removes these versions."""
    pinned_by_model: bool | None = None
    """Whether a model that serves was trained on one of them, so that they stay until another model serves."""


@dataclass(frozen=True)
class ForgetDetails(Details):
    """What forget reports beside its counts."""

    tables: dict[str, Removed]
    reports: int
    """Reports that showed one of these people."""
    unknown: list[str]
    """First digits of the hashes of people without a row in any table."""
    as_items: dict[str, int]
    """Table → rows in which one of these ids is an item's; they are removed with ``--items`` alone."""

    def to_json(self) -> dict[str, object]:
        """Tables without the fields that are None."""
        tables = {
            name: {key: value for key, value in asdict(removed).items() if value is not None}
            for name, removed in self.tables.items()
        }
        return {"tables": tables, "reports": self.reports, "unknown": self.unknown, "as_items": self.as_items}


def forget(job: Job, people: Sequence[Person], *, missing_ok: bool = False, items: bool = False) -> Result:
    """Delete the rows of these people from all tables that have a ``user_id``, and enter them in ``forgotten``.

    Ids are compared with the tables' by their hash: they reach neither SQL nor a table's log. Counts that include these people
    change with the next extract; models stay as they are.

    Parameters
    ----------
    missing_ok
        Forget also those whom no table holds: their rows are dropped when they come.
    items
        Remove also items whose id is one of these, such as people's profiles or channels.

    Raises
    ------
    DataError
        If somebody is in no table, unless ``missing_ok``; nothing is removed then.

    Notes
    -----
    The driver holds the ids. The ids of each table are read, and the files that hold a row of these people are written anew.
    """
    warehouse = job.warehouse
    counts = _rows_of(job, {hash_of(reading) for person in people for reading in person.readings})
    rows = Counter[str](sum((Counter(of_table) for of_table in counts.values()), Counter()))
    known = rows.keys() | _forgotten(job)
    chosen = {person: next((h for h in map(hash_of, person.readings) if h in known), None) for person in people}
    missing = [person for person, person_hash in chosen.items() if person_hash is None]
    if missing and not missing_ok:
        raise DataError(_missing(missing, len(people)))
    new = {hash_of(reading) for person in missing for reading in person.readings}
    hashes = sorted({person_hash for person_hash in chosen.values() if person_hash} | new)
    _enter(job, hashes, items)
    for name, of_table in counts.items():
        if of_table.keys() & set(hashes):
            warehouse.delete(name, hashed().isin(hashes), job.commit())
    pages = _files(job, [reading for person in people for reading in person.readings])
    as_items = erased_items.erase(job, hashes) if items else erased_items.count(job, hashes)
    if as_items and not items:
        log.warning("items have ids of these people, and stay: %s (rows); add --items to remove them, too", as_items)
    people_hashes = sorted(person_hash or hash_of(person.readings[0]) for person, person_hash in chosen.items())
    for person_hash in dict.fromkeys(people_hashes):
        if rows[person_hash]:
            log.info("user %s: %d rows removed", person_hash[:_SHOWN], rows[person_hash])
        else:
            log.warning("user %s: no row in any table; an id counts as the tables hold it", person_hash[:_SHOWN])
    in_use = versions_in_use(job)
    removed = {name: sum(count for h, count in of_table.items() if h in hashes) for name, of_table in counts.items()}
    tables = {name: _removed(job, name, count, in_use) for name, count in removed.items()}
    unknown = [h[:_SHOWN] for h in dict.fromkeys(people_hashes) if not rows[h]]
    details = ForgetDetails(tables, pages, unknown, as_items)
    return Result(rows_in=len(set(people_hashes)), rows_out=sum(removed.values()), details=details)


def _rows_of(job: Job, hashes: set[str]) -> dict[str, dict[str, int]]:
    """Table → hash of a user id → rows."""
    named, counts = hashed().isin(sorted(hashes)), {}
    for name in job.warehouse.names():
        if c.USER_ID in contract(name).schema.names:
            matches = job.warehouse.read(name).where(named).groupBy(hashed()).count()
            counts[name] = {row[0]: row[1] for row in matches.toLocalIterator()}
    return counts


def _forgotten(job: Job) -> set[str]:
    """Hashes of those who were forgotten before: a run that is repeated finds no row of them."""
    if not job.warehouse.exists(c.FORGOTTEN):
        return set()
    return {row[0] for row in job.warehouse.read(c.FORGOTTEN).select(HASH).toLocalIterator()}


def _missing(missing: Sequence[Person], named: int) -> str:
    where = ", ".join(person.where for person in missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
    return (
        f"{len(missing)} of {named} people are in no table: {where}. Nobody was forgotten. An id counts as the tables hold it, "
        "with its user_namespace. Correct these, or add --missing-ok to forget the others, and to drop rows of these if they come"
    )


def _enter(job: Job, hashes: Sequence[str], items: bool) -> None:
    """Enter those who are not in ``forgotten`` yet, and mark those whose items go, too."""
    rows = job.spark.createDataFrame([(user_hash, job.ds, items or None) for user_hash in hashes], contract(c.FORGOTTEN).schema)
    if job.warehouse.exists(c.FORGOTTEN):
        job.warehouse.ensure(c.FORGOTTEN)  # which adds the mark's column
        stored = job.warehouse.read(c.FORGOTTEN)
        marked = stored.where(F.col(HASH).isin(list(hashes)) & F.col(AS_ITEM).isNull()).withColumn(AS_ITEM, F.lit(True))
        rows = rows.join(stored, HASH, "left_anti")
        rows = rows.unionByName(marked) if items else rows
    job.warehouse.merge(c.FORGOTTEN, rows, job.commit())


def _files(job: Job, users: Sequence[str]) -> int:
    """Remove unfinished trainings, which hold sequences, and these people's examples in reports; returns how many had some."""
    remove(job.warehouse.path("_training"))
    models = job.warehouse.path("_models")
    pages = [f"{models}/{name}/report.html" for name in list_names(models)]
    return sum(report.forget(page, users) for page in pages if exists(page))


def _removed(job: Job, name: str, rows: int, in_use: dict[str, int]) -> Removed:
    """Which versions of a table still hold what was deleted, and when ``maintain`` removes their files."""
    commits = job.warehouse.commits(name)
    deleted = next((logged.version for logged in commits if logged.metadata and logged.metadata.job == job.name), None)
    if deleted is None:
        return Removed(rows)
    since = timedelta(hours=job.warehouse.hours_since(name, deleted - 1))
    until = datetime.now(UTC) - since + timedelta(days=job.config.maintain.retention_days + 1)
    pinned = in_use.get(name, deleted) < deleted
    condition = ", and once no model that serves was made from one of them: train and evaluate again" if pinned else ""
    first = f"{until:%Y-%m-%d}"
    log.info(
        "table %s: versions before %d hold them; `metarec maintain` removes these from %s on%s", name, deleted, first, condition
    )
    return Removed(rows, deleted, first, pinned)
