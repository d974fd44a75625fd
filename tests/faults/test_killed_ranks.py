"""Ranks are killed, or the process that started them: nothing hangs, nothing goes on, and training does where it stood."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from faults.runs import LAUNCH, LOOPBACK, Point, Run, listening
from training.factories import settings, spec

from metarec_spark.model import artifact

CHECKPOINT = Point("_training checkpoint.safetensors #2", 0.0)
SOON = 20.0
"""Seconds."""


def started(file: Path) -> Run:
    """Two ranks, by a process of their own."""
    return Run([sys.executable, "-c", LAUNCH, str(file)], file.parent.parent.parent, file.parent / "log")


def test_a_killed_rank_ends_the_run_soon_and_leaves_no_process(tmp_path: Path) -> None:
    file = spec(tmp_path / "_training" / "1", settings(processes=2, epochs=2000), files=4)
    run = started(file)
    assert run.until(CHECKPOINT), run.end()[2]
    for process in run.processes(HOROVOD_RANK="1"):
        os.kill(process, signal.SIGKILL)
    killed = time.monotonic()
    code, _, log = run.end()
    assert code == 1
    assert "TrainingError: horovod ended with 1; a rank ended without an error of its own: killed" in log
    assert run.rest() == []
    seconds = time.monotonic() - killed
    print(f"the run and all its processes ended {seconds:.1f} s after the kill")
    assert seconds < SOON
    assert not (file.parent / "model").exists()


def test_ranks_end_with_the_process_that_started_them_and_the_next_ones_go_on(tmp_path: Path) -> None:
    file = spec(tmp_path / "_training" / "1", settings(processes=2, epochs=60), files=4)
    run = started(file)
    assert run.until(CHECKPOINT), run.end()[2]
    assert len(run.processes(HOROVOD_RANK="1")) > 0
    killed = time.monotonic()
    assert run.kill(alone=True) == []
    assert time.monotonic() - killed < SOON
    assert not (file.parent / "model").exists(), "else it had ended already"
    again = started(file)
    addresses = listening(again.processes())
    while again.running():
        addresses |= listening(again.processes())
        time.sleep(0.1)
    assert set() < addresses <= LOOPBACK
    code, _, log = again.end()
    assert code == 0, log
    assert "resuming after epoch" in log
    assert len(artifact.load(file.parent / "model").manifest.metrics.history) == 60
