"""Five unlike logs and a catalogue: the configuration that inspect writes reads each of them whole, as it is."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from metarec_spark import config
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.features.extract import extract
from metarec_spark.inspection.inspect import inspect
from metarec_spark.job import Job
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

START, EVENTS = datetime(2024, 1, 1, 12, tzinfo=UTC), 20
TIMES = [START + timedelta(hours=31 * i) for i in range(EVENTS)]
ROWS = [(f"u{i % 4}", f"i{i % 6}", time) for i, time in enumerate(TIMES)]


def semicolons(folder: Path) -> None:
    lines = [
        "Kundennummer;Artikel;customer;sku;orderDate",
        *(f"x;Gr\xf6\xdfe {i};{u};{i};{t:%d/%m/%Y %H:%M}" for u, i, t in ROWS),
    ]
    (folder / "orders.csv").write_bytes("\r\n".join(lines).encode("latin-1"))


def nested(folder: Path) -> None:
    rows = [{"user": {"id": u}, "product": {"sku": i}, "ts": int(t.timestamp() * 1000), "action": "view"} for u, i, t in ROWS]
    (folder / "views.jsonl").write_text("\n".join(map(json.dumps, rows)))


def pandas(folder: Path) -> None:
    nanoseconds = pa.array([int(t.timestamp()) * 10**9 for _, _, t in ROWS], pa.timestamp("ns"))
    columns = {
        "userId": [u for u, _, _ in ROWS],
        "rating": [float(1 + i % 5) for i in range(EVENTS)],
        "videoId": pa.array([i for _, i, _ in ROWS]).dictionary_encode(),
        "timestamp": nanoseconds,
    }
    pq.write_table(pa.table(columns | {"__index_level_0__": list(range(EVENTS))}), folder / "watched.parquet")


def day_folders(folder: Path) -> None:
    for day in {t.date() for t in TIMES}:
        inside = folder / f"dt={day}"
        inside.mkdir()
        rows = [f"{u},{i},{t:%Y-%m-%d %H:%M:%S}" for u, i, t in ROWS if t.date() == day]
        (inside / "part-0.csv").write_text("\n".join(["member_id,track_id,time", *rows]))


def table(folder: Path) -> None:
    columns = {"visitor": [u for u, _, _ in ROWS], "article_id": [i for _, i, _ in ROWS], "created_at": [t for _, _, t in ROWS]}
    write_deltalake(folder, pa.table(columns))


LOGS = {"orders": semicolons, "clicks": nested, "films": pandas, "music": day_folders, "news": table}


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    """The configuration that inspect wrote for all logs, the tables that it leads to, and what inspect reported."""
    folder = tmp_path_factory.mktemp("inspect")
    for name, write in LOGS.items():
        (folder / name).mkdir()
        write(folder / name)
    (folder / "catalogue").mkdir()
    lines = [
        "id,name,genres,studio,price,note",
        *(f"i{i},Title {i},drama|war,Studio {i % 2},{3.5 * i},see below" for i in range(6)),
    ]
    (folder / "catalogue" / "films.csv").write_text("\n".join(lines))
    root, out = file_uri(folder / "tables"), folder / "metarec.toml"
    job = Job("inspect", config.parse({"warehouse": root}), date(2024, 2, 1), spark, Warehouse(spark, root))
    paths = [file_uri(folder / name) for name in [*LOGS, "catalogue"]]
    result = inspect(job, paths, out, warehouse=root)
    written = config.load(out)
    night = Job("extract", written, date(2024, 2, 1), spark, Warehouse(spark, root))
    extract(night)
    return out, night.warehouse, result


def test_every_row_is_an_event_of_its_platform_at_its_time(made):
    _, warehouse, _ = made
    stored = {
        (row["domain"], row["user_id"], row["item_id"], row["event_time"].astimezone(UTC))
        for row in warehouse.read("events").collect()
    }
    assert stored == {(name, *row) for name in LOGS for row in ROWS}
    assert warehouse.read("rejected_events").isEmpty()


def test_what_was_judged_is_what_extract_makes_of_it(made):
    _, _, result = made
    assert (result.rows_in, result.rows_out) == (len(LOGS) * EVENTS, len(LOGS) * EVENTS)
    assert (result.details.logs, result.details.catalogues, result.details.rejected) == (len(LOGS), 1, {})


def test_the_catalogue_is_of_the_platform_that_has_its_items(made):
    _, warehouse, _ = made
    rows = {row["title"]: row["tokens"] for row in warehouse.read("item_content").where("title is not null").collect()}
    assert rows.keys() == {f"Title {i}" for i in range(6)}
    attributes = [token.split(":", 2)[2] for token in rows["Title 1"] if token.startswith("a:")]
    assert attributes == ["drama", "price~2^1.5", "price~2^2.0", "studio=Studio 1", "war"], "and no note"


def test_each_guess_has_its_reason_beside_it(made):
    text = made[0].read_text()
    assert 'time_format = "%d/%m/%Y %H:%M"  # ' in text
    assert 'day_column = "dt"  # folders of the days' in text
    assert 'attribute_separator = "|"  # ' in text
    assert "of the events are of an item that their user had before" in text
    assert "# 40% of the ratings that were looked at are 1 or 2 of 5." in text and "# dislike_below = { films = 3 }" in text


def test_a_file_that_is_there_is_not_overwritten(made, spark):
    out, warehouse, _ = made
    job = Job("inspect", config.parse({"warehouse": warehouse.root}), date(2024, 2, 1), spark, warehouse)
    before = out.read_text()
    with pytest.raises(ConfigError, match="is there already"):
        inspect(job, [file_uri(out.parent / "orders")], out, warehouse=warehouse.root)
    assert out.read_text() == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["user_id,item_id,date", "u,i,01/02/2024", "u,j,03/04/2024"], "can be read as %d/%m/%Y or %m/%d/%Y, and no value tells"),
        (["who,what,when_", "u,i,2024-01-01"], "none is known as user_id or item_id"),
        (["u1,i1,2024-01-01", "u2,i2,2024-01-02"], "none is known as user_id"),
        (["17,4,2024-01-01", "18,5,2024-01-02"], "its first line is no header"),
    ],
    ids=["two readings", "unknown names", "no header of words", "no header of numbers"],
)
def test_what_cannot_be_told_stops(spark, tmp_path, lines, message):
    (tmp_path / "log.csv").write_text("\n".join(lines))
    root = file_uri(tmp_path / "tables")
    job = Job("inspect", config.parse({"warehouse": root}), date(2024, 2, 1), spark, Warehouse(spark, root))
    with pytest.raises(DataError, match=message):
        inspect(job, [file_uri(tmp_path / "log.csv")], tmp_path / "metarec.toml", warehouse=root)
    assert not (tmp_path / "metarec.toml").exists()
