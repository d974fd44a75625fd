"""What a user sees who gives the jobs something bad: the exit code, one line that says what to do, and tables as before."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.cli import main
from metarec_spark.tables import Warehouse

DAY = "2024-01-10"
NOON = datetime(2024, 1, 10, 12)


def event(user: str, item: str, domain: str, time: datetime) -> dict[str, object]:
    return {c.USER_ID: user, c.ITEM_ID: item, c.DOMAIN: domain, c.EVENT_TYPE: "view", c.EVENT_TIME: time}


def write_log(path: Path, *, users: int = 10, extra: list[dict] | None = None) -> None:
    """A log of users who each step through eight of shop's ten items, an hour apart, so that no item is popular; and ``extra``."""
    steps = [(user, step) for user in range(users) for step in range(8)]
    rows = [event(f"u{user}", f"i{(user - step) % 10}", "shop", NOON - timedelta(hours=step)) for user, step in steps]
    pq.write_table(pa.Table.from_pylist(rows + (extra or [])), path)


@pytest.fixture
def metarec(spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict, str]]:
    """Run a command on a configuration text; returns exit code, result line and what was logged."""

    def run(command: str, text: str, *, ds: str = DAY) -> tuple[int, dict, str]:
        file = tmp_path / "metarec.toml"
        file.write_text(text.replace("ROOT", str(tmp_path)))
        with pytest.raises(SystemExit) as ended:
            main([command, "--config", str(file), "--ds", ds])
        out, err = capfd.readouterr()
        print(f"{command}: exit {ended.value.code}: {[line for line in err.splitlines() if ' ERROR ' in line][:1]}")
        return int(ended.value.code or 0), json.loads(out.splitlines()[-1]), err

    return run


BASIC = 'warehouse = "ROOT/warehouse"\n[[sources]]\npath = "ROOT/log.parquet"\n'
TINY_RUN = BASIC + '[split]\nprotocol = "leave_one_out"\n[model]\ndim = 8\n[train]\nmax_epochs = 1\n[recommend]\ntop_n = 5\n'


def test_a_missing_file(metarec) -> None:
    code, line, err = metarec("extract", BASIC)
    assert code == line["exit_code"] == 3
    assert "log.parquet" in err and "no such file or folder" in err and "Traceback" not in err


def test_an_empty_log(metarec, tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", users=1)
    pq.write_table(pq.read_table(tmp_path / "log.parquet").slice(0, 0), tmp_path / "log.parquet")
    code, line, _ = metarec("extract", BASIC)
    assert code == 3
    assert "the sources are empty" in line["error"]


def test_a_wrong_type_in_a_mapped_column(metarec, tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet")
    code, line, _ = metarec("extract", BASIC.replace('log.parquet"\n', 'log.parquet"\ncolumns = { user_id = "event_time" }\n'))
    assert code == 3
    assert "'event_time' is timestamp" in line["error"] and "user_id must be" in line["error"]


def test_an_unknown_configuration_key(metarec) -> None:
    code, line, _ = metarec("extract", BASIC + "[train]\nproceses = 2\n")
    assert code == 2
    assert "did you mean 'processes'" in line["error"]


def test_a_day_before_the_first_event(metarec, tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet")
    code, line, _ = metarec("extract", BASIC, ds="2020-01-01")
    assert code == 3
    assert "2024-01-10" in line["error"] and "later --ds" in line["error"]


def test_a_warehouse_that_cannot_be_written(metarec, tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet")
    (tmp_path / "file").write_text("not a folder")
    code, line, _ = metarec("extract", BASIC.replace("ROOT/warehouse", "ROOT/file/warehouse"))
    assert code == 2
    assert "cannot be written" in line["error"]


def test_a_domain_with_one_event_and_a_user_with_100_000(spark: SparkSession, metarec, tmp_path: Path) -> None:
    busy = [event("busy", f"i{n % 10}", "bulk", NOON - timedelta(seconds=10 * n)) for n in range(100_000)]
    write_log(tmp_path / "log.parquet", extra=[*busy, event("u1", "only", "lonely", NOON)])
    code, line, _ = metarec("nightly", TINY_RUN)
    assert code == 0
    assert line["steps"]["extract"]["rejected"] == {}
    warehouse = Warehouse(spark, str(tmp_path / "warehouse"))
    measured = (
        warehouse.read(c.METRICS).where("split = 'test' AND segment = 'all'").select(c.DOMAIN, "users").distinct().collect()
    )
    assert {tuple(row) for row in measured} == {("shop", 10), ("bulk", 1), ("lonely", 1)}
    sizes = warehouse.read(c.RECOMMENDATIONS).select(c.USER_ID, c.DOMAIN, F.size("items")).collect()
    expected = {(f"u{user}", "shop", 2) for user in range(10)}  # two items are left; elsewhere all there is was seen
    assert {tuple(row) for row in sizes} == expected | {("busy", "bulk", 0), ("u1", "lonely", 0)}
