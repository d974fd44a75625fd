"""A table whose log has lost a file or a part of one: which table, and what to do; never an older version in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from metarec_spark import job
from metarec_spark.config import Config
from metarec_spark.errors import DataError
from metarec_spark.job import Job, Result
from metarec_spark.warehouse.storage import local_path
from metarec_spark.warehouse.tables import Warehouse

from conftest import DAY  # isort: skip

ROWS = "SELECT {} AS item_idx, 'shop' AS domain, 'i' AS item_id, 'blocked' AS reason"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])


def cut_with_its_checksum(file: Path) -> None:
    cut(file)
    file.with_name(f".{file.name}.crc").unlink()


def cut_in_its_first_line(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])
    file.with_name(f".{file.name}.crc").unlink()


@pytest.mark.parametrize("version", [0, 1, 2], ids=["first", "middle", "newest"])
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, cut, cut_with_its_checksum, cut_in_its_first_line],
    ids=["missing", "cut", "cut unnoticed", "first line cut"],
)
def test_a_damaged_log_ends_with_code_3_and_names_the_table(
    spark: SparkSession,
    settings: Callable[..., Config],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    version: int,
) -> None:
    def write(of: Job) -> Result:
        for number in range(2):
            of.warehouse.replace_all("withheld", of.spark.sql(ROWS.format(number)), of.commit())
        return Result()

    def read(of: Job) -> Result:
        return Result(rows_out=of.warehouse.read("withheld").count())

    assert job.run("recommend", settings(), DAY, write, writes=False) == 0
    damage(local_path(settings().warehouse) / "withheld" / "_delta_log" / f"{version:020}.json")
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    assert job.run("recommend", settings(), DAY, read, writes=False) == 3
    error = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert error.startswith("table withheld cannot be read: ") and "restore the table's folder from a backup" in error
    assert "\n" not in error


def test_a_table_that_lost_its_only_commit_is_not_taken_for_a_missing_one(job: Callable[..., Job]) -> None:
    of = job()
    of.warehouse.ensure("withheld")
    (local_path(of.warehouse.path("withheld")) / "_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(DataError, match="table withheld cannot be read: 00000000000000000000.json is missing"):
        Warehouse(of.spark, of.warehouse.root).exists("withheld")
