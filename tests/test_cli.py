"""The command line: exit codes, one result line on standard output, and errors that say what to do."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import DAY
from pyspark.sql import SparkSession

from metarec_spark import __version__, job
from metarec_spark.cli import main
from metarec_spark.config import Config
from metarec_spark.errors import ConfigError, DataError, MetarecError, ModelRejected, TrainingError
from metarec_spark.job import Job, Result, RowDetails
from metarec_spark.runtime.logs import context
from metarec_spark.warehouse.tables import Warehouse


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Commands set logging up for a process of their own; put it back."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err

    return run


def result(out: str) -> dict:
    """The result line, which is all there is on standard output."""
    (line,) = out.splitlines()
    return json.loads(line)


def written(folder: Path, text: str = "") -> str:
    file = folder / "metarec.toml"
    file.write_text(f'warehouse = "{folder}/warehouse"\n{text}')
    return str(file)


@pytest.mark.parametrize(
    "name",
    [
        "extract",
        "train",
        "evaluate",
        "adapt",
        "recommend",
        "nightly",
        "feedback",
        "maintain",
        "promote",
        "rollback",
        "forget",
        "accept",
    ],
)
def test_a_command_without_configuration_says_that_it_needs_one(command: Callable, name: str):
    code, out, err = command(name, "--ds", "2024-01-10")
    assert (code, out) == (2, "")
    assert "Missing option" in err and "--config" in err


def test_a_command_without_a_day_says_that_it_needs_one(command: Callable, tmp_path: Path):
    code, out, err = command("extract", "--config", written(tmp_path))
    assert (code, out) == (2, "")
    assert "Missing option" in err and "--ds" in err


@pytest.mark.parametrize("day", ["2024-02-30", "10.01.2024", "yesterday"])
def test_a_day_that_is_none_is_refused(command: Callable, tmp_path: Path, day: str):
    code, out, err = command("extract", "--config", written(tmp_path), "--ds", day)
    assert (code, out) == (2, "")
    assert day in err and "%Y-%m-%d" in err


def test_a_missing_file_ends_with_code_2_and_a_result(command: Callable, tmp_path: Path):
    code, out, err = command("train", "--config", str(tmp_path / "none.toml"), "--ds", "2024-01-10")
    assert code == 2
    assert result(out) | {"error": ""} == {
        **{
            "job": "train",
            "ds": "2024-01-10",
            "seconds": 0.0,
            "rows_in": 0,
            "rows_out": 0,
            "tables_read": {},
            "tables_written": {},
        },
        **{"model_id": None, "exit_code": 2, "error": ""},
    }
    assert "no such file" in result(out)["error"] and "no such file" in err


def test_a_wrong_override_is_told_before_any_work(command: Callable, tmp_path: Path):
    code, out, err = command("train", "--config", written(tmp_path), "--ds", "2024-01-10", "--set", "train.sede=1")
    assert (code, result(out)["exit_code"]) == (2, 2)
    assert "did you mean 'seed'?" in err
    assert not (tmp_path / "warehouse").exists()


def test_an_unknown_key_ends_a_process_with_code_2(tmp_path: Path):
    arguments = ["extract", "--config", written(tmp_path, "[featurs]\n"), "--ds", "2024-01-10"]
    run = subprocess.run(
        [sys.executable, "-c", "from metarec_spark.cli import main; main()", *arguments], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert result(run.stdout)["exit_code"] == 2
    assert result(run.stdout)["error"] in run.stderr
    assert "unknown key 'featurs', did you mean 'features'?" in run.stderr
    assert "ERROR extract 2024-01-10:" in run.stderr and "Traceback" not in run.stderr


def test_version_prints_the_version(command: Callable):
    assert command("version") == (0, f"{__version__}\n", "")


def test_an_unknown_command_ends_with_code_2(command: Callable):
    code, out, err = command("extrakt")
    assert (code, out) == (2, "") and "extrakt" in err


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (DataError, 3), (ModelRejected, 4), (TrainingError, 1), (MetarecError, 1)],
)
def test_a_failure_that_is_explained_ends_with_its_code(
    settings: Callable[..., Config],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    error: type[MetarecError],
    code: int,
):
    def fail(_: Job) -> Result:
        raise error("the shop is closed; come back tomorrow")

    assert job.run("extract", settings(), DAY, fail) == code
    said = result(capsys.readouterr().out)
    assert (said["exit_code"], said["error"]) == (code, "the shop is closed; come back tomorrow")
    assert caplog.messages == ["the shop is closed; come back tomorrow"]
    assert caplog.records[0].exc_info is None


@pytest.mark.usefixtures("spark")
def test_an_unexpected_failure_ends_with_code_1_and_its_traceback_in_the_log(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    assert job.run("extract", settings(), DAY, lambda _: Result(rows_in=1 // 0)) == 1
    said = result(capsys.readouterr().out)
    assert said["exit_code"] == 1 and said["error"].startswith("ZeroDivisionError: ")
    assert "extract of 2024-01-10 failed" in caplog.text and "run it again" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.usefixtures("spark")
def test_a_result_is_one_line_on_standard_output(settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]):
    def work(job: Job) -> Result:
        job.warehouse.ensure("items")
        job.warehouse.read("items")
        job.warehouse.merge_records("items", [], job.commit())
        return Result(rows_in=3, rows_out=2, model_id="m", details=RowDetails({"bot": 1}))

    assert job.run("extract", settings(), DAY, work) == 0
    said = result(capsys.readouterr().out)
    assert said.pop("seconds") > 0 and len(said.pop("run_id")) == 32
    assert said == {
        **{
            "job": "extract",
            "ds": "2024-01-10",
            "rows_in": 3,
            "rows_out": 2,
            "tables_read": {"items": 0},
            "tables_written": {"items": 1},
        },
        **{"model_id": "m", "exit_code": 0, "rows": {"bot": 1}},
    }


@pytest.mark.usefixtures("spark")
def test_a_warehouse_that_cannot_be_written_ends_with_code_2_before_any_work(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "file").write_text("in the way")
    done = []
    assert (
        job.run("extract", settings(warehouse=(tmp_path / "file" / "x").as_uri()), DAY, lambda _: done.append(1) or Result()) == 2
    )
    assert "cannot be written" in result(capsys.readouterr().out)["error"]
    assert not done


def test_every_run_is_on_record_with_its_failure(
    settings: Callable[..., Config], spark: SparkSession, capsys: pytest.CaptureFixture[str]
):
    def work(job: Job) -> Result:
        job.warehouse.ensure("items")
        job.warehouse.read("items")
        return Result(rows_in=3, rows_out=2, model_id="m")

    def fail(_: Job) -> Result:
        raise DataError("shut\n" + "x" * 600)

    codes = [job.run("extract", settings(), DAY, of) for of in (work, fail, lambda _: Result(exit_code=4, reason="weak"))]
    said = [json.loads(line)["run_id"] for line in capsys.readouterr().out.splitlines()]
    rows = Warehouse(spark, settings().warehouse).read("runs").orderBy("started").collect()
    assert [row.run_id for row in rows] == said and [row.exit_code for row in rows] == codes == [0, 3, 4]
    assert [row.error for row in rows] == [None, "shut", "weak"] and {(row.job, row.ds) for row in rows} == {("extract", DAY)}
    assert (rows[0].rows_in, rows[0].rows_out, rows[0].model_id, rows[0].seconds >= 0) == (3, 2, "m", True)
    assert json.loads(rows[0].versions_read) == {"items": 0} and json.loads(rows[1].versions_read) == {}
    assert json.loads(rows[0].versions_written) == {}


@pytest.mark.usefixtures("spark")
def test_a_warehouse_that_takes_no_record_hides_no_error(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    def fail(job: Job) -> Result:
        (tmp_path / "warehouse" / "runs").write_text("in the way")
        raise DataError("the shop is closed")

    assert job.run("extract", settings(), DAY, fail) == 3
    assert result(capsys.readouterr().out)["error"] == "the shop is closed"
    assert caplog.messages[0] == "the shop is closed" and caplog.messages[1].startswith("table runs lacks this run: ")


def test_looking_at_the_tables_is_no_run(command: Callable, spark: SparkSession, tmp_path: Path):
    assert command("tables", "--config", written(tmp_path))[0] == 0
    assert not (tmp_path / "warehouse" / "runs").exists()


def test_a_log_for_machines_is_json_from_its_first_line(command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    missing = "train", "--config", str(tmp_path / "none.toml"), "--ds", "2024-01-10"
    code, _, err = command("--log-format", "json", *missing)
    assert code == 2 and json.loads(err)["job"] == "train" and "no such file" in json.loads(err)["message"]
    monkeypatch.setenv("METAREC_LOG_FORMAT", "json")
    assert json.loads(command(*missing)[2])["level"] == "ERROR"
    monkeypatch.setenv("METAREC_LOG_FORMAT", "xml")
    code, out, err = command(*missing)
    assert (code, out) == (2, "") and "xml" in err


@pytest.mark.usefixtures("spark")
def test_forget_says_who_is_meant_by_hash_alone(command: Callable, tmp_path: Path):
    named = ("forget", "--config", written(tmp_path), "--user", "ada lovelace", "--user", "../x")
    code, out, err = command(*named)
    assert code == 3 and "2 of 2 people are in no table: --user 1, --user 2" in result(out)["error"]
    assert "ada lovelace" not in out + err
    code, out, err = command(*named, "--missing-ok")
    assert code == 0 and (result(out)["rows_in"], result(out)["rows_out"]) == (2, 0)
    assert "ada lovelace" not in out + err and err.count("no row in any table") == 2
    code, out, err = command("forget", "--config", written(tmp_path))
    assert code == 2 and "nobody is named" in result(out)["error"]


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "1994-12-31", "9999-12-31"])
def test_a_day_that_no_log_can_have_is_refused_with_the_range(command: Callable, tmp_path: Path, day: str):
    code, out, _ = command("extract", "--config", written(tmp_path), "--ds", day)
    today = datetime.now(UTC).date()
    assert code == 2 and result(out)["error"] == f"--ds {day}: expected a day from 1995-01-01 to today, {today} (UTC)"
    tomorrow = (today + timedelta(days=1)).isoformat()
    assert command("extract", "--config", written(tmp_path), "--ds", tomorrow)[0] == 2
    assert not (tmp_path / "warehouse").exists()


@pytest.mark.usefixtures("spark")
def test_a_secret_of_the_configuration_stands_in_no_error(
    settings: Callable[..., Config], spark: SparkSession, capsys: pytest.CaptureFixture[str]
):
    def fail(_: Job) -> Result:
        raise ValueError("key hunter2-key was refused")

    secret = settings(spark={"conf": {"spark.hadoop.fs.s3a.secret.key": "hunter2-key", "spark.driver.memory": "2g"}})
    try:
        assert job.run("extract", secret, DAY, fail) == 1
    finally:
        context.secrets.clear()
    assert "hunter2" not in (out := capsys.readouterr().out) and "key *** was refused" in result(out)["error"]
    (row,) = Warehouse(spark, secret.warehouse).read("runs").collect()
    assert row.error == "ValueError: key *** was refused"
