"""generate: write a generated log as Parquet: events by day of arrival, and items."""

from __future__ import annotations

from pyspark.sql import Observation, SparkSession
from pyspark.sql import functions as F

from metarec_spark.errors import ConfigError
from metarec_spark.synthetic import arrivals, platforms
from metarec_spark.synthetic.arrivals import ARRIVAL_DAY, BOT, CLEAN, KIND, KINDS
from metarec_spark.synthetic.platforms import Scale
from metarec_spark.warehouse.storage import hadoop_path

_EVENTS_PER_TASK = 2_000_000


def generate(spark: SparkSession, scale: Scale, out: str) -> dict[str, int]:
    """Write ``out/events/ds=YYYY-MM-DD/`` and ``out/items/`` as Parquet.

    Each task writes one file per day and has ``_EVENTS_PER_TASK`` events; there are at least as many tasks as cores. A task sorts
    its rows by day and spills to disk; the driver's memory does not grow with the log.

    Returns
    -------
    dict
        Rows written by kind (``clean``, ``bot`` and those of ``arrivals.KINDS``), and ``items``.

    Raises
    ------
    ConfigError
        If ``out`` already has events or items.
    """
    out = out.rstrip("/")
    for path in (f"{out}/events", f"{out}/items"):
        if _exists(spark, path):
            raise ConfigError(f"{path} exists already; remove it or choose another folder")
    partitions = max(spark.sparkContext.defaultParallelism, -(-scale.events // _EVENTS_PER_TASK))
    events = arrivals.events(spark, scale, partitions)
    kinds = [F.count_if(F.col(KIND) == kind).alias(kind) for kind in (CLEAN, *KINDS, BOT)]
    counted = Observation()
    events.observe(counted, *kinds).drop(KIND).write.partitionBy(ARRIVAL_DAY).parquet(f"{out}/events")
    platforms.items(spark, scale).write.parquet(f"{out}/items")
    return {kind: counted.get[kind] for kind in (CLEAN, *KINDS, BOT)} | {"items": len(platforms.PLATFORMS) * scale.items}


def _exists(spark: SparkSession, path: str) -> bool:
    folder, files = hadoop_path(spark, path)
    return bool(files.exists(folder))
