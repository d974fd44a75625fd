"""forget: remove people from every table, every report and every unfinished training, and pass them over from then on.

The hash of an id goes into ``forgotten`` first, the rows go after it: a run that was killed is completed by the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from metarec_spark import columns as c
from metarec_spark.errors import ConfigError
from metarec_spark.evaluation import report
from metarec_spark.features.erased import HASH, hash_of, hashed
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.registry import versions_in_use
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.storage import exists, list_names, remove

_SHOWN = 12
"""Digits of a hash that stand for a person in logs and results."""


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

    def to_json(self) -> dict[str, object]:
        """Tables without the fields that are None."""
        tables = {
            name: {key: value for key, value in asdict(removed).items() if value is not None}
            for name, removed in self.tables.items()
        }
        return {"tables": tables, "reports": self.reports, "unknown": self.unknown}


def ids(given: Sequence[str], file: Path | None) -> list[str]:
    """User ids that were given, and those of a file with one a line. Blanks and case count.

    Raises
    ------
    ConfigError
        Where there is none, the file cannot be read, or an id is blank or no text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n") if file else []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--users {file}: cannot be read: {error}; give a UTF-8 file with one user id a line") from None
    found = [*given, *filter(None, lines)]
    if not found:
        raise ConfigError("nobody is named; give --user ID, any number of times, or --users FILE with one id a line")
    for place, user in enumerate(found, 1):
        if not user.strip(" ") or any("\ud800" <= letter <= "\udfff" for letter in user):
            raise ConfigError(f"user id {place} of {len(found)} is blank or not UTF-8; no table holds such an id")
    return found


def forget(job: Job, users: Sequence[str]) -> Result:
    """Delete the rows of these people from all tables that have a ``user_id``, and enter them in ``forgotten``.

    Ids are compared as the tables hold them, by their hash: they reach neither SQL nor a table's log. Counts that were made with
    these people change with the next extract; models stay as they are.

    Notes
    -----
    The driver holds the ids. The ids of each table are read, and the files that hold a row of these people are written anew.
    """
    warehouse, hashes = job.warehouse, sorted({hash_of(user) for user in users})
    _enter(job, hashes)
    named, of_person, counts = hashed().isin(hashes), Counter[str](), {}
    for name in warehouse.names():
        if c.USER_ID in contract(name).schema.names:
            found = warehouse.read(name).where(named).groupBy(hashed()).count()
            rows = Counter({row[0]: row[1] for row in found.toLocalIterator()})
            if rows:
                warehouse.delete(name, named, job.commit())
            of_person += rows
            counts[name] = rows.total()
    pages = _files(job, users)
    for person in hashes:
        if person not in of_person:
            log.warning("user %s: no row in any table; an id counts as the tables hold it", person[:_SHOWN])
        else:
            log.info("user %s: %d rows removed", person[:_SHOWN], of_person[person])
    in_use = versions_in_use(job)
    tables = {name: _removed(job, name, rows, in_use) for name, rows in counts.items()}
    details = ForgetDetails(tables, pages, [person[:_SHOWN] for person in hashes if person not in of_person])
    return Result(rows_in=len(hashes), rows_out=of_person.total(), details=details)


def _enter(job: Job, hashes: Sequence[str]) -> None:
    """Enter those who are not in ``forgotten`` yet."""
    rows = job.spark.createDataFrame([(of, job.ds) for of in hashes], contract(c.FORGOTTEN).schema)
    if job.warehouse.exists(c.FORGOTTEN):
        rows = rows.join(job.warehouse.read(c.FORGOTTEN), HASH, "left_anti")
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
    said = ", and once no model that serves was made from one of them: train and evaluate again" if pinned else ""
    first = f"{until:%Y-%m-%d}"
    log.info("table %s: versions before %d hold them; `metarec maintain` removes these from %s on%s", name, deleted, first, said)
    return Removed(rows, deleted, first, pinned)
