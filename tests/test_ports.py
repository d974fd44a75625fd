"""What a run on one machine listens on: Spark's own ports, on the loopback address alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
from faults.test_killed_ranks import LAUNCH
from training.factories import settings, spec

from metarec_spark.warehouse.storage import file_uri

ROOT = Path(__file__).parent.parent
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(process: psutil.Process) -> set[str]:
    """Addresses on which a process and all that it started listen."""
    found = set()
    for one in [process, *process.children(recursive=True)]:
        try:
            found |= {at.laddr.ip for at in one.net_connections("inet") if at.status == psutil.CONN_LISTEN}
        except psutil.NoSuchProcess:
            continue
    return found


def listened(running: subprocess.Popen) -> set[str]:
    """The same, until the process ends."""
    found: set[str] = set()
    while running.poll() is None:
        found |= listening(psutil.Process(running.pid))
        time.sleep(0.1)
    return found


def test_a_submitted_local_job_listens_on_loopback_alone(tmp_path: Path):
    config = tmp_path / "metarec.toml"
    config.write_text(f"warehouse = {json.dumps(file_uri(tmp_path / 'tables'))}\n", encoding="utf-8")
    command = [ROOT / "deploy" / "submit.sh", "evaluate_model", "--config", config, "--ds", "2024-01-10"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        found = listened(running)
    assert running.returncode == 3, (tmp_path / "log").read_text()
    assert set() < found <= LOOPBACK


def test_ranks_on_one_machine_listen_on_loopback_alone(tmp_path: Path):
    file = spec(tmp_path, settings(processes=2, epochs=1), files=4)
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen([sys.executable, "-c", LAUNCH, str(file)], stdout=log, stderr=log, cwd=ROOT)
        found = listened(running)
    assert running.returncode == 0, (tmp_path / "log").read_text()
    assert set() < found <= LOOPBACK
