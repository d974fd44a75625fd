"""Java's archive of classes: every session starts from it, and nothing fails without it."""

from __future__ import annotations

import os
from pathlib import Path

import pyspark
import pytest
from pyspark import SparkContext

from metarec_spark.runtime import class_archive
from metarec_spark.runtime.jars import ensure_jars


def test_the_session_of_the_tests_has_started_from_the_archive_that_setup_wrote(spark):
    java_home = Path(os.environ["JAVA_HOME"])
    archive = class_archive.archive_path(java_home, ensure_jars(java_home))
    assert archive.exists(), "metarec setup writes it"
    assert str(archive) in Path(f"/proc/{SparkContext._gateway.proc.pid}/maps").read_text()


def test_another_java_and_other_or_newer_jars_have_another_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    java, one, other, of_spark = (tmp_path / name for name in ("bin/java", "a.jar", "b.jar", "pyspark/jars/spark-core.jar"))
    for file in (java, one, other, of_spark):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(pyspark, "__path__", [str(tmp_path / "pyspark")])
    first = class_archive.archive_path(tmp_path, [one])
    assert class_archive.archive_path(tmp_path, [one]) == first != class_archive.archive_path(tmp_path, [other])
    assert class_archive.reading(first) == ""
    for file in (java, one, of_spark):
        before = class_archive.archive_path(tmp_path, [one])
        os.utime(file, (1, 1))
        assert class_archive.archive_path(tmp_path, [one]) != before


def written(archive: str) -> None:
    Path(archive).write_text("classes")


def fails(archive: str) -> None:
    Path(archive).write_text("half")
    raise SystemExit("no room")


@pytest.mark.parametrize(("work", "why", "left"), [("written", None, ["a.jsa"]), ("fails", "exit code 1: no room", [])])
def test_an_archive_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, why: str | None, left: list
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    said = class_archive.ensure_archive(tmp_path / "a.jsa", f"{Path(__file__).stem}:{work}")
    assert (said and said.strip()) == why and [path.name for path in tmp_path.iterdir()] == left
