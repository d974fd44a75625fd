"""Jobs are killed by kill -9 and run again, in this process: tables are those of undisturbed runs. ``drill.py`` does it often."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable
from faults.company import ADAPT, DAY, NEXT, NEXT_NIGHT, NIGHT, Company, Work
from faults.contents import contents, differences, leftovers, models, spoil
from faults.runs import Point
from pyspark.sql import SparkSession

from metarec_spark.cli import main

FEEDBACK = Work(("feedback",), NEXT, "next night", "told")
MAINTAIN = Work(("maintain",), NEXT, "told", "told")
ADAPTING = Work(ADAPT, DAY, "night", "adapted")


def again(spark: SparkSession, company: Company, work: Work) -> int:
    """Run a job in this process; its exit code."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # another process has written, and folders were put back
    with pytest.raises(SystemExit) as ended:
        main(company.arguments(work))
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(tmp_path_factory.mktemp("company"))


def put_back(spark: SparkSession, company: Company, state: str) -> None:
    """Make the warehouse what undisturbed jobs end in."""
    if not company.keeps(state):
        (work,) = (work for work in (NIGHT, ADAPTING, NEXT_NIGHT, FEEDBACK) if work.after == state)
        put_back(spark, company, work.before)
        assert again(spark, company, work) == 0
        company.keep(state)
    company.put_back(state)


def at(*steps: str) -> list[Point]:
    return [Point(step, 0.0) for step in steps]


@pytest.mark.parametrize(
    ("work", "points"),
    [
        (NIGHT, at("commit events #2", "_training checkpoint.safetensors #2", "_models manifest.json #1")),
        (NEXT_NIGHT, at("commit user_sequences #1", "_newcomers #1")),
        (ADAPTING, at("_training manifest.json #2")),
        (FEEDBACK, at("commit feedback #1")),
        (MAINTAIN, at("commit user_sequences #1")),
    ],
    ids=str,
)
def test_a_killed_job_that_is_run_again_ends_in_the_tables_of_an_undisturbed_one(
    spark: SparkSession, company: Company, work: Work, points: list[Point]
) -> None:
    put_back(spark, company, work.after)
    expected = contents(company.tables)
    put_back(spark, company, work.before)
    for point in points:
        run = company.start(work)
        assert run.until(point), run.end()[2]
        assert run.kill() == []
        models(company.tables)  # every one that is named is whole
        spoil(leftovers(company.tables))
    assert again(spark, company, work) == 0
    assert differences(expected, contents(company.tables)) == []


def test_maintain_waits_for_recommend_and_takes_nothing_from_it(spark: SparkSession, company: Company) -> None:
    put_back(spark, company, NEXT_NIGHT.after)
    expected = contents(company.tables)
    first = company.start(Work(("recommend",), NEXT, "", ""), "--set", "recommend.mode=full")
    assert first.until(Point("_newcomers #1", 0.0))
    second = company.start(MAINTAIN)
    (code, line, _), (after, _, log) = first.end(), second.end()
    assert (code, after) == (0, 0)
    assert f"waiting for recommend of {NEXT} (process " in log
    assert differences(expected, contents(company.tables)) == []
    for name, version in line["tables_read"].items():
        DeltaTable(company.tables / name, version=version).to_pandas()


def test_what_a_kill_leaves_is_found(tmp_path: Path) -> None:
    for name in ("_models/half/model.safetensors", "_training/1/snapshot/part", "_rules/1/file", "_training/1/.spec.json.draft"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    for name in ("_models/whole/model.safetensors", "_models/whole/manifest.json", "_training/1/spec.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("whole")
    found = leftovers(tmp_path)
    spoil(found)
    assert len(found) == 4
    assert {file.read_text() for file in tmp_path.rglob("*") if file.is_file() and file not in found} == {"whole"}
