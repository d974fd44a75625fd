"""Jobs are killed and run again: tables are those of undisturbed runs.

Most die in this process, where state becomes visible; kill -9 ends a night in training, a recommend, and the maintain that
waited for it. ``drill.py`` kills all jobs, often.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable
from faults.company import ADAPT, DAY, NEXT, NEXT_NIGHT, NIGHT, Company, Work
from faults.contents import contents, differences, leftovers, models, spoil
from faults.failpoints import killed
from faults.runs import Point
from pyspark.sql import SparkSession

from metarec_spark.cli import main

FEEDBACK = Work(("feedback",), NEXT, "next night", "told")
MAINTAIN = Work(("maintain",), NEXT, "told", "told")
RECOMMEND = Work(("recommend",), NEXT, "told", "told")
EVERYONE = ("--set", "recommend.mode=full")
ADAPTING = Work(ADAPT, DAY, "night", "adapted")


def again(spark: SparkSession, company: Company, work: Work, *more: str) -> int:
    """Run a job in this process; its exit code."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # another process has written, and folders were put back
    with pytest.raises(SystemExit) as ended:
        main(company.arguments(work, *more))
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


KILL_9 = Point("_training checkpoint.safetensors #2", 0.0)
"""Of a process, in the middle of a training: the next run goes on from the checkpoint."""
REFIT = "before refit"
"""Between the twin, which is whole, and the refit: the next run goes on with the snapshot of all events."""


def die(spark: SparkSession, company: Company, work: Work, point: str | Point) -> None:
    """Run a job until a point, where it is killed, in this process or as one of its own; then spoil what nothing names."""
    if isinstance(point, str):
        with killed(point, company.tables):
            again(spark, company, work)
    else:
        run = company.start(work)
        assert run.until(point), run.end()[2]
        assert run.kill() == []
    models(company.tables)  # every one that is named is whole
    spoil(leftovers(company.tables))


@pytest.mark.parametrize(
    ("work", "points"),
    [
        (NIGHT, ["commit events #2", KILL_9, REFIT, "before _models", "_models manifest.json #1"]),
        (NEXT_NIGHT, ["commit user_sequences #1", "commit recommendations #1"]),
        (ADAPTING, ["_training manifest.json #1", "commit transfer_runs #2"]),
        (FEEDBACK, ["commit feedback #1"]),
    ],
    ids=str,
)
def test_a_killed_job_that_is_run_again_ends_in_the_tables_of_an_undisturbed_one(
    spark: SparkSession, company: Company, work: Work, points: list[str | Point]
) -> None:
    put_back(spark, company, work.after)
    expected = contents(company.tables)
    put_back(spark, company, work.before)
    for point in points:
        die(spark, company, work, point)
    assert again(spark, company, work) == 0
    assert differences(expected, contents(company.tables)) == []


def test_maintain_waits_for_recommend_and_when_both_were_killed_both_again_change_nothing(
    spark: SparkSession, company: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    put_back(spark, company, FEEDBACK.after)
    expected = contents(company.tables)
    first = company.start(RECOMMEND, *EVERYONE)
    assert first.until(Point("_new_items #1", 0.0)), first.end()[2]
    first.pause()
    second = company.start(MAINTAIN)
    assert second.until_logged(f"waiting for recommend of {NEXT} (process "), second.end()[2]
    assert first.kill() == []
    spoil([file for file in leftovers(company.tables) if "_new_items" in file.parts])
    assert second.until(Point("commit user_sequences #1", 0.0)), second.end()[2]
    assert second.kill() == []
    spoil(leftovers(company.tables))
    capsys.readouterr()
    assert again(spark, company, RECOMMEND, *EVERYONE) == 0
    read = json.loads(capsys.readouterr().out.splitlines()[-1])["tables_read"]
    assert again(spark, company, MAINTAIN) == 0
    assert differences(expected, contents(company.tables)) == []
    for name, version in read.items():  # maintain takes none of them
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
