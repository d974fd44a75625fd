"""Settings of a local session by the size of its inputs, which is known before the JVM starts.

On a small log most of a job's time is start-up: compiling code, planning, scheduling tasks. The bounds are estimates: with
200,000 rows, an extract took as long with compiled expressions as without. ``benchmarks/extract_costs.py --conf`` prints what a
small log costs with other settings.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from urllib.parse import urlparse

from metarec_spark import columns as c
from metarec_spark.config import Config

LARGE = {
    "spark.sql.shuffle.partitions": "8",
    "spark.databricks.delta.snapshotPartitions": "2",
}
SMALL = {
    # One quick compiler pass and one collector thread: neither optimised code nor parallel collection pays in a minute. With that
    # pass alone, Java reserves 48 MB for code; Spark fills them within minutes, and then all new code is interpreted.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
}
# Expressions are evaluated as they stand: compiling them to Java classes takes longer than the rows do.
TINY = SMALL | {"spark.sql.codegen.factoryMode": "NO_CODEGEN"}
_SIZES = {2 << 20: TINY, 32 << 20: SMALL}
"""Bytes of the files of sources, items and events, at most, and the settings: 200,000 and a million rows of Parquet, about."""


def sized_settings(config: Config) -> dict[str, str]:
    """Settings for a session by the bytes of all that its job may read."""
    total = _local_bytes(config)
    return next((settings for most, settings in _SIZES.items() if total <= most), LARGE)


def _local_bytes(config: Config) -> float:
    """Bytes that a job may read, counted up to the first size that is large; infinite if they are not all on this machine."""
    paths = [source.path for source in (*config.sources, *config.items)]
    paths.append(f"{config.warehouse}/{c.EVENTS}")
    total = 0
    for path in paths:
        parsed = urlparse(path)
        if parsed.scheme not in ("", "file") or "{" in path:
            return float("inf")
        for size in _sizes(parsed.path if parsed.scheme else path):
            total += size
            if total > max(_SIZES):
                return total
    return total


def _sizes(pattern: str) -> Iterator[int]:
    """Bytes of each file of a path or pattern, folders included."""
    for path in [pattern] if os.path.exists(pattern) else glob.glob(pattern):
        if not os.path.isdir(path):
            yield os.path.getsize(path)
        for folder, _, files in os.walk(path):
            yield from (os.path.getsize(os.path.join(folder, file)) for file in files)
