"""List the files of a source, and read how they begin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from metarec_spark.errors import DataError, first_line
from metarec_spark.warehouse.storage import hadoop_path

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject

_HEAD = 1 << 18
"""Bytes of a file that tell how it is written."""
AT_ONCE = 8
"""Files that the driver opens at a time."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, order=True)
class SourceFile:
    """A file as its file system lists it."""

    path: str
    """Full URI as Hadoop writes it (``file:/logs/a.csv``): what the column ``file`` of a row holds."""
    size: int
    """Bytes."""
    modified: datetime
    """Time of the last change, UTC."""

    @property
    def partitions(self) -> dict[str, str | None]:
        """Names and values of the folders ``name=value`` that the file is in, as text."""
        pairs = [folder.partition("=") for folder in self.path.split("/")[:-1] if "=" in folder.strip("=")]
        return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, _, value in pairs}


@dataclass(frozen=True)
class Head:
    """How a file begins."""

    data: bytes
    """First bytes, decompressed."""
    whole: bool
    """Whether they are all."""
    compressed: bool


def list_files(spark: SparkSession, path: str) -> list[SourceFile]:
    """Return the files that a path names, those of its sub-folders included, by path; none if nothing is there.

    Parameters
    ----------
    path
        A file, a folder or a Hadoop glob, on any file system that Spark reads.

    Notes
    -----
    As everywhere in Hadoop, names that begin with ``_`` or ``.`` and names that end with ``._COPYING_`` are not data.

    Raises
    ------
    DataError
        If a folder cannot be listed.
    """
    try:
        location, files = hadoop_path(spark, path)
        statuses = files.globStatus(location) or ()
        return sorted(file for status in statuses for file in _below(files, status, top=True))
    except Py4JJavaError as error:
        raise DataError(f"{path} cannot be listed: {first_line(error)}; check the path and who may read it") from None


def files_at(spark: SparkSession, paths: Sequence[str]) -> list[SourceFile]:
    """Return the files of these paths, each as :func:`list_files` spells it.

    Raises
    ------
    DataError
        If one is not there.
    """

    def listed(path: str) -> SourceFile:
        location, files = hadoop_path(spark, path)
        try:
            return next(_below(files, files.getFileStatus(location), top=True))
        except (Py4JJavaError, StopIteration):
            raise DataError(f"{path}: no such file; was it removed while it was read?") from None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(listed, paths))


def _below(files: JavaObject, status: JavaObject, *, top: bool = False) -> Iterator[SourceFile]:
    name = status.getPath().getName()
    if not top and ((name.startswith(("_", ".")) and "=" not in name) or name.endswith("._COPYING_")):
        return
    if status.isDirectory():
        for child in files.listStatus(status.getPath()):
            yield from _below(files, child)
    else:
        modified = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC)
        yield SourceFile(status.getPath().toString(), status.getLen(), modified)


def heads(spark: SparkSession, files: Sequence[SourceFile]) -> list[Head]:
    """Return how each file begins.

    Raises
    ------
    DataError
        If a file cannot be read or decompressed.
    """
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # a session has one
    codecs = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(spark.sparkContext._jsc.hadoopConfiguration())

    def head(file: SourceFile) -> Head:
        path, system = hadoop_path(spark, file.path)
        try:
            codec, stream = codecs.getCodec(path), system.open(path)
            try:
                data = bytes((codec.createInputStream(stream) if codec else stream).readNBytes(_HEAD))
            finally:
                stream.close()
        except Py4JJavaError as error:
            raise DataError(unread(file.path, error)) from None
        return Head(data, len(data) < _HEAD, codec is not None)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(head, files))


def unread(path: str, error: Exception) -> str:
    """Return the message for a file that a library could not read."""
    why = re.sub(r"^(?:[\w$]+\.)*([\w$]+: )", r"\1", first_line(error))
    return f"{path} cannot be read: {why}. Is it whole, and of the format that the configuration names? Mend it or take it away"


def literal(path: str) -> str:
    """Return a path that Spark takes for itself, whatever signs of a glob it holds."""
    return re.sub(r"([][{}*?\\])", r"\\\1", path)


def beside(spark: SparkSession, settings: Mapping[str, str]) -> SparkSession:
    """Return a new session beside another one, on the same cluster, that differs in some settings."""
    session = spark.newSession()
    for key, value in {**spark.conf.getAll, **settings}.items():
        if spark.conf.isModifiable(key):
            session.conf.set(key, value)
    return session


def file_of_row() -> Column:
    """Return the file that a row was read from, as :class:`SourceFile` spells it."""
    path = F.col("_metadata.file_path")
    decoded = F.when(F.contains(path, F.lit("%")), F.url_decode(F.replace(path, F.lit("+"), F.lit("%2B")))).otherwise(path)
    return F.when(decoded.startswith("file:///"), F.concat(F.lit("file:"), F.substring(decoded, 8, 1 << 20))).otherwise(decoded)


def partition_of_row(name: str) -> Column:
    """Return the value of the folder ``name=value`` that a row's file is in, as text."""
    value = F.regexp_extract(file_of_row(), f".*/{re.escape(name)}=([^/]*)/", 1)
    decoded = F.try_url_decode(F.replace(value, F.lit("+"), F.lit("%2B")))
    return F.when(value != _NO_VALUE, F.coalesce(decoded, value))
