"""Logs of random dialects hold what Python's csv, json and pyarrow read from the same bytes; benchmarks/hostile_logs.py runs more."""

from __future__ import annotations

from pathlib import Path

from hostile_files import HostileLog
from hostile_logs import differences
from pyspark.sql import SparkSession


def test_no_log_differs_silently(spark: SparkSession, tmp_path: Path):
    logs = [HostileLog(seed, tmp_path) for seed in range(12)]
    assert differences(spark, logs) == ({}, {})
