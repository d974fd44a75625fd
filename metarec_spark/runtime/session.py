"""The Spark session: the one that spark-submit started, or a local one with Delta's jars."""

from __future__ import annotations

import os
import sys

from pyspark.sql import SparkSession

from metarec_spark.config import Config
from metarec_spark.runtime.cache import cache_folder
from metarec_spark.runtime.jars import ensure_jars
from metarec_spark.runtime.java import ensure_java

# What every session needs for the tables to mean the same everywhere, and for Python to take them in bounded pieces.
REQUIRED = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # every reader knows them, unlike Spark's default
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxBytesPerBatch": "64m",
}

# Defaults of a local session; [spark.conf] overrides them.
LOCAL = {
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "8",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
    "spark.driver.memory": "4g",
}


def session(config: Config, app: str) -> SparkSession:
    """Return the active session, with what the product requires set; start a local one where there is none.

    Under spark-submit, jars, master and memory are the submitter's; see deploy/spark-defaults.conf.
    """
    builder = SparkSession.builder.appName(app)
    if not _submitted():
        java_home = ensure_java(cache_folder())
        jars = ",".join(str(jar) for jar in ensure_jars(java_home))
        builder = builder.master(config.spark.master)
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        for key, value in {**LOCAL, "spark.jars": jars, **config.spark.conf}.items():
            builder = builder.config(key, value)
    for key, value in REQUIRED.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _submitted() -> bool:
    """Whether spark-submit launched this process: it hands its driver a gateway."""
    return "PYSPARK_GATEWAY_PORT" in os.environ
