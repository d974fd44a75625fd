"""One Spark session for all tests, and factories of tiny logs and configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from metarec_spark import config
from metarec_spark.config import Config
from metarec_spark.job import Job
from metarec_spark.runtime.session import session
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

# Small tables: what a session costs is start-up and planning, not data.
FAST = {
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    "spark.driver.memory": "2g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC",
    "spark.shuffle.compress": "false",
}
DAY = date(2024, 1, 10)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    settings = config.parse({"warehouse": "file:///unused", "spark": {"master": "local[2]", "conf": FAST}})
    found = session(settings, "tests")
    yield found
    found.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Config]:
    """A configuration with its warehouse in the test's folder; sections are given as keyword dictionaries."""

    def make(**sections: object) -> Config:
        return config.parse({"warehouse": file_uri(tmp_path / "warehouse"), "spark": {"conf": FAST}} | sections)

    return make


@pytest.fixture
def job(spark: SparkSession, settings: Callable[..., Config]) -> Callable[..., Job]:
    """A job on the test's warehouse."""

    def make(name: str = "extract", ds: date = DAY, **sections: object) -> Job:
        made = settings(**sections)
        return Job(name, made, ds, spark, Warehouse(spark, made.warehouse))

    return make
