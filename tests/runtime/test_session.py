"""What a session lets others see and run: nothing of the working directory, no secret, no file that the umask forbids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metarec_spark import config
from metarec_spark.errors import ConfigError
from metarec_spark.runtime import session
from metarec_spark.runtime.cache import cache_folder
from metarec_spark.runtime.isolation import ISOLATED, isolated_environment
from metarec_spark.runtime.sizing import LARGE, SMALL, TINY, sized_settings

SECRET = "hunter2 = \\ #é"
LOOK = """
import os, sys
os.umask(0o077)
from datetime import date
from pathlib import Path
from metarec_spark import config
from metarec_spark.runtime.session import session
from metarec_spark.warehouse.tables import Commit, Warehouse

folder, secret = Path(sys.argv[1]), sys.argv[2]
conf = {"spark.driver.memory": "1g", "spark.hadoop.fs.s3a.secret.key": secret}
settings = config.parse({"warehouse": f"file://{folder}/warehouse", "spark": {"master": "local[1]", "conf": conf}})
spark = session(settings, "test")

def worker(batches):
    import json  # noqa: F401
    yield from batches

rows = spark.range(1).mapInArrow(worker, "id long")
rows = rows.selectExpr("CAST(id AS INT) item_idx", "'shop' domain", "'i' item_id", "'blocked' reason")
Warehouse(spark, settings.warehouse).replace_all("withheld", rows, Commit("recommend", date(2024, 1, 10)))
scratch = Path(os.environ["TMPDIR"]) / f"metarec-{os.geteuid()}"
seen = {
    "command": Path(f"/proc/{spark.sparkContext._gateway.proc.pid}/cmdline").read_text().split("\\0"),
    "conf": spark.sparkContext.getConf().get("spark.hadoop.fs.s3a.secret.key"),
    "readable": [str(p) for p in (folder / "warehouse").rglob("*") if p.stat().st_mode & 0o077],
    "scratch": [scratch.stat().st_mode & 0o777, len(list(scratch.iterdir()))],
    "left": [p.name for p in Path(os.environ["TMPDIR"]).glob("metarec-conf-*")],
}
import json
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a process saw of its session; its working directory holds a ``json.py`` and a jar folder of Spark's default name."""
    folder = tmp_path_factory.mktemp("session")
    work, scratch = folder / "work", folder / "tmp"
    (work / "hive-jackson").mkdir(parents=True)
    (work / "hive-jackson" / "x.jar").touch()
    (work / "json.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\nraise ImportError('mine')\n"
    )
    scratch.mkdir()
    script = folder / "look.py"
    script.write_text(LOOK)
    script.chmod(0o600)
    root = Path(session.__file__).parent.parent.parent
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(root)}
    command = [sys.executable, str(script), str(folder), SECRET]
    run = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1]) | {"work": work, "log": run.stderr}


def test_no_jar_and_no_module_of_the_working_directory_is_run(seen: dict) -> None:
    classpath = seen["command"][seen["command"].index("-cp") + 1]
    assert all(part.startswith("/") for part in classpath.split(":")), classpath
    assert not (seen["work"] / "imported").exists()


def test_secrets_reach_spark_and_stand_in_no_command_line(seen: dict) -> None:
    assert seen["conf"] == SECRET
    assert "hunter2" not in " ".join(seen["command"])
    assert seen["left"] == []


def test_files_have_the_permissions_of_the_umask_and_scratch_is_this_users_alone(seen: dict) -> None:
    assert seen["readable"] == []
    assert seen["scratch"][0] == 0o700 and seen["scratch"][1] > 0


def test_spark_itself_says_nothing(seen: dict) -> None:
    lines = [line for line in seen["log"].splitlines() if "incubator modules" not in line]
    assert lines == []


def test_a_user_without_a_name_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    with pytest.raises(ConfigError, match="user id 54321 has no name on this machine.*etc/passwd"):
        session._check_user()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    with pytest.raises(ConfigError, match="has no home folder.*set HOME or XDG_CACHE_HOME"):
        cache_folder()


def test_python_processes_get_no_empty_part_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/a", "", "/b", ""]))
    environment = isolated_environment()
    assert (environment["PYTHONPATH"], environment["PYTHONSAFEPATH"]) == (os.pathsep.join(["/a", "/b"]), "1")


def test_the_size_of_the_inputs_decides_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarec_spark.runtime.sizing._SIZES", {70: TINY, 100: SMALL})
    (tmp_path / "log" / "ds=1").mkdir(parents=True)
    (tmp_path / "log" / "ds=1" / "a.parquet").write_bytes(b"x" * 60)

    def sized(path: str) -> dict[str, str]:
        return sized_settings(config.parse({"warehouse": f"file://{tmp_path}/warehouse", "sources": [{"path": path}]}))

    for path in (f"{tmp_path}/log", f"file://{tmp_path}/log", f"{tmp_path}/log/*/*.parquet"):
        assert sized(path) == TINY
    assert sized("s3a://bucket/log") == sized(f"{tmp_path}/{{a,b}}") == LARGE
    (tmp_path / "warehouse" / "events").mkdir(parents=True)
    (tmp_path / "warehouse" / "events" / "b.parquet").write_bytes(b"x" * 30)
    assert sized(f"{tmp_path}/log") == SMALL, "a night reads its tables, too"
    (tmp_path / "warehouse" / "events" / "c.parquet").write_bytes(b"x" * 30)
    assert sized(f"{tmp_path}/log") == LARGE
    assert TINY.keys() > SMALL.keys() >= LARGE.keys() and ISOLATED["spark.driver.defaultExtraClassPath"] == ""
