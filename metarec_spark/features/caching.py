"""Rows that several queries need, computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame
from pyspark.storagelevel import StorageLevel


@contextmanager
def cached(rows: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK) -> Iterator[DataFrame]:
    """Rows that are computed once, however often they are used in the block."""
    rows.persist(level)
    try:
        yield rows
    finally:
        rows.unpersist()
