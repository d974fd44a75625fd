"""Settings of a local session by the size of its inputs, which is known before the JVM starts.

On a small log most of a job's time is start-up: compiling code, planning, scheduling tasks. The limit and the settings are
estimates: ``benchmarks/extract_costs.py`` prints the costs of a small log, and has not been run with and without them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from urllib.parse import urlparse

from metarec_spark import columns as c
from metarec_spark.config import Config

_MOST_BYTES = 32 << 20
"""Files of sources, items and events of a small session, at most: a million rows of Parquet, about."""

SMALL = {
    # One quick compiler pass and one collector thread: neither optimised code nor parallel collection pays in a minute. With that
    # pass alone, Java reserves 48 MB for code; Spark fills them within minutes, and then all new code is interpreted.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
}
LARGE = {
    "spark.sql.shuffle.partitions": "8",
    "spark.databricks.delta.snapshotPartitions": "2",
}


def has_small_inputs(config: Config) -> bool:
    """Whether all that a job may read lies on this machine, and is small."""
    paths = [source.path for source in (*config.sources, *config.items)]
    paths.append(f"{config.warehouse}/{c.EVENTS}")
    total = 0
    for path in paths:
        parsed = urlparse(path)
        if parsed.scheme not in ("", "file") or "{" in path:
            return False
        for size in _sizes(parsed.path if parsed.scheme else path):
            total += size
            if total > _MOST_BYTES:
                return False
    return True


def _sizes(pattern: str) -> Iterator[int]:
    """Bytes of each file of a path or pattern, folders included."""
    for path in [pattern] if os.path.exists(pattern) else glob.glob(pattern):
        if not os.path.isdir(path):
            yield os.path.getsize(path)
        for folder, _, files in os.walk(path):
            yield from (os.path.getsize(os.path.join(folder, file)) for file in files)
