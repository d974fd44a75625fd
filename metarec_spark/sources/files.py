"""List the files of a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from metarec_spark.warehouse.storage import hadoop_path

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject


@dataclass(frozen=True, order=True)
class SourceFile:
    """A file as its file system lists it."""

    path: str
    """Full URI as Hadoop writes it (``file:/logs/a.csv``): what the column ``file`` of a row holds."""
    size: int
    """Bytes."""
    modified: datetime
    """Time of the last change, UTC."""


def list_files(spark: SparkSession, path: str) -> list[SourceFile]:
    """Files that a path names, those of its sub-folders included, by path; none if nothing is there.

    Parameters
    ----------
    path
        A file, a folder or a Hadoop glob, on any file system that Spark reads.

    Notes
    -----
    As everywhere in Hadoop, names that begin with ``_`` or ``.`` and names that end with ``._COPYING_`` are not data.
    """
    place, files = hadoop_path(spark, path)
    statuses = files.globStatus(place) or ()
    return sorted(file for status in statuses for file in _below(files, status, top=True))


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


def file_of_row() -> Column:
    """The file that a row was read from, spelled as :class:`SourceFile` spells it."""
    # The URI in the metadata is percent-encoded; a plus sign stands for itself there.
    decoded = F.url_decode(F.replace(F.col("_metadata.file_path"), F.lit("+"), F.lit("%2B")))
    return F.regexp_replace(decoded, "^file:///", "file:/")
