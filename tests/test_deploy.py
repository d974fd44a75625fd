"""What lies in deploy/ and jobs/: configurations load, scripts parse, each job has its script and its own spark-submit line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarec_spark import config
from metarec_spark.cli import app
from metarec_spark.runtime.isolation import ISOLATED
from metarec_spark.runtime.session import REQUIRED

ROOT = Path(__file__).parent.parent
JOBS = sorted((ROOT / "jobs").glob("*.py"))
SCRIPTS = sorted((ROOT / "deploy").glob("*.sh"))
WITHOUT_JOB = {"setup.sh", "submit.sh", "standalone.sh", "cron.sh"}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A copy of deploy/ and jobs/ in which set-up and ``make dist`` are done."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "metarec_spark.zip").touch()
    for name in ("deploy", "jobs", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_laptop_configuration_trains_here() -> None:
    settings = config.load(ROOT / "deploy" / "dev.toml")
    assert (settings.spark.master, settings.train.launcher) == ("local[*]", "local")


def test_the_cluster_configuration_trains_on_executors() -> None:
    settings = config.load(ROOT / "deploy" / "cluster.toml")
    assert (settings.train.processes, settings.train.launcher) == (4, "spark")


def test_spark_defaults_hold_what_every_session_requires() -> None:
    text = (ROOT / "deploy" / "spark-defaults.conf").read_text()
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    found = {name: "".join(value).strip() for name, *value in lines}
    assert found.items() >= (REQUIRED | ISOLATED).items()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_can_be_executed(script: Path) -> None:
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_a_jobs_docstring_names_its_own_file_and_command(job: Path) -> None:
    text = job.read_text()
    command = re.search(r'main\(\["(\w+)"', text).group(1)
    assert text.startswith(f'"""metarec {command}: SPARK_MASTER=spark://HOST:7077 deploy/submit.sh {job.stem} --config')
    assert command in {registered.callback.__name__ for registered in app.registered_commands}
    script = (ROOT / "deploy" / f"{command}.sh").read_text()
    assert f'submit.sh" {job.stem} ' in script


def test_there_is_no_script_without_a_job() -> None:
    assert len([script for script in SCRIPTS if script.name not in WITHOUT_JOB]) == len(JOBS)


def submit(root: Path, job: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    command = [root / "deploy" / "submit.sh", job, *arguments]
    return subprocess.run(command, env=plain | environment, cwd=root, capture_output=True, text=True)


def test_the_submitted_command_is_local_by_default_and_passes_arguments_as_they_are(built: Path) -> None:
    shown = submit(built, "extract_features", "--set", "a.b=two words", DRY_RUN="1")
    assert shown.returncode == 0, shown.stderr
    words = shlex.split(shown.stdout)
    assert words[words.index("--master") + 1] == "local[*]"
    assert words[words.index("--py-files") + 1] == str(built / "dist" / "metarec_spark.zip")
    assert words[-3:] == [str(built / "jobs" / "extract_features.py"), "--set", "a.b=two words"]


def test_master_and_more_options_come_from_the_environment(built: Path) -> None:
    options = {"SPARK_MASTER": "spark://head:7077", "SPARK_SUBMIT_ARGS": "--conf spark.executor.cores=1"}
    words = shlex.split(submit(built, "nightly", DRY_RUN="1", **options).stdout)
    assert words[words.index("--master") + 1] == "spark://head:7077"
    assert words[words.index("--conf") + 1] == "spark.executor.cores=1"


def test_an_unknown_job_is_a_usage_error_that_lists_the_jobs(built: Path) -> None:
    ended = submit(built, "extract")
    assert ended.returncode == 2
    assert all(job.stem in ended.stderr for job in JOBS)


def test_a_missing_zip_is_an_error_that_says_how_to_build_it(built: Path) -> None:
    (built / "dist" / "metarec_spark.zip").unlink()
    ended = submit(built, "extract_features")
    assert ended.returncode == 2
    assert "make dist" in ended.stderr


def cron(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """deploy/cron.sh with a command ``night`` that is this script."""
    for name in ("deploy", "logs"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "cron.sh", folder / "deploy")
    (folder / "deploy" / "night.sh").write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / "deploy" / "night.sh").chmod(0o755)
    environment = os.environ | {"CONFIG": "c.toml", "LOGS": str(folder / "logs"), "DS": "2024-01-10"}
    return subprocess.run([folder / "deploy" / "cron.sh", "night"], env=environment, capture_output=True, text=True)


def test_a_scheduled_command_that_went_well_says_nothing_and_is_on_record(tmp_path: Path) -> None:
    ended = cron(tmp_path, 'echo "{\\"args\\": \\"$*\\"}"; echo done >&2')
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert (tmp_path / "logs" / "night.jsonl").read_text() == '{"args": "--config c.toml --ds 2024-01-10"}\n'
    assert (tmp_path / "logs" / "night.log").read_text() == "done\n"


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [("echo '{\"exit_code\": 5}'; exit 5", 5, '{"exit_code": 5}'), ("kill -9 $$", 137, "It left no result")],
)
def test_a_scheduled_command_that_failed_mails_its_own_result_and_no_earlier_one(
    tmp_path: Path, script: str, code: int, said: str
) -> None:
    cron(tmp_path, 'echo \'{"exit_code": 0, "yesterday": true}\'')
    ended = cron(tmp_path, f"echo why >&2; {script}")
    assert ended.returncode == code and f"metarec night of 2024-01-10 ended with exit code {code}" in ended.stdout
    assert said in ended.stdout and "why" in ended.stdout and "yesterday" not in ended.stdout


def test_the_example_for_cron_takes_no_lock_of_its_own() -> None:
    lines = (ROOT / "deploy" / "crontab.example").read_text().splitlines()
    commands = [line.split(maxsplit=5)[5] for line in lines if line[:1].isdigit()]
    assert commands == [f"$METAREC/deploy/cron.sh {name}" for name in ("nightly", "feedback", "maintain")]


def test_a_signal_to_the_submitting_script_ends_the_jobs_python_in_order(built: Path, tmp_path: Path) -> None:
    """With a spark-submit that starts Python as Spark does, and ends with its code."""
    home, mark = tmp_path / "spark", tmp_path / "mark"
    (home / "bin").mkdir(parents=True)
    python = "import signal, sys, time, pathlib; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
    python += f"pathlib.Path({str(mark)!r}).touch(); time.sleep(60)"
    (home / "bin" / "spark-submit").write_text(
        f"#!/usr/bin/env bash\n{shlex.quote(sys.executable)} -c {shlex.quote(python)} &\nwait $!\n"
    )
    (home / "bin" / "spark-submit").chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    command = [built / "deploy" / "submit.sh", "nightly"]
    with subprocess.Popen(command, env=plain | {"SPARK_HOME": str(home), "TMPDIR": str(tmp_path)}, cwd=built) as process:
        while not mark.exists() and process.poll() is None:
            time.sleep(0.1)
        process.terminate()
        assert process.wait(30) == 143
    assert (tmp_path / f"metarec-{os.getuid()}").stat().st_mode & 0o777 == 0o700
