"""A night through deploy/nightly.sh on a standalone cluster of two workers, from the zip, with log and warehouse on HDFS, and an
executor killed in each step of Spark's own: it ends in the tables of an undisturbed night in this process, on files."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
from pyspark.sql import SparkSession
from standalone import free_ports, kill_an_executor, processes_of
from training.factories import changed, spec
from training.factories import settings as train_settings

from metarec_spark.cli import main
from metarec_spark.model import artifact
from metarec_spark.runtime.sizing import SMALL
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
        "JAVA_TOOL_OPTIONS": SMALL["spark.driver.extraJavaOptions"],
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

    def said(self, job: str) -> str:
        """What the job wrote so far: results and its own log; Spark's is in another file."""
        return (self.folder / f"{job}.out").read_text()

    def end(self, job: str, running: subprocess.Popen) -> dict:
        """Wait for a job's end; what it reports."""
        try:
            code = running.wait(LONGEST)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        out, log = self.said(job), (self.folder / f"{job}.log").read_text()
        assert code == 0, f"{job} ended with {code}:\n{out[-2000:]}\n{log[-6000:]}"
        report = json.loads(out.splitlines()[-1])
        assert (report["job"], report["ds"], report["exit_code"]) == (job, DS, 0)
        return report

    def here(self, job: str) -> None:
        """Do a job in this process."""
        with pytest.raises(SystemExit) as ended:
            main([job, "--config", str(self.config), "--ds", DS])
        assert not ended.value.code


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
    while not storage.exists(f"{name_node}/ware house/_lock.owner"):
        assert running.poll() is None, (made.folder / "nightly.log").read_text()
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    for left in (folder / "tmp").iterdir():  # which nobody else removes after such an end
        shutil.rmtree(left)
    return made


@pytest.fixture(scope="module")
def on_files(spark: SparkSession, folder: Path, on_hdfs: Company, log: Path, environment: dict[str, str]) -> Path:
    """The warehouse of an undisturbed night in this process, which passes while the minute does."""
    warehouse = folder / "tables"
    Company.of(folder / "on_files", warehouse.as_uri(), log.as_uri(), environment).here("nightly")
    return warehouse


@pytest.fixture(scope="module")
def report(cluster: list[int], on_hdfs: Company, on_files: Path) -> dict:
    """Of the night on the cluster, in which an executor dies in each step but the training."""
    running = on_hdfs.start("nightly")
    kill_an_executor(cluster, running)
    for step in ("train", "evaluate"):
        while f" {step}: done in " not in on_hdfs.said("nightly"):
            assert running.poll() is None, on_hdfs.said("nightly")
            time.sleep(0.1)
        kill_an_executor(cluster, running)
    return on_hdfs.end("nightly", running)


def test_the_package_travels_as_a_zip(folder: Path, environment: dict[str, str], cluster: list[int]) -> None:
    command = [ROOT / "deploy/extract.sh", "--config", "metarec.toml", "--ds", DS]
    shown = subprocess.run(command, env=environment | {"DRY_RUN": "1"}, cwd=folder, capture_output=True, text=True, check=True)
    words = shlex.split(shown.stdout)
    assert words[words.index("--py-files") + 1] == str(ROOT / "dist/metarec_spark.zip")
    assert words[words.index("--master") + 1] == environment["SPARK_MASTER"]
    assert len(cluster) == 3


def test_a_night_on_a_cluster_whose_executors_die_makes_the_lists(name_node: str, report: dict) -> None:
    steps = report["steps"]
    assert steps["extract"]["rows_in"] == USERS * EVENTS * len(DOMAINS)
    assert steps["train"]["rows_in"] == USERS
    assert steps["evaluate"]["status"] == "approved"
    lists = DeltaTable(storage.local_copy(f"{name_node}/ware house/recommendations")).to_pandas()
    assert len(lists) == steps["recommend"]["rows_out"] == USERS * len(DOMAINS)
    assert set(lists["model_id"]) == {report["model_id"]}
    for row in lists.itertuples():
        items = {item["item_id"] for item in row.items}
        assert len(items) == TOP_N
        assert all(item.startswith(row.domain) for item in items)
        assert not items & {f"{row.domain}-{(int(row.user_id[1:]) + step) % ITEMS:02}" for step in range(EVENTS)}


def test_it_ends_in_the_tables_and_the_model_of_an_undisturbed_night_on_files(
    name_node: str, report: dict, on_files: Path
) -> None:
    warehouse = f"{name_node}/ware house"
    model = f"{warehouse}/_models/{report['model_id']}"
    assert [epoch.sequences for epoch in artifact.read_manifest(model).metrics.history] == [USERS] * EPOCHS
    assert differences(contents(on_files), contents(storage.local_copy(warehouse))) == []
    files = ["items.parquet", "manifest.json", "model.safetensors", "report.html", "report.json", "twin"]
    assert storage.list_names(model) == files
    assert storage.list_names(f"{warehouse}/_training") == []


@pytest.mark.usefixtures("report")
def test_jobs_on_hdfs_take_turns_and_forget_a_user(name_node: str, on_hdfs: Company, capfd: pytest.CaptureFixture[str]) -> None:
    warehouse = f"{name_node}/ware house"
    forgetting = on_hdfs.start("forget", "--user", "u07", SPARK_MASTER="local[1]")
    while not storage.exists(f"{warehouse}/_lock.owner"):
        assert forgetting.poll() is None, on_hdfs.said("forget")
        time.sleep(0.05)
    capfd.readouterr()
    on_hdfs.here("maintain")
    forgotten, (out, log) = on_hdfs.end("forget", forgetting), capfd.readouterr()
    assert f"waiting for forget of {DS} (process " in log and "waiting for " not in on_hdfs.said("forget")
    assert json.loads(out.splitlines()[-1])["tables"] and forgotten["tables"]["user_sequences"]["rows"] == 1
    left = DeltaTable(storage.local_copy(f"{warehouse}/user_sequences")).to_pandas()
    assert len(left) == USERS - 1 and "u07" not in set(left["user_id"])
    (model,) = storage.list_names(f"{warehouse}/_models")
    for report in ("report.html", "report.json"):
        assert b"u07" not in storage.read_bytes(f"{warehouse}/_models/{model}/{report}")


def test_ranks_go_on_from_a_checkpoint_on_hdfs_after_one_was_killed(
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


def test_nothing_is_left_when_the_cluster_stops(folder: Path, environment: dict[str, str], cluster: list[int]) -> None:
    subprocess.run([ROOT / "deploy/standalone.sh", "stop"], env=environment, check=True, timeout=60)
    assert [pid for pid in cluster if Path(f"/proc/{pid}").exists()] == []
    assert [said for said in processes_of(folder) if "MiniDFSClusterManager" not in said] == []
    scratch = folder / "tmp" / f"metarec-{os.geteuid()}"  # Spark's, of this user alone; it stays, and is empty
    assert [file for file in (folder / "tmp").glob("metarec-*") if file != scratch] + list(scratch.rglob("*")) == []
