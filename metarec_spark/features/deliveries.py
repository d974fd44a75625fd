"""What a run reads: the files of each source that are new or changed, or that have rows of days which were not read yet.

The table ``ingested`` says what was read before. A file counts as changed if its size or modification time differs, or if it was
read with another configuration of its source or other cleaning rules. A Delta table counts as one file, of which the data files
of new versions are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from pyspark.sql import SparkSession

from metarec_spark.config import Config
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.config.sections import Source
from metarec_spark.errors import ConfigError
from metarec_spark.features.delta_source import delta_changes
from metarec_spark.features.ingested import FileKey, FileState, Ingested, Reading
from metarec_spark.sources.files import SourceFile, list_files
from metarec_spark.warehouse.storage import hadoop_path

READING_VERSION = 1
"""To be raised when the code reads or cleans the same file to other rows: all files that are still there are then read again."""


@dataclass(frozen=True)
class Part:
    """Files of a source that are opened together."""

    readings: Sequence[Reading]
    files: Sequence[str] | None
    """Files to open; None: all of a Delta table."""


@dataclass
class Delivery:
    """What a run reads of one source."""

    position: int
    source: Source
    label: str
    parts: list[Part] = field(default_factory=list)
    root: str = ""
    """Folder of the source: files are named relative to it."""
    present: frozenset[str] = frozenset()
    """Files of the source that are there."""
    gone: int = 0
    """Files that were read with other settings and are not there any more, if the source is read again for new settings."""

    @property
    def readings(self) -> list[Reading]:
        """All readings of the source."""
        return [reading for part in self.parts for reading in part.readings]

    @property
    def unchanged(self) -> frozenset[str]:
        """Files that are there and are not read."""
        return self.present - {reading.state.file for reading in self.readings}


def deliveries(
    spark: SparkSession,
    config: Config,
    ingested: Mapping[str, Mapping[str, Ingested]],
    ds: date,
    *,
    history: bool,
    stored: bool = False,
) -> list[Delivery]:
    """Find what to read of each source.

    Parameters
    ----------
    ingested
        Rows of :func:`read_ingested`.
    history
        Read all files again.
    stored
        Whether rows of files that are not in ``ingested`` may be stored: by a version that had no such table.

    Raises
    ------
    ConfigError
        If sources were reordered, so that the tables know them by other names.
    DataError
        If a source cannot be listed.
    """
    result = [Delivery(i, source, source.label(i)) for i, source in enumerate(config.sources)]
    run = _Run(spark, ds, history, stored)
    for delivery in result:
        before, settings = ingested.get(delivery.label, {}), source_settings(config, delivery.source)
        plan = _plan_delta if delivery.source.format == "delta" else _plan_files
        plan(run, delivery, before, settings)
    _check_names(result, ingested)
    return result


def readings_by_file(plan: Iterable[Delivery]) -> dict[FileKey, list[Reading]]:
    """All readings of each file."""
    by_file: dict[FileKey, list[Reading]] = defaultdict(list)
    for delivery in plan:
        for reading in delivery.readings:
            by_file[delivery.label, reading.state.file].append(reading)
    return by_file


def source_settings(config: Config, source: Source) -> str:
    """Fingerprint of everything that decides what becomes of a file's rows.

    Keys that have their default do not count: a release that adds one does not read all files again.
    """
    features = config.features
    how = source.model_dump(mode="json", exclude_defaults=True, exclude={"name", "path", "delivery"})
    alias = config.platforms.alias
    return fingerprint(
        READING_VERSION,
        how,
        *((alias,) if alias else ()),
        *((features.day_zone,) if features.day_zone != "UTC" else ()),
        features.first_day.isoformat(),
        features.late_days,
        features.max_events_per_hour,
        features.event_types,
    )


def source_root(path: str, files: Sequence[SourceFile]) -> str:
    """The folder that a source's files are named relative to: its own, or the one that a pattern starts in, or a file is in.

    Parameters
    ----------
    path
        Full path of the source, as Hadoop writes it.
    files
        What is there.
    """
    folders = path.split("/")
    fixed = next((i for i, name in enumerate(folders) if any(sign in name for sign in "*?[{")), len(folders))
    if fixed == len(folders) and any(file.path == path for file in files):
        fixed -= 1
    return "/".join(folders[:fixed])


@dataclass(frozen=True)
class _Run:
    """For which run the deliveries are found, as :func:`deliveries` takes it."""

    spark: SparkSession
    ds: date
    history: bool
    stored: bool


def _plan_files(run: _Run, delivery: Delivery, before: Mapping[str, Ingested], settings: str) -> None:
    location, system = hadoop_path(run.spark, delivery.source.path)
    files = list_files(run.spark, delivery.source.path)
    delivery.root = source_root(system.makeQualified(location).toString(), files)
    whole, due, present = [], [], set()
    for file in files:
        name = file.path.removeprefix(f"{delivery.root}/")
        present.add(name)
        state = FileState(delivery.root, name, file.path, file.size, file.modified, None, settings)
        known = before.get(name)
        same_file = known is not None and known.is_file(state)
        if run.history or known is None or not same_file or known.settings != settings:
            whole.append(Reading(state, again=run.stored or known is not None, unchanged=same_file))
        elif known.is_due(run.ds):
            due.append(_due_reading(state, known, run.ds))
    delivery.present = frozenset(present)
    delivery.parts = [Part(readings, [one.state.uri for one in readings]) for readings in (whole, due) if readings]
    if before and any(reading.again for reading in whole):
        delivery.gone = sum(row.settings != settings and row.file not in present for row in before.values())


def _due_reading(state: FileState, known: Ingested, ds: date) -> Reading:
    undated = known.pending_undated is not None
    return Reading(state, again=True, days=known.due_days(ds), undated=undated, undated_day=known.pending_undated, before=known)


def _plan_delta(run: _Run, delivery: Delivery, before: Mapping[str, Ingested], settings: str) -> None:
    known = next(iter(before.values()), None)
    changes = delta_changes(run.spark, delivery.source.path, known.version if known else None)
    delivery.root, name = changes.path, changes.path.rpartition("/")[2]
    state = FileState(changes.path, name, changes.path, None, None, changes.version, fingerprint(settings, changes.table_id))
    delivery.present = frozenset([name])
    changed = known is not None and known.version != changes.version
    all_rows = known is None or known.settings != state.settings or changes.files is None
    if run.history or all_rows or (changed and delivery.source.delivery == "complete"):
        same_table = known is not None and not changed and known.settings == state.settings
        delivery.parts = [Part([Reading(state, again=run.stored or known is not None, unchanged=same_table)], None)]
        return
    assert known is not None and changes.files is not None
    due = _due_reading(state, known, run.ds) if known.is_due(run.ds) else None
    if due:
        delivery.parts.append(Part([due], None))
    if changes.files:
        except_days = due.days or frozenset() if due else frozenset()
        undated = not (due and due.undated)
        added = Reading(state, again=changes.rewritten, except_days=except_days, undated=undated, before=known)
        delivery.parts.append(Part([added], changes.files))


def _check_names(result: Sequence[Delivery], ingested: Mapping[str, Mapping[str, Ingested]]) -> None:
    roots_before = {label: {row.root for row in rows.values()} for label, rows in ingested.items()}
    root_now = {delivery.label: delivery.root for delivery in result}
    for delivery in result:
        if delivery.root in roots_before.get(delivery.label, ()):
            continue
        for label, roots in sorted(roots_before.items()):
            if delivery.root in roots and root_now.get(label) != delivery.root:
                where = f"sources[{delivery.position}] {delivery.source.path}"
                raise ConfigError(
                    f"{where}: the tables know this folder as source {label!r}, and now it would be {delivery.label!r}: were "
                    f"sources added, removed or reordered? Give this source name={label!r}, and each other source that moved the "
                    "name that the table ingested has for its folder"
                )
