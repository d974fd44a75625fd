"""The disk is full, or nobody may write to it any more, while a job runs: one line says so, and the day again is whole."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.company import DAY, Company, Work
from faults.contents import contents, differences
from faults.failpoints import at
from faults.runs import Point
from pyspark.sql import SparkSession

from metarec_spark.cli import main

EXTRACT = Work(("extract",), DAY, "nothing", "extracted")
_SIZE = 64 * 2**20
_DROP_BOUND, _MAY_WRITE_ANYTHING = 24, 1
"""Of prctl, PR_CAPBSET_DROP; and CAP_DAC_OVERRIDE, by which root writes where nobody may."""


@pytest.fixture(scope="module")
def expected(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    undisturbed = Company(tmp_path_factory.mktemp("undisturbed"))
    assert again(undisturbed) == 0
    return contents(undisturbed.tables)


def again(company: Company) -> int:
    with pytest.raises(SystemExit) as ended:
        main(company.arguments(EXTRACT))
    return int(ended.value.code or 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Company]:
    """A company whose warehouse is a small file system of its own."""
    company = Company(tmp_path / "company")
    company.tables.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(company.tables)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone, and not in every container")
    yield company
    subprocess.run(["umount", "--lazy", str(company.tables)], check=True)


def test_a_full_disk(small_disk: Company, expected: dict[str, list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    ballast = small_disk.tables / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))

    with at("commit events #2", small_disk.tables, fill):
        assert again(small_disk) == 1
    out, log = capfd.readouterr()
    line = json.loads(out.splitlines()[-1])
    assert line["exit_code"] == 1
    assert "No space left on device" in line["error"]
    assert "the tables are as their last finished commits left them: run it again" in log
    ballast.unlink()
    assert again(small_disk) == 0
    assert differences(expected, contents(small_disk.tables)) == []


def test_a_warehouse_that_becomes_unwritable(tmp_path: Path, expected: dict[str, list[str]]) -> None:
    company = Company(tmp_path / "company")
    run = company.start(EXTRACT, preexec_fn=lambda: ctypes.CDLL(None).prctl(_DROP_BOUND, _MAY_WRITE_ANYTHING, 0, 0, 0))
    assert run.until(Point("commit items #1", 0.0))
    _every_folder(company.tables, lambda folder: folder.chmod(0o555))
    code, line, _ = run.end()
    _every_folder(company.tables, lambda folder: folder.chmod(0o755))
    assert code == 1
    assert "ermission denied" in line["error"]
    assert again(company) == 0
    assert differences(expected, contents(company.tables)) == []


def _every_folder(root: Path, change: Callable[[Path], None]) -> None:
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        change(folder)
