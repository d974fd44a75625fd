"""What a job on one machine listens on: Spark's own ports, on the loopback address alone. (Ranks: test_killed_ranks.)"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import psutil
from faults.runs import LOOPBACK, listening

from metarec_spark.warehouse.storage import file_uri

ROOT = Path(__file__).parent.parent


def test_a_submitted_local_job_listens_on_loopback_alone(tmp_path: Path):
    config = tmp_path / "metarec.toml"
    config.write_text(f"warehouse = {json.dumps(file_uri(tmp_path / 'tables'))}\n", encoding="utf-8")
    command = [ROOT / "deploy" / "submit.sh", "evaluate_model", "--config", config, "--ds", "2024-01-10"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        found: set[str] = set()
        while running.poll() is None:
            found |= listening([running.pid, *(process.pid for process in psutil.Process(running.pid).children(recursive=True))])
            time.sleep(0.1)
    assert running.returncode == 3, (tmp_path / "log").read_text()
    assert set() < found <= LOOPBACK
