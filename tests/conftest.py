"""One Spark session for all tests, factories of tiny logs and configurations, and the tiers of the suite.

Tiers are markers: ``unit`` needs no Spark; ``spark`` runs transforms in the session; ``jobs`` runs whole jobs in it; ``process``
starts processes of its own; ``cluster`` starts a Spark cluster and HDFS. ``make check`` runs the first two.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share two cores; read once, when PyTorch is imported

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import hypothesis
import pytest
from pyspark.sql import SparkSession

from metarec_spark import config
from metarec_spark.config import Config
from metarec_spark.job import Job
from metarec_spark.runtime.session import session
from metarec_spark.runtime.sizing import TINY
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

# Small tables: what a session costs is start-up and planning, not data.
FAST = TINY | {
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    "spark.driver.memory": "2g",
    "spark.shuffle.compress": "false",
}
DAY = date(2024, 1, 10)

# No test fails because the machine is slow. ``HYPOTHESIS_PROFILE=drill`` searches longer.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=25)
hypothesis.settings.register_profile("drill", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# The longest first, so that no worker ends with one of them while the other has nothing to do. Their tier, and their files.
TIERS = {
    "cluster": ["test_cluster.py"],
    "process": ["faults/", "test_ports.py", "training/test_distributed.py"],
    "jobs": [
        "transfer/test_adapt.py",
        "scoring/test_incremental.py",
        "scoring/test_rules.py",
        "test_nightly.py",
        "test_bad_input.py",
        "operations/",
        "training/test_train.py",
        "scoring/test_recommend.py",
        "scoring/test_new_items.py",
        "features/test_extract.py",
        "features/test_day_orders.py",
        "evaluation/test_evaluate.py",
    ],
}
_ORDER = {path: (number, tier) for number, (tier, path) in enumerate((t, p) for t, paths in TIERS.items() for p in paths)}
_ROOT = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, and put the longest files first."""

    def place(item: pytest.Item) -> tuple[int, str]:
        path = item.path.relative_to(_ROOT).as_posix()
        rest = (len(_ORDER), "spark" if "spark" in item.fixturenames else "unit")
        return next((of for start, of in _ORDER.items() if path.startswith(start)), rest)

    for item in items:
        item.add_marker(place(item)[1])
    items.sort(key=lambda item: place(item)[0])


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
