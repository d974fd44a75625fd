"""Open Parquet files, grouped by their own schemas, and Delta tables."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from metarec_spark import columns as c
from metarec_spark.config.inputs import File
from metarec_spark.errors import DataError, first_line
from metarec_spark.sources.files import AT_ONCE, SourceFile, beside, file_of_row, literal, partition_of_row, unread
from metarec_spark.sources.group import Group
from metarec_spark.sources.names import Tree, Wanted, check, find
from metarec_spark.sources.problems import MODIFIED, PROBLEM
from metarec_spark.warehouse.storage import delta_log, hadoop_path, jvm


def open_parquet(spark: SparkSession, columns: Sequence[Wanted], files: Sequence[SourceFile]) -> list[Group]:
    """Open Parquet files: those of one schema, and in folders of the same names, are a group.

    Raises
    ------
    DataError
        If a file is no Parquet, or lacks a column that it must have.

    Notes
    -----
    The driver reads the footer of each file.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[SourceFile]] = defaultdict(list)
    for file, schema in zip(files, _schemas(spark, files), strict=True):
        groups[schema, tuple(sorted(file.partitions))].append(file)
    session, opened, names = exact(spark), [], {}
    for (schema, partitions), group in groups.items():
        rows = _loaded(session, group)
        tree = {**dict.fromkeys(partitions), **_tree(rows.schema)}
        names[group[0].path] = tree
        opened.append((schema, tree, rows, group[0].path))
    check(columns, names, in_each=True)
    return [_group(rows, columns, tree, path, schema) for schema, tree, rows, path in opened]


def open_delta(spark: SparkSession, source: File, columns: Sequence[Wanted], files: Sequence[str] | None) -> list[Group]:
    """Open the current version of a Delta table; ``files`` are the wanted data files as its log names them, None: all.

    Raises
    ------
    DataError
        If there is no such table, or it lacks a column that it must have.
    """
    try:
        rows = spark.read.format("delta").load(source.path)
    except AnalysisException as error:
        known = {"PATH_NOT_FOUND": "no such folder", "DELTA_TABLE_NOT_FOUND": "no Delta table there"}
        reason = known.get(error.getCondition() or "", first_line(error))
        raise DataError(f"cannot be read as delta: {reason}; check path and format") from None
    rows = rows if files is None else _data_files(spark, source.path, files)
    tree = _tree(rows.schema)
    check(columns, {source.path: tree}, in_each=True)
    return [_group(rows, columns, tree, source.path)]


def _data_files(spark: SparkSession, path: str, files: Sequence[str]) -> DataFrame:
    """Rows of some data files of a Delta table: no other file is opened, as would be by a filter of rows by their file."""
    location, system = hadoop_path(spark, path)
    log, snapshot = delta_log(spark, system.makeQualified(location).toString())
    java = jvm(spark)
    chosen = snapshot.getSpecificFilesWithStats(java.org.apache.spark.api.python.PythonUtils.toSeq(list(files)))
    return DataFrame(log.createDataFrame(snapshot, chosen, False, java.scala.Option.empty()), spark)


def _group(rows: DataFrame, columns: Sequence[Wanted], tree: Tree, path: str, schema: str = "") -> Group:
    """Bring the wanted columns to our names."""
    selected, nanoseconds, spelled = [], {}, {}
    own = _tree(rows.schema)
    for column in columns:
        names = find(column, tree)
        spelled[column.name] = ".".join(names or (column.name,))
        if names and names[0] in own:
            selected.append(_field(names).alias(column.name))
            counted = re.search(rf"\bint64 {re.escape(names[-1])} \(TIMESTAMP\(NANOS,(true|false)\)\)", schema)
            if counted:
                nanoseconds[column.name] = counted[1] == "true"
        elif names:
            selected.append(partition_of_row(names[0]).alias(column.name))
        elif column.default is not None:
            selected.append(F.lit(column.default).alias(column.name))
    selected += [file_of_row().alias(c.FILE), F.col("_metadata.file_modification_time").alias(MODIFIED)]
    selected += [F.lit(None).cast("string").alias(PROBLEM)]
    return Group(rows.select(*selected), path, "typed", spelled, nanoseconds)


def _field(names: Sequence[str]) -> Column:
    return F.col(".".join("`" + name.replace("`", "``") + "`" for name in names))


def _tree(schema: T.StructType) -> Tree:
    return {field.name: _tree(field.dataType) if isinstance(field.dataType, T.StructType) else None for field in schema}


def _loaded(session: SparkSession, files: Sequence[SourceFile]) -> DataFrame:
    try:
        return session.read.parquet(*[literal(file.path) for file in files])
    except AnalysisException as error:
        raise DataError(f"{files[0].path} cannot be read as parquet: {first_line(error)}") from None


def _schemas(spark: SparkSession, files: Sequence[SourceFile]) -> list[str]:
    """Schema in the footer of each file, as Parquet writes it."""
    parquet, conf = jvm(spark).org.apache.parquet.hadoop, spark.sparkContext._jsc.hadoopConfiguration()

    def schema(file: SourceFile) -> str:
        try:
            reader = parquet.ParquetFileReader.open(parquet.util.HadoopInputFile.fromPath(hadoop_path(spark, file.path)[0], conf))
            try:
                return reader.getFileMetaData().getSchema().toString()
            finally:
                reader.close()
        except Py4JJavaError as error:
            raise DataError(unread(file.path, error)) from None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(schema, files))


@cache
def exact(spark: SparkSession) -> SparkSession:
    """Return a session that takes names as they are written, and nanoseconds as numbers."""
    return beside(spark, {"spark.sql.caseSensitive": "true", "spark.sql.legacy.parquet.nanosAsLong": "true"})
