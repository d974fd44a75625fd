"""The four jobs through deploy/*.sh on a standalone cluster of two workers: slow, and real from end to end."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

ROOT = Path(__file__).parent.parent
DS = "2024-01-10"
DOMAINS = ("shop", "video")
USERS, EVENTS, ITEMS, TOP_N = 40, 4, 20, 5

# Small executors on which at most one task runs at a time, and few partitions: the tables have some hundred rows.
SUBMIT = {
    "spark.executor.memory": "700m",
    "spark.executor.cores": "1",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
}

CONFIG = """
warehouse = "{warehouse}"
[[sources]]
path = "{log}"
[split]
protocol = "leave_one_out"
[model]
dim = 16
[train]
processes = 2
launcher = "spark"
epochs = 8
learning_rate = 0.01
batch_tokens = 256
[recommend]
top_n = {top_n}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A configuration beside a log in which the next item follows from the last one: popularity cannot win."""
    start = datetime(2024, 1, 9, 8)
    rows = [
        {
            "user_id": f"u{user:02}",
            "domain": domain,
            "item_id": f"{domain}-{(user + step) % ITEMS:02}",
            "event_type": "view",
            "event_time": start + timedelta(minutes=10 * user, seconds=40 * step + place),
        }
        for user in range(USERS)
        for place, domain in enumerate(DOMAINS)
        for step in range(EVENTS)
    ]
    log = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(rows), log)
    file = tmp_path / "cluster.toml"
    file.write_text(CONFIG.format(warehouse=(tmp_path / "tables").as_uri(), log=log.as_uri(), top_n=TOP_N))
    return file


@pytest.fixture
def zip_only_python(tmp_path: Path) -> Path:
    """A Python that has the installed packages, but reads no .pth file: metarec_spark itself can come from the zip alone."""
    python = tmp_path / "python"
    packages = sysconfig.get_path("purelib")
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH="$PYTHONPATH:{packages}"\nexec "{ROOT}/.venv/bin/python" -S "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def environment(tmp_path: Path, zip_only_python: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_", "PYTHONPATH"))}
    master, master_ui, worker_ui = free_ports()
    return plain | {
        "MASTER_PORT": str(master),
        "MASTER_UI_PORT": str(master_ui),
        "WORKER_UI_PORT": str(worker_ui),
        "STANDALONE_FOLDER": str(tmp_path / "standalone"),
        "SPARK_MASTER": f"spark://127.0.0.1:{master}",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SUBMIT_ARGS": " ".join(f"--conf {name}={value}" for name, value in SUBMIT.items()),
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "PYSPARK_PYTHON": str(zip_only_python),
    }


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[list[int]]:
    """The process ids of a running master and two workers."""
    folder = Path(environment["STANDALONE_FOLDER"])
    subprocess.run([ROOT / "deploy/standalone.sh", "start"], env=environment, check=True, timeout=120)
    try:
        yield [int(file.read_text()) for file in folder.glob("*.pid")]
    finally:
        subprocess.run([ROOT / "deploy/standalone.sh", "stop"], env=environment, check=True, timeout=60)


def free_ports() -> tuple[int, int, int]:
    """Three ports of the loopback address that nothing listens on; the one after the last is free as well."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            found = []
            for _ in range(3):
                found.append(stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])
            stack.enter_context(socket.create_server(("127.0.0.1", found[-1] + 1)))
            return found[0], found[1], found[2]


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name ``folder`` or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            said = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in said or str(folder) in os.readlink(process / "cwd"):
                found.append(said)
    return found


def test_slow_jobs_run_on_a_standalone_cluster_from_the_zip(
    tmp_path: Path, settings: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    subprocess.run(["make", "dist"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    command = [ROOT / "deploy/extract.sh", "--config", settings, "--ds", DS]
    shown = subprocess.run(command, env=environment | {"DRY_RUN": "1"}, cwd=tmp_path, capture_output=True, text=True, check=True)
    words = shlex.split(shown.stdout)
    assert words[words.index("--py-files") + 1] == str(ROOT / "dist/metarec_spark.zip")
    assert words[words.index("--master") + 1] == environment["SPARK_MASTER"]

    running = request.getfixturevalue("cluster")
    assert len(running) == 3
    reports = {}
    for job in ("extract", "train", "evaluate", "recommend"):
        command = [ROOT / f"deploy/{job}.sh", "--config", settings, "--ds", DS]
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400)
        assert ended.returncode == 0, f"{job} ended with {ended.returncode}:\n{ended.stdout[-2000:]}\n{ended.stderr[-6000:]}"
        reports[job] = json.loads(ended.stdout.splitlines()[-1])
        assert (reports[job]["job"], reports[job]["ds"], reports[job]["exit_code"]) == (job, DS, 0)

    assert reports["extract"]["rows_in"] == USERS * EVENTS * len(DOMAINS)
    assert reports["train"]["rows_in"] == USERS
    assert reports["evaluate"]["status"] == "approved"
    lists = DeltaTable(tmp_path / "tables" / "recommendations").to_pandas()
    assert len(lists) == reports["recommend"]["rows_out"] == USERS * len(DOMAINS)
    assert set(lists["model_id"]) == {reports["train"]["model_id"]}
    for row in lists.itertuples():
        items = {item["item_id"] for item in row.items}
        assert len(items) == TOP_N
        assert all(item.startswith(row.domain) for item in items)
        assert not items & {f"{row.domain}-{(int(row.user_id[1:]) + step) % ITEMS:02}" for step in range(EVENTS)}

    subprocess.run([ROOT / "deploy/standalone.sh", "stop"], env=environment, check=True, timeout=60)
    assert [pid for pid in running if Path(f"/proc/{pid}").exists()] == []
    assert processes_of(tmp_path) == []
