"""Open the files of a source by their format."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import SparkSession

from metarec_spark.config.inputs import File
from metarec_spark.errors import DataError
from metarec_spark.sources.files import files_at, list_files
from metarec_spark.sources.group import Group
from metarec_spark.sources.names import Wanted
from metarec_spark.sources.parquet import open_delta, open_parquet
from metarec_spark.sources.text import open_text


def open_source(
    spark: SparkSession, source: File, columns: Sequence[Wanted], where: str, files: Sequence[str] | None = None
) -> list[Group]:
    """Open a source: groups of files that are alike, with the wanted columns by our names.

    Parameters
    ----------
    where
        What the configuration calls the source, for errors.
    files
        Files to read; None: all that the source's path names.

    Raises
    ------
    DataError
        If nothing is there, a file cannot be read, or a column is missing.
    """
    try:
        if source.format == "delta":
            return open_delta(spark, source, columns, files)
        listed = list_files(spark, source.path) if files is None else files_at(spark, files)
        if not listed and files is None:
            raise DataError(f"cannot be read as {source.format}: no such file, or no file in the folder; check path and format")
        if source.format == "parquet":
            return open_parquet(spark, columns, listed)
        return open_text(spark, source, columns, listed, where)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
