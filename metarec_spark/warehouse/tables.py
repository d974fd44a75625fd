"""All Delta I/O: one folder a table under the warehouse, every write conforming to its contract.

A day's rows are replaced (``replaceWhere``), state is merged by key, appends carry a transaction id, and each commit
records job, day, model and input versions in its metadata, from which the next run knows where to go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from delta import exceptions
from delta.exceptions import captured  # noqa: F401 (it makes PySpark raise these)
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.columns import ALL, WRITTEN_BY
from metarec_spark.errors import ConfigError, DataError, damaged_table, first_line
from metarec_spark.warehouse.commits import LOG, Commit, LoggedCommit, Overview, TableLog, changes_on_record, in_effect
from metarec_spark.warehouse.contracts import Contract, conform, contract, only_where
from metarec_spark.warehouse.spans import Spans, condition
from metarec_spark.warehouse.storage import delta_log, hadoop_path, jvm, session_conf

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject

CONFLICTS = tuple(getattr(exceptions, name) for name in exceptions.__all__)
"""What Delta raises if another writer's commit came in between."""
_PROPERTIES = {
    "delta.enableChangeDataFeed": "true",
    "delta.logRetentionDuration": "interval 365 days",  # a model in use names versions that old
}
_FIRST = "first rows", 0
"""App and number of the transaction that first writes to a table: of two at once, Delta refuses one."""
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


class Warehouse:
    """The tables under one root URI, as one run sees them.

    A table's newest version is looked up once, when the run first asks for it, and again after each write of the run itself: all
    steps of a run read the same version, whoever else writes meanwhile.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        # As Hadoop spells it (file:/ with one slash): Delta refuses to create a table under two spellings.
        self.root: str = jvm(spark).org.apache.hadoop.fs.Path(root).toString()
        self.versions_read: dict[str, int] = {}
        self.versions_written: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._logs: dict[str, TableLog] = {}
        self._ensured: set[str] = set()

    def path(self, name: str) -> str:
        """Folder of a table, or of anything else that lives under the warehouse."""
        return f"{self.root}/{name}"

    def check_writable(self) -> None:
        """Create the root and a probe file in it.

        Raises
        ------
        ConfigError
            If the warehouse cannot be written.
        """
        try:
            probe, files = hadoop_path(self.spark, self.path("_writable"))
            files.create(probe, True).close()
            files.delete(probe, False)
        except Exception as error:
            message = f"warehouse {self.root} cannot be written: {first_line(error)}"
            raise ConfigError(f"{message}. Set warehouse to a folder that this user may write") from None

    def exists(self, name: str) -> bool:
        """Whether the table has been written."""
        if name not in self._newest:
            version = int(self._newest_snapshot(name).version())
            self._check_end(name, version)
            if version < 0:
                return False
            self._newest[name] = version
        return True

    def _check_end(self, name: str, version: int) -> None:
        """Refuse a log that has lost its newest commit: the checksum that Delta writes after each commit is still there."""
        missing, files = hadoop_path(self.spark, f"{self.path(name)}/{LOG}/{version + 1:020}.json")
        checksum = hadoop_path(self.spark, f"{self.path(name)}/{LOG}/{version + 1:020}.crc")[0]
        if files.exists(checksum) and not files.exists(missing):
            raise DataError(damaged_table(name, f"{missing.getName()} is missing"))

    def version(self, name: str) -> int:
        """Newest version of a table, whoever wrote it, when this run first asked or last wrote to it.

        Raises
        ------
        DataError
            If there is no such table (yet); the message names the command that writes it.
        """
        if not self.exists(name):
            raise self._missing(name)
        return self._newest[name]

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Read a table at a version, by default at :meth:`version`."""
        version = self.version(name) if version is None else version
        self.versions_read[name] = version
        return self.spark.read.format("delta").option("versionAsOf", version).load(self.path(name))

    def ensure(self, name: str) -> None:
        """Create the table empty, with its contract, if it is missing; add columns that the contract has gained. Once a run.

        Raises
        ------
        DataError
            If the stored contract cannot become this one: only columns that may be null can be added.
        """
        if name in self._ensured:
            return
        if self.exists(name):
            self._evolve(contract(name))
        else:
            self._create(contract(name))
        self._ensured.add(name)

    def _create(self, spec: Contract) -> None:
        name = spec.name
        if self.root.startswith(("file:", "hdfs:")):  # nobody else writes there now
            # If a first commit was never finished, its draft alone is in the log: Delta takes that for a table, and finds none.
            log, files = hadoop_path(self.spark, f"{self.path(name)}/{LOG}")
            left = [status.getPath().getName() for status in (files.listStatus(log) if files.exists(log) else ())]
            if not any(file[0] != "." and file.endswith((".json", ".parquet")) for file in left):
                files.delete(log, True)
        builder = (
            DeltaTable.createIfNotExists(self.spark).location(self.path(name)).addColumns(spec.schema).comment(spec.description)
        )
        if spec.partition_by:
            builder = builder.partitionedBy(*spec.partition_by)
        properties = _PROPERTIES | {f"delta.constraints.{name}": check for name, check in spec.checks.items()}
        for key, value in (properties | {"delta.dataSkippingStatsColumns": ",".join(spec.indexed)}).items():
            builder = builder.property(key, value)
        builder.execute()

    def _evolve(self, spec: Contract) -> None:
        rows = self.spark.read.format("delta").load(self.path(spec.name))
        stored = {field.name: field.dataType.simpleString() for field in rows.schema}
        gained = [field for field in spec.schema if field.name not in stored]
        wrong = [f"{field.name}: missing, and may not be null" for field in gained if not field.nullable]
        wrong += [
            f"{field.name}: {stored[field.name]} there, {field.dataType.simpleString()} here"
            for field in spec.schema
            if stored.get(field.name, field.dataType.simpleString()) != field.dataType.simpleString()
        ]
        wrong += [f"{column}: there alone" for column in stored if column not in spec.schema.names]
        if wrong:
            raise DataError(
                f"table {spec.name} in {self.root} does not fit schemas/{spec.name}.json: {'; '.join(wrong)}. Use the version of "
                f"metarec_spark that wrote it; or move its folder away, and `metarec {WRITTEN_BY[spec.name]}` makes it anew"
            )
        if gained:
            none = self.spark.createDataFrame([], spec.schema).write.format("delta").mode("append")
            none.option("mergeSchema", "true").save(self.path(spec.name))
            self._newest.pop(spec.name)

    def changes(self, name: str, since: int, until: int) -> DataFrame | None:
        """Rows added (``_change_type`` insert) and removed (delete) after version ``since``, up to version ``until``.

        Returns None if the change feed no longer reaches back that far (vacuumed, or the log was cleaned), or the table was
        created anew and has not come to ``since``: the caller then works from the whole table.
        """
        self.versions_read[name] = until
        if since == until:
            return self.read(name, until).withColumn("_change_type", F.lit("insert")).limit(0)
        if since > until or not changes_on_record(self.commits(name), since):
            return None
        reader = self.spark.read.format("delta").option("readChangeFeed", "true")
        rows = reader.option("startingVersion", since + 1).option("endingVersion", until).load(self.path(name))
        added = F.col("_change_type").isin("insert", "update_postimage")
        rows = rows.withColumn("_change_type", F.when(added, "insert").otherwise("delete"))
        return rows.drop("_commit_version", "_commit_timestamp")

    def last_commit(self, name: str, job: str | None = None) -> Commit | None:
        """The newest commit of a job to a table, or the newest of any job that records its settings; None if there is none."""
        commits = (logged.metadata for logged in in_effect(self.commits(name)) if logged.metadata)
        return next((commit for commit in commits if (commit.job == job if job else commit.settings)), None)

    def commits(self, name: str) -> Iterator[LoggedCommit]:
        """Versions on record, newest first, from :meth:`version` on; nothing if there is no table."""
        if self.exists(name):
            log = self._logs.setdefault(name, TableLog(self.spark, self.path(name)))
            yield from log.commits(self.version(name))

    def hours_since(self, name: str, version: int) -> float:
        """Hours since a version was superseded, or since the oldest one on record if its successor is not; 0 for the newest."""
        after = [logged.written for logged in takewhile(lambda logged: logged.version > version, self.commits(name))]
        return (datetime.now(UTC) - min(after)).total_seconds() / 3600 if after else 0.0

    def overview(self, name: str) -> Overview:
        """Version, files and bytes of a table, and who wrote it last."""
        newest, snapshot = next(self.commits(name)), self._newest_snapshot(name)
        job, ds = (newest.metadata.job, newest.metadata.ds.isoformat()) if newest.metadata else (None, None)
        size = int(snapshot.numOfFiles()), int(snapshot.sizeInBytes())
        return Overview(name, newest.version, *size, job, ds, newest.written.isoformat(timespec="seconds"))

    def identity(self, name: str) -> str:
        """Id of the table, which is another one if the table is deleted and created anew."""
        self.version(name)
        return str(self._newest_snapshot(name).metadata().id())

    def created(self, name: str) -> int:
        """Milliseconds since 1970 when the table was created."""
        return int(self._newest_snapshot(name).metadata().createdTime().get())

    def replace_days(
        self, name: str, rows: DataFrame, column: str, days: Spans, commit: Commit, *, undated: bool = False
    ) -> None:
        """Replace the rows of some spans of days (and, if ``undated``, those without a day) by ``rows``."""
        self._replace(name, rows, condition(column, days, undated=undated), commit)

    def replace_all(self, name: str, rows: DataFrame, commit: Commit) -> None:
        """Replace a whole table, keeping its contract and history."""
        self._replace(name, rows, "true", commit)

    def _replace(self, name: str, rows: DataFrame, where: str, commit: Commit) -> None:
        self.ensure(name)
        rows = conform(rows, name)
        if self._is_empty(name):  # nothing to replace, and Delta need not look for it
            self._append(name, only_where(rows, where), commit, *_FIRST)
            return
        writer = rows.write.format("delta").mode("overwrite").option("userMetadata", commit.to_json())
        writer.option("replaceWhere", where).save(self.path(name))
        self._wrote(name)

    def _is_empty(self, name: str) -> bool:
        """Whether nothing was ever written to a table; False if that is not certain."""
        return self.version(name) == 0 and next(self.commits(name)).operation == "CREATE TABLE"

    def append(self, name: str, rows: DataFrame, commit: Commit, *, app: str, txn: int) -> None:
        """Append rows once: a second append with the same ``app`` and a ``txn`` that is not higher is skipped by Delta."""
        self.ensure(name)
        self._append(name, conform(rows, name), commit, app, txn)

    def _append(self, name: str, rows: DataFrame, commit: Commit, app: str, txn: int) -> None:
        writer = rows.write.format("delta").mode("append").option("userMetadata", commit.to_json())
        writer.option("txnAppId", app).option("txnVersion", txn).save(self.path(name))
        self._wrote(name)

    def merge(
        self,
        name: str,
        rows: DataFrame,
        commit: Commit,
        *,
        delete: str | None = None,
        within: tuple[str, Spans] | None = None,
    ) -> None:
        """Merge rows by the contract's key: matched rows are updated, others inserted.

        Parameters
        ----------
        delete
            A boolean column of ``rows``, not in the contract: matched rows where it is true are deleted, and others where
            it is true are not inserted.
        within
            A column with days, and the spans that all rows and the stored rows with their keys lie in: others are not read.
        """
        self.ensure(name)
        spec = contract(name)
        fitting = conform(rows.where(f"NOT {delete}").drop(delete) if delete else rows, name)
        if self._is_empty(name):  # no row can match
            self._append(name, fitting, commit, *_FIRST)
            return
        on = " AND ".join(f"old.{column} <=> new.{column}" for column in spec.key)
        on += f" AND ({condition(f'old.{within[0]}', within[1])})" if within else ""
        values: dict[str, str | Column] = {field.name: f"new.{field.name}" for field in spec.schema}
        differs = " OR ".join(f"NOT (old.{column} <=> new.{column})" for column in spec.comparable)
        merge = self._table(name).alias("old").merge(rows.alias("new"), on)
        if delete:
            merge = merge.whenMatchedDelete(f"new.{delete}")
        merge = merge.whenMatchedUpdate(condition=differs or None, set=values)
        merge = merge.whenNotMatchedInsert(condition=f"NOT new.{delete}" if delete else "true", values=values)
        with self._recording(commit):
            merge.execute()
        self._wrote(name)

    def merge_records(self, name: str, records: list[dict[str, Any]], commit: Commit) -> None:
        """Merge a few rows given as dictionaries."""
        self.merge(name, self.spark.createDataFrame(records, contract(name).schema), commit)

    def delete(self, name: str, condition: Column, commit: Commit) -> None:
        """Delete rows; versions before this one hold them until they are vacuumed. The condition stands in the table's log."""
        with self._recording(commit):
            self._table(name).delete(condition)
        self._wrote(name)

    def update(self, name: str, condition: Column, values: dict[str, Column], commit: Commit) -> None:
        """Set columns of the rows that fulfil a condition; older versions hold the old values until they are vacuumed."""
        with self._recording(commit):
            self._table(name).update(condition, dict(values))
        self._wrote(name)

    def optimize(self, name: str, commit: Commit) -> None:
        """Compact small files."""
        with self._recording(commit):
            self._table(name).optimize().executeCompaction()
        self._wrote(name)

    def vacuum(self, name: str, hours: float) -> None:
        """Delete files that no version younger than ``hours`` needs."""
        # In the log on every file system, so that a later run knows which changes can still be read.
        with session_conf(self.spark, {"spark.databricks.delta.vacuum.logging.enabled": "true"}):
            self._table(name).vacuum(hours)
        self._newest.pop(name, None)

    def names(self) -> list[str]:
        """Tables that have been written, in the order of the data flow."""
        return [name for name in ALL if self.exists(name)]

    def _wrote(self, name: str) -> None:
        self._newest.pop(name, None)
        self.versions_written[name] = self.version(name)

    def _newest_snapshot(self, name: str) -> JavaObject:
        """Delta's newest snapshot, of version -1 if there is no table."""
        try:
            return delta_log(self.spark, self.path(name))[1]
        except Exception as error:  # whatever Delta and the file system raise
            raise DataError(damaged_table(name, first_line(error))) from None

    def _table(self, name: str) -> DeltaTable:
        try:
            return DeltaTable.forPath(self.spark, self.path(name))
        except AnalysisException as error:
            if "DELTA_MISSING_DELTA_TABLE" not in str(error) and "DELTA_TABLE_NOT_FOUND" not in str(error):
                raise
            raise self._missing(name) from None

    def _missing(self, name: str) -> DataError:
        return DataError(f"table {name} is not in {self.root} yet; run `metarec {WRITTEN_BY[name]}` first")

    def _recording(self, commit: Commit) -> AbstractContextManager[None]:
        return session_conf(self.spark, {_USER_METADATA: commit.to_json()})
