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


def write_log(path: Path, *, users: int = 12, events: int = 8, extra: list[dict] | None = None) -> None:
    """A log of ``users`` with ``events`` each, an hour apart, over ten items of domain shop; and ``extra`` rows."""
    rows = [
        {c.USER_ID: f"u{user}", c.ITEM_ID: f"i{(user + step * step) % 10}", c.DOMAIN: "shop", c.EVENT_TYPE: "view",
         c.EVENT_TIME: NOON - timedelta(hours=step)}
        for user in range(users) for step in range(events)
    ]  # fmt: skip
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
    busy = [
        {c.USER_ID: "busy", c.ITEM_ID: f"i{n % 10}", c.DOMAIN: "shop", c.EVENT_TYPE: "view", c.EVENT_TIME: NOON - timedelta(seconds=10 * n)}
        for n in range(100_000)
    ]  # fmt: skip
    lone = {c.USER_ID: "u1", c.ITEM_ID: "only", c.DOMAIN: "lonely", c.EVENT_TYPE: "view", c.EVENT_TIME: NOON}
    write_log(tmp_path / "log.parquet", extra=[*busy, lone])
    code, line, _ = metarec("nightly", TINY_RUN)
    assert code in (0, 4) and line["steps"]["extract"]["rejected"] == {}
    if code == 4:  # so small a model may lose to popularity; nothing is published then
        assert "no approved model" in line["error"]
        return
    lists = Warehouse(spark, str(tmp_path / "warehouse")).read(c.RECOMMENDATIONS)
    sizes = {(row.user_id, row.domain): row.n for row in lists.select(c.USER_ID, c.DOMAIN, F.size("items").alias("n")).collect()}
    assert sizes["u1", "lonely"] == 0 and sizes["busy", "shop"] == 0  # everything there is was seen
    assert len(sizes) == 12 + 2
