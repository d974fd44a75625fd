"""A job that is told to end, or whose JVM or process is killed: one line, its exit code, and a row in ``runs``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DAY, FAST
from deltalake import DeltaTable

from metarec_spark import config, job
from metarec_spark.job import Result
from metarec_spark.warehouse.storage import file_uri

TESTS = Path(__file__).parent.parent


def ended(folder: Path, number: int, *, java: bool = False) -> tuple[int, list[str], str]:
    """Start the job, send a signal to it or to its JVM while Spark works; exit code, lines of its output, and its log."""
    mark = folder / "mark"
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, "-m", "faults.interrupted", str(folder / "warehouse"), str(mark)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not mark.exists() and process.poll() is None:
            time.sleep(0.1)
        os.kill(int(mark.with_suffix(".java").read_text()) if java else process.pid, number)
        out, log = process.communicate(timeout=300)
    return process.returncode, out.splitlines(), log


def runs(folder: Path) -> list[dict]:
    return sorted(DeltaTable(folder / "warehouse" / "runs").to_pyarrow_table().to_pylist(), key=lambda row: row["started"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_job_in_order(tmp_path: Path, number: signal.Signals, code: int) -> None:
    returned, (line,), log = ended(tmp_path, number)
    result = json.loads(line)
    assert (returned, result["exit_code"], result["step"]) == (code, code, "extract")
    assert result["error"].startswith(f"stopped by {number.name}; ") and result["error"].endswith("run it again")
    assert "Traceback" not in log and log.count(" ERROR ") == 2, log
    (row,) = runs(tmp_path)
    assert (row["run_id"], row["exit_code"], row["step"], row["error"]) == (result["run_id"], code, "extract", result["error"])


def test_the_end_of_the_jvm_is_told_in_one_line(tmp_path: Path) -> None:
    returned, (line,), log = ended(tmp_path, signal.SIGKILL, java=True)
    result = json.loads(line)
    assert (returned, result["exit_code"]) == (1, 1)
    assert result["error"].startswith("the Java process of Spark was killed by SIGKILL; ")
    assert "spark.driver.memory" in result["error"]
    assert "Traceback" not in log and log.count(" ERROR ") == 2, log
    (row,) = runs(tmp_path)
    assert (row["run_id"], row["exit_code"]) == (result["run_id"], 1)


@pytest.mark.usefixtures("spark")
def test_the_next_run_enters_a_run_that_was_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    returned, lines, _ = ended(tmp_path, signal.SIGKILL)
    assert (returned, lines) == (-9, [])
    settings = config.parse({"warehouse": file_uri(tmp_path / "warehouse"), "spark": {"conf": FAST}})
    assert job.run("extract", settings, DAY, lambda _: Result()) == 0
    killed, after = runs(tmp_path)
    assert (killed["job"], killed["exit_code"], after["job"], after["exit_code"]) == ("nightly", 137, "extract", 0)
    assert killed["error"].startswith("ended without a result: it was killed")
    assert any(message.startswith("an earlier run (nightly of 2024-01-10") for message in caplog.messages)
    assert not list((tmp_path / "warehouse" / "_runs").iterdir())
