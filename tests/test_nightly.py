"""The whole chain on a generated log: two days, run twice, end in the same tables, here and in a second warehouse."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from training.warehouses import DAY, copied, job_at, stages

from metarec_spark import columns as c
from metarec_spark import config, job
from metarec_spark.columns import ALL
from metarec_spark.job import Job, Result
from metarec_spark.nightly import nightly
from metarec_spark.synthetic.generate import generate
from metarec_spark.synthetic.platforms import Scale
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

SCALE = Scale(users=80, events=2_500, items=48, days=4, first_day=date(2024, 1, 7), seed=3)
NIGHTS = (date(2024, 1, 9), date(2024, 1, 10))
TOP_N = 40


@pytest.fixture(scope="module")
def log(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("log")
    generate(spark, SCALE, file_uri(out))
    return out


@pytest.fixture(scope="module")
def run(spark: SparkSession, log: Path) -> Callable[..., Warehouse]:
    def nights(root: Path, days: Sequence[date] = NIGHTS) -> Warehouse:
        settings = config.parse(
            {
                "warehouse": file_uri(root),
                "sources": [{"path": file_uri(log / "events"), "day_column": "ds"}],
                "items": [{"path": file_uri(log / "items")}],
                "split": {"protocol": "leave_one_out"},
                "model": {"dim": 16},
                "train": {"max_epochs": 3},
                "recommend": {"top_n": TOP_N, "exclude_seen": True},
            }
        )
        for ds in days:
            result = nightly(Job("nightly", settings, ds, spark, Warehouse(spark, settings.warehouse)))
            assert result.exit_code == 0
        return Warehouse(spark, settings.warehouse)

    return nights


@pytest.fixture(scope="module")
def one(run: Callable[..., Warehouse], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A folder after the first night, and what its tables hold then."""
    root = tmp_path_factory.mktemp("first")
    return root, contents(run(root, NIGHTS[:1]))


@pytest.fixture(scope="module")
def first(run: Callable[..., Warehouse], one: tuple[Path, dict]) -> tuple[Warehouse, dict[str, list[str]]]:
    warehouse = run(one[0], NIGHTS[1:])
    return warehouse, contents(warehouse)


def contents(warehouse: Warehouse) -> dict[str, list[str]]:
    """Every row of every table, as sorted JSON; without what names the warehouse's place, or when and how long something ran."""
    rows = {}
    for name in ALL:
        if warehouse.exists(name):
            frame = warehouse.read(name).drop("path", "metrics", "read_at")
            rows[name] = sorted(frame.select(F.to_json(F.struct(*frame.columns))).toPandas().iloc[:, 0])
    return rows


def test_every_table_of_the_chain_is_written(first) -> None:
    _, tables = first
    assert {name for name, rows in tables.items() if rows} == set(ALL) - {
        c.FEEDBACK,
        c.FORGOTTEN,
        c.RUNS,
        c.STOPPED_DAYS,
        c.TRANSFER_RUNS,
        c.WITHHELD,
    }


def test_both_nights_again_end_in_the_same_tables(first, run: Callable[..., Warehouse]) -> None:
    warehouse, before = first
    after = contents(run(Path(warehouse.root.removeprefix("file:"))))
    assert after == before


def test_a_second_warehouse_gets_the_same_rows(one, run: Callable[..., Warehouse], tmp_path: Path) -> None:
    assert contents(run(tmp_path, NIGHTS[:1])) == one[1]


def test_every_active_pair_has_exactly_its_items_unseen_and_once(first) -> None:
    warehouse, _ = first
    night = F.col("ds") == F.lit(NIGHTS[-1])
    lists = {
        (row.user_id, row.domain): [item.item_id for item in row["items"]]
        for row in warehouse.read(c.RECOMMENDATIONS).where(night).collect()
    }
    events = warehouse.read(c.EVENTS).collect()
    items = warehouse.read(c.ITEMS).collect()
    seen: dict[tuple[str, str], set[str]] = {}
    for event in events:
        seen.setdefault((event.user_id, event.domain), set()).add(event.item_id)
    catalogue = {domain: {item.item_id for item in items if item.domain == domain} for domain in {item.domain for item in items}}
    assert set(lists) == set(seen)
    for (user, domain), shown in lists.items():
        unseen = catalogue[domain] - seen[user, domain]
        assert len(shown) == len(set(shown)) == min(TOP_N, len(unseen))
        assert set(shown) <= unseen


def test_the_second_night_reads_only_its_days_and_does_not_train(first) -> None:
    warehouse, tables = first
    models = [json.loads(row) for row in tables[c.MODELS]]
    assert [model["ds"] for model in models] == [NIGHTS[0].isoformat()]
    read = {row[0] for row in warehouse.read(c.INGESTED).where(F.col("ds") == F.lit(NIGHTS[1])).select(c.FILE).collect()}
    assert read and not [file for file in read if "ds=2024-01-07" in file]


def test_a_night_that_fails_names_the_step_and_what_to_do_next(spark, tmp_path, tmp_path_factory, caplog, capsys) -> None:
    folder = copied(stages(spark, tmp_path_factory).extracted, tmp_path)
    failing = job_at(spark, folder, "nightly", train={"processes": 99}, features={"max_length": 7})
    with caplog.at_level("INFO", "metarec_spark"):
        assert job.run("nightly", failing.config, DAY, nightly) == 3
    *_, error, last = caplog.messages
    assert "99 rank(s) need at least as many" in error and any(line.startswith("done in") for line in caplog.messages)
    assert last == (
        "nightly of 2024-01-10 stopped in its step train. Next: do what the error above says, then run it again; the steps before it "
        "may be repeated"
    )
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = failing.warehouse.read(c.RUNS).collect()
    assert (said["step"], row.step, row.exit_code, row.run_id) == ("train", "train", 3, said["run_id"])
    assert row.error == said["error"].splitlines()[0]
    assert "user_sequences" in json.loads(row.versions_written), "made anew for the other length, before the step that failed"


def named(name: str, result: Result) -> Callable[[Job], Result]:
    """A step that has that result."""

    def work(_: Job) -> Result:
        return result

    work.__name__ = name
    return work


def test_a_night_that_rejects_its_model_says_whose_lists_stand(spark, tmp_path, monkeypatch, caplog) -> None:
    results = {
        "extract": Result(5, 4),
        "train": Result(model_id="new"),
        "evaluate": Result(model_id="new", exit_code=4, reason="weak"),
        "recommend": Result(model_id="old"),
    }
    for name, result in results.items():
        monkeypatch.setattr(f"metarec_spark.nightly.{name}", named(name, result))
    night = nightly(job_at(spark, tmp_path, "nightly"))
    assert (night.exit_code, night.model_id, night.step, night.reason) == (4, "old", "evaluate", "weak")
    assert list(night.details.steps) == list(results)
    assert caplog.messages[-1].startswith("step evaluate rejected model new: the lists are by old. Next: see report.html")
