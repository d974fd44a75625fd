"""Jobs through deploy/*.sh on a standalone cluster of two workers, with the warehouse in a folder and on HDFS: slow, and real
from end to end."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from faults.contents import contents, differences
from faults.runs import LAUNCH
from minidfs import hdfs
from training.factories import changed, spec
from training.factories import settings as train_settings

from metarec_spark.model import artifact
from metarec_spark.training.launch import launch
from metarec_spark.warehouse import storage

ROOT = Path(__file__).parent.parent
DS = "2024-01-10"
DOMAINS = ("shop", "video")
USERS, EVENTS, ITEMS, TOP_N, EPOCHS = 40, 4, 20, 5, 8
LONGEST = 900
"""Seconds that a job may take on a machine that does much else."""

# Small executors on which at most one task runs at a time, and few partitions: the tables have some hundred rows.
SUBMIT = {
    "spark.executor.memory": "700m",
    "spark.executor.cores": "1",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
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
epochs = {epochs}
learning_rate = 0.01
batch_tokens = 256
[recommend]
top_n = {top_n}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all that these tests write on this machine."""
    made = tmp_path_factory.mktemp("cluster")
    (made / "tmp").mkdir()
    return made


@pytest.fixture(scope="module")
def log(folder: Path) -> Path:
    """A log in which the next item follows from the last one: popularity cannot win."""
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
    file = folder / "log.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.fixture(scope="module")
def zip_only_python(folder: Path) -> Path:
    """A Python that has the installed packages, but reads no .pth file: metarec_spark itself can come from the zip alone."""
    python = folder / "python"
    packages = sysconfig.get_path("purelib")
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH="$PYTHONPATH:{packages}"\nexec "{ROOT}/.venv/bin/python" -S "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture(scope="module")
def environment(folder: Path, zip_only_python: Path) -> dict[str, str]:
    """Of jobs and cluster, for which the zip is made."""
    subprocess.run(["make", "dist"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_", "PYTHONPATH"))}
    master, master_ui, worker_ui = free_ports()
    return plain | {
        "MASTER_PORT": str(master),
        "MASTER_UI_PORT": str(master_ui),
        "WORKER_UI_PORT": str(worker_ui),
        "STANDALONE_FOLDER": str(folder / "standalone"),
        "SPARK_MASTER": f"spark://127.0.0.1:{master}",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SUBMIT_ARGS": " ".join(f"--conf {name}={value}" for name, value in SUBMIT.items()),
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "PYSPARK_PYTHON": str(zip_only_python),
        "TMPDIR": str(folder / "tmp"),
    }


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[list[int]]:
    """The process ids of a running master and two workers."""
    subprocess.run([ROOT / "deploy/standalone.sh", "start"], env=environment, check=True, timeout=120)
    try:
        yield [int(file.read_text()) for file in Path(environment["STANDALONE_FOLDER"]).glob("*.pid")]
    finally:
        subprocess.run([ROOT / "deploy/standalone.sh", "stop"], env=environment, check=True, timeout=60)


@dataclass(frozen=True)
class Company:
    """A warehouse, and the jobs on it."""

    folder: Path
    config: Path
    environment: dict[str, str]
    reports: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, warehouse: str, log: str, environment: dict[str, str]) -> Company:
        folder.mkdir()
        (folder / "cluster.toml").write_text(CONFIG.format(warehouse=warehouse, log=log, top_n=TOP_N, epochs=EPOCHS))
        return cls(folder, folder / "cluster.toml", environment)

    def start(self, job: str, *arguments: str, **environment: str) -> subprocess.Popen:
        command = [ROOT / f"deploy/{job}.sh", "--config", self.config, "--ds", DS, *arguments]
        with (self.folder / f"{job}.out").open("w") as out, (self.folder / f"{job}.log").open("w") as log:
            return subprocess.Popen(
                command, env=self.environment | environment, cwd=self.folder, stdout=out, stderr=log, start_new_session=True
            )

    def end(self, job: str, running: subprocess.Popen) -> dict:
        """Wait for a job's end; what it reports."""
        try:
            code = running.wait(LONGEST)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        out, log = (self.folder / f"{job}.out").read_text(), (self.folder / f"{job}.log").read_text()
        assert code == 0, f"{job} ended with {code}:\n{out[-2000:]}\n{log[-6000:]}"
        report = json.loads(out.splitlines()[-1])
        assert (report["job"], report["ds"], report["exit_code"]) == (job, DS, 0)
        return report


@pytest.fixture(scope="module")
def name_node(folder: Path) -> Iterator[str]:
    with hdfs(folder / "hdfs") as found:
        yield found


@pytest.fixture(scope="module")
def on_hdfs(folder: Path, name_node: str, log: Path, environment: dict[str, str]) -> Company:
    """Log and warehouse on HDFS, on which a job is killed in its first step: its turn ends in a minute."""
    with storage.atomic_write(f"{name_node}/logs/log.parquet") as draft:
        shutil.copy(log, draft)
    made = Company.of(folder / "on_hdfs", f"{name_node}/ware house", f"{name_node}/logs", environment)
    running = made.start("nightly", SPARK_MASTER="local[1]")
    while not storage.exists(f"{name_node}/ware house/_turn.by"):
        assert running.poll() is None, (made.folder / "nightly.log").read_text()
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    for left in (folder / "tmp").iterdir():  # which nobody else removes after such an end
        shutil.rmtree(left)
    return made


@pytest.fixture(scope="module")
def on_files(folder: Path, on_hdfs: Company, log: Path, environment: dict[str, str], cluster: list[int]) -> Company:
    """The four jobs in turn, while the minute passes. Of those that Spark alone does, an executor is killed."""
    made = Company.of(folder / "on_files", (folder / "tables").as_uri(), log.as_uri(), environment)
    for job in ("extract", "train", "evaluate", "recommend"):
        running = made.start(job)
        if job != "train":
            kill_an_executor(cluster, running)
        made.reports[job] = made.end(job, running)
    return made


def kill_an_executor(cluster: list[int], running: subprocess.Popen) -> None:
    """One that a job has given work for Python to."""
    while True:
        assert running.poll() is None, "it ended before"
        for worker in map(psutil.Process, cluster):
            for executor in worker.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if executor.children():
                        executor.kill()
                        return
        time.sleep(0.05)


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


def test_the_package_travels_as_a_zip(folder: Path, environment: dict[str, str], cluster: list[int]) -> None:
    command = [ROOT / "deploy/extract.sh", "--config", "metarec.toml", "--ds", DS]
    shown = subprocess.run(command, env=environment | {"DRY_RUN": "1"}, cwd=folder, capture_output=True, text=True, check=True)
    words = shlex.split(shown.stdout)
    assert words[words.index("--py-files") + 1] == str(ROOT / "dist/metarec_spark.zip")
    assert words[words.index("--master") + 1] == environment["SPARK_MASTER"]
    assert len(cluster) == 3


def test_slow_jobs_run_on_a_standalone_cluster_from_the_zip(folder: Path, on_files: Company) -> None:
    reports = on_files.reports
    assert reports["extract"]["rows_in"] == USERS * EVENTS * len(DOMAINS)
    assert reports["train"]["rows_in"] == USERS
    assert reports["evaluate"]["status"] == "approved"
    lists = DeltaTable(folder / "tables" / "recommendations").to_pandas()
    assert len(lists) == reports["recommend"]["rows_out"] == USERS * len(DOMAINS)
    assert set(lists["model_id"]) == {reports["train"]["model_id"]}
    for row in lists.itertuples():
        items = {item["item_id"] for item in row.items}
        assert len(items) == TOP_N
        assert all(item.startswith(row.domain) for item in items)
        assert not items & {f"{row.domain}-{(int(row.user_id[1:]) + step) % ITEMS:02}" for step in range(EVENTS)}


def test_slow_a_night_on_hdfs_ends_in_the_tables_of_one_on_files(
    folder: Path, name_node: str, on_files: Company, on_hdfs: Company
) -> None:
    """Also of one of which executors were killed."""
    warehouse = f"{name_node}/ware house"
    report = on_hdfs.end("nightly", on_hdfs.start("nightly"))
    assert report["steps"]["train"]["rows_in"] == USERS
    model = f"{warehouse}/_models/{report['model_id']}"
    assert [epoch.sequences for epoch in artifact.read_manifest(model).metrics.history] == [USERS] * EPOCHS
    assert differences(contents(folder / "tables"), contents(storage.local_copy(warehouse))) == []
    assert storage.list_names(model) == ["items.parquet", "manifest.json", "model.safetensors", "report.html"]
    assert storage.list_names(f"{warehouse}/_training") == []


def test_slow_jobs_on_hdfs_take_turns_and_forget_a_user(name_node: str, on_hdfs: Company) -> None:
    warehouse = f"{name_node}/ware house"
    jobs = {"forget": ["--user", "u07"], "maintain": []}
    started = {job: on_hdfs.start(job, *arguments, SPARK_MASTER="local[1]") for job, arguments in jobs.items()}
    reports = {job: on_hdfs.end(job, running) for job, running in started.items()}
    said = [(on_hdfs.folder / f"{job}.out").read_text() for job in jobs]
    assert sorted("waiting for " in lines for lines in said) == [False, True]
    assert reports["maintain"]["tables"] and reports["forget"]["tables"]["user_sequences"]["rows"] == 1
    left = DeltaTable(storage.local_copy(f"{warehouse}/user_sequences")).to_pandas()
    assert len(left) == USERS - 1 and "u07" not in set(left["user_id"])
    (model,) = storage.list_names(f"{warehouse}/_models")
    assert b"u07" not in storage.read_bytes(f"{warehouse}/_models/{model}/report.html")


def test_slow_ranks_go_on_from_a_checkpoint_on_hdfs_after_one_was_killed(
    tmp_path: Path, name_node: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place, file = f"{name_node}/run", spec(tmp_path / "run", train_settings(processes=2, epochs=60), files=4)
    changed(file, snapshot=f"{place}/snapshot", model=f"{place}/model")
    with storage.atomic_write(place) as draft:
        shutil.copytree(file.parent, draft)
    launching = subprocess.Popen([sys.executable, "-c", LAUNCH, f"{place}/spec.json"])
    while not storage.exists(f"{place}/checkpoint.safetensors"):
        assert launching.poll() is None
        time.sleep(0.05)
    for process in psutil.Process(launching.pid).children(recursive=True):
        if "metarec_spark.training.worker" in process.cmdline() and process.environ().get("HOROVOD_RANK") == "1":
            process.kill()
    assert launching.wait(60) == 1 and not artifact.saved(f"{place}/model")
    launch(f"{place}/spec.json", 2, "local", None, timeout=60)
    assert "resuming after epoch" in capfd.readouterr().err
    epochs = artifact.load(f"{place}/model").manifest.metrics.history
    assert [epoch.sequences for epoch in epochs] == [30] * 60


def test_slow_nothing_is_left_when_the_cluster_stops(folder: Path, environment: dict[str, str], cluster: list[int]) -> None:
    subprocess.run([ROOT / "deploy/standalone.sh", "stop"], env=environment, check=True, timeout=60)
    assert [pid for pid in cluster if Path(f"/proc/{pid}").exists()] == []
    assert [said for said in processes_of(folder) if "MiniDFSClusterManager" not in said] == []
    assert [file for file in (folder / "tmp").iterdir() if file.name.startswith("metarec-")] == []
