"""Commits of a table: what this product records in each, and the table's log read newest first without a Spark job."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import SparkSession

from metarec_spark.errors import DataError, damaged_table
from metarec_spark.warehouse.storage import hadoop_path, jvm

LOG = "_delta_log"
"""Folder of a table's log."""
_LONGEST_WRITE = timedelta(hours=12)
"""Longest time from the first file of a commit to the commit."""


@dataclass(frozen=True)
class Commit:
    """What a write records about itself in the table's history, as ``userMetadata``."""

    job: str
    """Job that wrote."""
    ds: date
    """Its logical day."""
    inputs: dict[str, int] = field(default_factory=dict)
    """Delta version of each table that the rows were made from."""
    model_id: str | None = None
    """Model that the rows were made with."""
    settings: str | None = None
    """Fingerprint of the settings that shaped the rows."""

    def to_json(self) -> str:
        """The commit's ``userMetadata``."""
        values: dict[str, object] = {"job": self.job, "ds": self.ds.isoformat(), "inputs": self.inputs}
        values |= {"model_id": self.model_id} if self.model_id else {}
        return json.dumps(values | ({"settings": self.settings} if self.settings else {}), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> Commit | None:
        """Read ``userMetadata``; None if another program wrote it, in whatever form."""
        try:
            values = json.loads(text or "")
            inputs = {str(name): int(version) for name, version in values.get("inputs", {}).items()}
            return cls(
                str(values["job"]), date.fromisoformat(values["ds"]), inputs, values.get("model_id"), values.get("settings")
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True)
class LoggedCommit:
    """One version of a table's log."""

    version: int
    written: datetime
    """When it was committed, UTC."""
    operation: str
    """Delta's name of the operation, such as WRITE or VACUUM START."""
    parameters: dict[str, str]
    """Delta's parameters of the operation."""
    metadata: Commit | None
    """What this product recorded; None if another program wrote the version."""


@dataclass(frozen=True)
class Overview:
    """Size and last writer of a table."""

    table: str
    version: int
    files: int
    bytes: int
    job: str | None
    """Job that wrote last; None if it was another program."""
    ds: str | None
    """That job's logical day."""
    written: str
    """When, UTC."""


class TableLog:
    """The log of one table; each commit is read when it is first asked for, and then remembered, since a commit never changes."""

    def __init__(self, spark: SparkSession, table: str) -> None:
        self._spark, self._table = spark, table
        self._known: dict[int, LoggedCommit] = {}

    def commits(self, newest: int) -> Iterator[LoggedCommit]:
        """Commits from version ``newest`` back to the oldest one whose log file is still there."""
        for version in range(newest, -1, -1):
            commit = self._known.get(version) or _read(self._spark, self._table, version)
            if commit is None:
                return
            yield self._known.setdefault(version, commit)


def in_effect(commits: Iterable[LoggedCommit]) -> Iterator[LoggedCommit]:
    """Commits whose effect is in the newest version: those that a RESTORE took back are left out.

    Parameters
    ----------
    commits
        Newest first.
    """
    version, time = math.inf, datetime.max.replace(tzinfo=UTC)
    for commit in commits:
        if commit.version > version or commit.written > time:
            continue
        if commit.operation == "RESTORE":
            text = {name: value.strip('"') for name, value in commit.parameters.items()}
            if text.get("version", "null").isdigit():
                version = int(text["version"])
            else:
                time = datetime.fromisoformat(text["timestamp"])
                time = time if time.tzinfo else time.replace(tzinfo=UTC)  # the session's zone
        yield commit


def changes_on_record(commits: Iterable[LoggedCommit], since: int) -> bool:
    """Whether the versions after ``since`` are all on record, and VACUUM has not removed the first one's files.

    Parameters
    ----------
    commits
        Newest first.
    """
    vacuumed = datetime.min.replace(tzinfo=UTC)
    for commit in commits:
        if commit.operation == "VACUUM START":
            # Unused files stay for the table's own retention alone.
            retention = min(int(value) for name, value in commit.parameters.items() if name.endswith("RetentionMillis"))
            vacuumed = max(vacuumed, commit.written - timedelta(milliseconds=retention))
        if commit.version == since + 1:  # a file is somewhat older than the commit that names it
            return commit.written - _LONGEST_WRITE > vacuumed
    return False


def _read(spark: SparkSession, table: str, version: int) -> LoggedCommit | None:
    path, files = hadoop_path(spark, f"{table}/{LOG}/{version:020}.json")
    if not files.exists(path):
        return None
    java = jvm(spark).java.io
    reader = java.BufferedReader(java.InputStreamReader(files.open(path), "UTF-8"))
    try:
        action = json.loads(reader.readLine())  # Delta writes the commit's information first
        while "commitInfo" not in action:  # others may write it last, or not at all
            line = reader.readLine()
            action = {"commitInfo": {}} if line is None else json.loads(line)
    except (ValueError, TypeError) as error:
        raise DataError(damaged_table(table.rpartition("/")[2], f"{version:020}.json is cut short or is no commit")) from error
    finally:
        reader.close()
    info = action["commitInfo"]
    written = info.get("timestamp") or files.getFileStatus(path).getModificationTime()
    parameters = {name: str(value) for name, value in (info.get("operationParameters") or {}).items()}
    at = datetime.fromtimestamp(written / 1000, UTC)
    return LoggedCommit(version, at, info.get("operation", ""), parameters, Commit.from_json(info.get("userMetadata")))
