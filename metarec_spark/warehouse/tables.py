"""All Delta I/O: one folder a table under the warehouse, every write conforming to its contract.

A day's rows are replaced (``replaceWhere``), state is merged by key, appends carry a transaction id, and each commit
records job, day, model and input versions in its metadata, from which the next run knows where to go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from delta import exceptions
from delta.exceptions import captured  # noqa: F401 (it makes PySpark raise these)
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.columns import ALL, WRITTEN_BY
from metarec_spark.errors import ConfigError, DataError, first_line
from metarec_spark.warehouse.contracts import Contract, conform, contract
from metarec_spark.warehouse.storage import hadoop_path

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject

CONFLICTS = tuple(getattr(exceptions, name) for name in exceptions.__all__)
"""What Delta raises where another writer's commit came in between."""
_WRITING = timedelta(hours=12)
"""What a commit may have taken from its first file on."""
_PROPERTIES = {
    "delta.enableChangeDataFeed": "true",
    "delta.logRetentionDuration": "interval 365 days",  # a model in use names versions that old
}
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


@dataclass(frozen=True)
class Commit:
    """What a write says of itself in the table's history."""

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
        said = {"job": self.job, "ds": self.ds.isoformat(), "inputs": self.inputs}
        said |= {"model_id": self.model_id} if self.model_id else {}
        return json.dumps(said | ({"settings": self.settings} if self.settings else {}), sort_keys=True)


class Warehouse:
    """The tables under one root URI, as seen by one Spark session."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        # As Hadoop spells it (file:/ with one slash): Delta refuses to create a table under two spellings.
        self.root = spark.sparkContext._jvm.org.apache.hadoop.fs.Path(root).toString()
        self.versions_read: dict[str, int] = {}
        self.versions_written: dict[str, int] = {}
        self._fitting: set[str] = set()

    def path(self, name: str) -> str:
        """Folder of a table, or of anything else that lives under the warehouse."""
        return f"{self.root}/{name}"

    def check_writable(self) -> None:
        """Create the root and a probe file in it.

        Raises
        ------
        ConfigError
            Where the warehouse cannot be written.
        """
        try:
            probe, files = hadoop_path(self.spark, self.path("_writable"))
            files.create(probe, True).close()
            files.delete(probe, False)
        except Exception as error:
            said = f"warehouse {self.root} cannot be written: {first_line(error)}"
            raise ConfigError(f"{said}. Set warehouse to a folder that this user may write") from None

    def exists(self, name: str) -> bool:
        """Whether the table has been written."""
        return DeltaTable.isDeltaTable(self.spark, self.path(name))

    def version(self, name: str) -> int:
        """Newest version of a table, whoever wrote it."""
        return int(self._snapshot(name).version())

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Read a table, at a pinned version where one is given.

        Raises
        ------
        DataError
            Where there is no such table (yet); the message names the command that writes it.
        """
        version = self.version(name) if version is None else version
        self.versions_read[name] = version
        return self.spark.read.format("delta").option("versionAsOf", version).load(self.path(name))

    def ensure(self, name: str) -> None:
        """Create the table empty, with its contract, where it is missing; add columns that the contract has gained since.

        Raises
        ------
        DataError
            Where the table is of a contract that cannot become this one: only columns that may be null can be added.
        """
        spec = contract(name)
        if self.exists(name):
            self._evolve(spec)
            return
        if self.root.startswith(("file:", "hdfs:")):  # nobody else writes there now
            # Drafts that are left of a first commit, and nothing else, Delta takes for a table that it then does not find.
            log, files = hadoop_path(self.spark, f"{self.path(name)}/_delta_log")
            left = [of.getPath().getName() for of in (files.listStatus(log) if files.exists(log) else ())]
            if not any(name[0] != "." and name.endswith((".json", ".parquet")) for name in left):
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
        if spec.name in self._fitting:
            return
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
        self._fitting.add(spec.name)

    def changes(self, name: str, since: int, until: int) -> DataFrame | None:
        """Rows added (``_change_type`` insert) and removed (delete) after version ``since``, up to version ``until``.

        Returns None where the change feed no longer reaches back that far (vacuumed, or the log was cleaned), or the table was
        made anew and has not come to ``since``: the caller then works from the whole table.
        """
        self.versions_read[name] = until
        if since == until:
            return self.read(name, until).withColumn("_change_type", F.lit("insert")).limit(0)
        if since > until or since + 1 < self._oldest_change(name):
            return None
        reader = self.spark.read.format("delta").option("readChangeFeed", "true")
        rows = reader.option("startingVersion", since + 1).option("endingVersion", until).load(self.path(name))
        kind = F.col("_change_type")
        rows = rows.withColumn("_change_type", F.when(kind.isin("insert", "update_postimage"), "insert").otherwise("delete"))
        return rows.drop("_commit_version", "_commit_timestamp")

    def _oldest_change(self, name: str) -> int:
        """The first version whose changes can be read: its log is there, and so are its files, which VACUUM may have removed."""
        history = self._table(name).history().select("version", "timestamp", "operation", "operationParameters")
        commits = [row.asDict() for row in history.toLocalIterator()]
        gone = datetime.min
        for row in commits:
            if row["operation"] == "VACUUM START":
                said = row["operationParameters"]
                # Files that are not in use any more are kept for the table's own retention alone.
                kept = min(int(of) for name, of in said.items() if name.endswith("RetentionMillis"))
                gone = max(gone, row["timestamp"] - timedelta(milliseconds=kept))
        # A file is somewhat older than the commit that names it.
        left = [row["version"] for row in commits if row["timestamp"] - gone > _WRITING]
        return min(left, default=commits[0]["version"] + 1)

    def last_commit(self, name: str, job: str | None = None) -> dict | None:
        """What the newest commit of a job to a table said of itself, or the newest of all that name their settings; None where
        there is none in the history."""
        said = (said for _, said in self.commits(name))
        return next((of for of in said if (of.get("job") == job if job else "settings" in of)), None)

    def commits(self, name: str) -> Iterator[tuple[int, dict]]:
        """Version of each commit that is on record, newest first, and what it said of itself; nothing where there is no table."""
        if self.exists(name):
            for version, said in self._table(name).history().select("version", "userMetadata").toLocalIterator():
                yield version, json.loads(said) if said else {}

    def hours_since(self, name: str, version: int) -> float:
        """Hours since a version was superseded, or since the table was made where that is no more on record; 0 for the newest."""
        history = self._table(name).history().where(F.col("version") > version)
        after = [row["timestamp"] for row in history.select("timestamp").toLocalIterator()]
        return (datetime.now() - min(after)).total_seconds() / 3600 if after else 0.0

    def overview(self, name: str) -> dict[str, object]:
        """Version, files and bytes of a table, and who wrote it last: job, its day, and when (UTC)."""
        table = self._table(name)
        detail, newest = table.detail().select("numFiles", "sizeInBytes").first(), table.history(1).first()
        said = json.loads(newest["userMetadata"] or "{}")
        written = newest["timestamp"].astimezone(UTC).isoformat(timespec="seconds")
        found = {"table": name, "version": newest["version"], "files": detail["numFiles"], "bytes": detail["sizeInBytes"]}
        return found | {"job": said.get("job"), "ds": said.get("ds"), "written": written}

    def identity(self, name: str) -> str:
        """Another one for each table that was ever made in this place."""
        return self._snapshot(name).metadata().id()

    def replace_days(
        self, name: str, rows: DataFrame, column: str, first: date, last: date, commit: Commit, *, undated: bool = False
    ) -> None:
        """Replace the rows of the days ``first`` to ``last`` (and, if ``undated``, those without a day) by ``rows``."""
        span = f"{column} >= DATE'{first.isoformat()}' AND {column} <= DATE'{last.isoformat()}'"
        self._replace(name, rows, f"({span}) OR {column} IS NULL" if undated else span, commit)

    def replace_all(self, name: str, rows: DataFrame, commit: Commit) -> None:
        """Replace a whole table, keeping its contract and history."""
        self._replace(name, rows, "true", commit)

    def _replace(self, name: str, rows: DataFrame, where: str, commit: Commit) -> None:
        self.ensure(name)
        writer = conform(rows, name).write.format("delta").mode("overwrite").option("userMetadata", commit.to_json())
        writer.option("replaceWhere", where).save(self.path(name))
        self._wrote(name)

    def append(self, name: str, rows: DataFrame, commit: Commit, *, app: str, txn: int) -> None:
        """Append rows once: a second append with the same ``app`` and a ``txn`` that is not higher is skipped by Delta."""
        self.ensure(name)
        writer = conform(rows, name).write.format("delta").mode("append").option("userMetadata", commit.to_json())
        writer.option("txnAppId", app).option("txnVersion", txn).save(self.path(name))
        self._wrote(name)

    def merge(self, name: str, rows: DataFrame, commit: Commit, *, delete: str | None = None) -> None:
        """Merge rows by the contract's key: matched rows are updated, others inserted.

        Parameters
        ----------
        delete
            A boolean column of ``rows``, not in the contract: matched rows where it is true are deleted, and others where
            it is true are not inserted.
        """
        self.ensure(name)
        spec, snapshot = contract(name), self._snapshot(name)
        fitting = conform(rows.where(f"NOT {delete}").drop(delete) if delete else rows, name)
        if snapshot.version() == 0 and snapshot.numOfFiles() == 0:  # made just now: there is nothing to look for
            self._replace(name, fitting, "true", commit)
            return
        on = " AND ".join(f"old.{column} <=> new.{column}" for column in spec.key)
        values = {field.name: f"new.{field.name}" for field in spec.schema}
        differs = " OR ".join(f"NOT (old.{column} <=> new.{column})" for column in self._comparable(spec))
        merge = self._table(name).alias("old").merge(rows.alias("new"), on)
        if delete:
            merge = merge.whenMatchedDelete(f"new.{delete}")
        merge = merge.whenMatchedUpdate(condition=differs or None, set=values)
        merge = merge.whenNotMatchedInsert(condition=f"NOT new.{delete}" if delete else None, values=values)
        with self._saying(commit):
            merge.execute()
        self._wrote(name)

    def merge_records(self, name: str, records: list[dict], commit: Commit) -> None:
        """Merge a few rows given as dictionaries."""
        self.merge(name, self.spark.createDataFrame(records, contract(name).schema), commit)

    def delete(self, name: str, condition: Column, commit: Commit) -> None:
        """Delete rows; versions before this one hold them until they are vacuumed. The condition stands in the table's log."""
        with self._saying(commit):
            self._table(name).delete(condition)
        self._wrote(name)

    def optimize(self, name: str, commit: Commit) -> None:
        """Compact small files."""
        with self._saying(commit):
            self._table(name).optimize().executeCompaction()
        self._wrote(name)

    def vacuum(self, name: str, hours: float) -> None:
        """Delete files that no version younger than ``hours`` needs."""
        # On record everywhere, so that it is known what changes can still be read.
        with _SessionConf(self.spark, {"spark.databricks.delta.vacuum.logging.enabled": "true"}):
            self._table(name).vacuum(hours)

    def names(self) -> list[str]:
        """Tables that have been written, in the order of the data flow."""
        return [name for name in ALL if self.exists(name)]

    def _wrote(self, name: str) -> None:
        self.versions_written[name] = self.version(name)

    def _snapshot(self, name: str) -> JavaObject:
        """The newest, from the log itself: a query of the history takes a quarter of a second."""
        log = self.spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog
        snapshot = log.forTableWithSnapshot(self.spark._jsparkSession, self.path(name))._2()
        if snapshot.version() < 0:
            raise self._missing(name)
        return snapshot

    def _table(self, name: str) -> DeltaTable:
        try:
            return DeltaTable.forPath(self.spark, self.path(name))
        except AnalysisException as error:
            if "DELTA_MISSING_DELTA_TABLE" not in str(error) and "DELTA_TABLE_NOT_FOUND" not in str(error):
                raise
            raise self._missing(name) from None

    def _missing(self, name: str) -> DataError:
        return DataError(f"table {name} is not in {self.root} yet; run `metarec {WRITTEN_BY[name]}` first")

    @staticmethod
    def _comparable(spec: Contract) -> list[str]:
        """Columns whose change makes a row worth rewriting; maps cannot be compared, and are set by the same key."""
        return [f.name for f in spec.schema if f.name not in spec.key and f.dataType.typeName() != "map"]

    def _saying(self, commit: Commit) -> _SessionConf:
        return _SessionConf(self.spark, {_USER_METADATA: commit.to_json()})


class _SessionConf:
    """Session settings that hold for a block: how DML commands, which take no options, get their commit metadata."""

    def __init__(self, spark: SparkSession, values: dict[str, str]) -> None:
        self.spark, self.values = spark, values

    def __enter__(self) -> None:
        for key, value in self.values.items():
            self.spark.conf.set(key, value)

    def __exit__(self, *_: object) -> None:
        for key in self.values:
            self.spark.conf.unset(key)
