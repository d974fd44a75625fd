"""Which data files of a Delta source are new since a version, by the actions in the table's own log (add and remove)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark.errors import DataError
from metarec_spark.warehouse.commits import LOG
from metarec_spark.warehouse.storage import delta_log, hadoop_path

_ACTIONS = "add struct<path:string,dataChange:boolean>, remove struct<path:string,dataChange:boolean>"


@dataclass(frozen=True)
class DeltaChanges:
    """What happened to a Delta table since a version."""

    path: str
    """Its folder, as Hadoop writes it."""
    version: int
    """Its newest version."""
    table_id: str
    """Differs if the table was made anew."""
    files: list[str] | None
    """Data files of the newest version that hold new rows, as its log spells them; None if that cannot be known and all must be
    read."""
    rewritten: bool
    """Whether these files hold rows of earlier versions too, because rows were updated, deleted or compacted."""


@dataclass(frozen=True, order=True)
class _Action:
    version: int
    adds: bool
    path: str
    data_change: bool


def delta_changes(spark: SparkSession, path: str, since: int | None) -> DeltaChanges:
    """Find what is new in a Delta table after version ``since`` (None: everything).

    Raises
    ------
    DataError
        If there is no Delta table.
    """
    location, system = hadoop_path(spark, path)
    folder = system.makeQualified(location).toString()
    _, snapshot = delta_log(spark, folder)
    version = snapshot.version()
    if version < 0:
        raise DataError(f"{path}: cannot be read as delta: no Delta table there; check path and format")
    table_id = snapshot.metadata().id()
    if since is None or since > version:
        return DeltaChanges(folder, version, table_id, None, False)
    logs = [f"{folder}/{LOG}/{number:020}.json" for number in range(since + 1, version + 1)]
    if not all(system.exists(hadoop_path(spark, file)[0]) for file in logs):
        return DeltaChanges(folder, version, table_id, None, False)
    files, rewritten = new_files(_actions(spark, logs)) if logs else ([], False)
    return DeltaChanges(folder, version, table_id, files, rewritten)


def new_files(actions: Iterable[_Action]) -> tuple[list[str], bool]:
    """Files with new rows after all actions, and whether they hold earlier rows too.

    Compaction adds and removes files without a change of data. If it removed a file that was added since, the rows of that file
    are now in one of the compacted files.
    """
    newest: dict[str, _Action] = {}
    added: set[str] = set()
    rewritten = False
    for action in sorted(actions):  # of one version, removals come first: a new deletion vector removes and adds the same file
        newest[action.path] = action
        added |= {action.path} if action.adds and action.data_change else set()
        rewritten |= not action.adds and action.data_change
    compacted = any(not newest[path].adds and not newest[path].data_change for path in added)
    files = {path for path, action in newest.items() if action.adds and (compacted or path in added)}
    return sorted(files), rewritten or compacted


def _actions(spark: SparkSession, logs: list[str]) -> list[_Action]:
    rows = spark.read.schema(_ACTIONS).json(logs).withColumn("version", F.col("_metadata.file_name").substr(1, 20).cast("long"))
    rows = rows.where("add IS NOT NULL OR remove IS NOT NULL")
    action = F.coalesce("add", "remove")
    data_change = F.coalesce(action["dataChange"], F.lit(True))
    rows = rows.select("version", F.col("add").isNotNull(), action["path"], data_change)
    return [_Action(*row) for row in rows.toLocalIterator()]
