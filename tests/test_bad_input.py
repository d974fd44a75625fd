"""What a user sees who gives the jobs something bad: the exit code, one line that says what to do, and what is stored.

docs/bad-input.md shows what these tests saw. ``WRITE_DOCUMENTS=1 python -m pytest tests/test_bad_input.py`` writes it anew.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bad_files import GOOD, JSON, NOON, SCHEMA, bomb, content, csv, event, parquet, renamed, write_log
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.cli import main
from metarec_spark.warehouse.tables import Warehouse

DAY = "2024-01-10"
DOCUMENT = Path(__file__).parent.parent / "docs" / "bad-input.md"
SEEN: dict[str, list[tuple[str, int, str, str]]] = {"Files": [], "Rows": [], "Configuration": [], "Models": []}
"""Of each part: what was given, the exit code, what was said, what is stored."""
BASIC = 'warehouse = "ROOT/warehouse"\n[[sources]]\npath = "ROOT/log.parquet"\n'
TINY_RUN = BASIC + "[model]\ndim = 8\n[train]\nmax_epochs = 1\nrefit_epochs = 0\n[recommend]\ntop_n = 5\n"


def metarec(folder: Path, command: str, text: str, *, ds: str = DAY, more: tuple[str, ...] = ()) -> tuple[int, dict]:
    """Run a command on a configuration text: its exit code and result line. A user never sees a traceback."""
    file, out, err = folder / "metarec.toml", io.StringIO(), io.StringIO()
    file.write_text(text.replace("ROOT", str(folder)))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([command, "--config", str(file), "--ds", ds, *more])
    assert "Traceback" not in err.getvalue()
    line = json.loads(out.getvalue().splitlines()[-1])
    assert int(ended.value.code or 0) == line["exit_code"]
    return line["exit_code"], line


def noted(part: str, given: str, code: int, said: str, stored: str, folder: Path) -> None:
    """Enter what was seen in the table."""
    said = re.sub(rf"(file:(//)?)?{folder}|\b[0-9a-f]{{12,}}\b", "…", said.partition("\n")[0])
    SEEN[part].append((given, code, said.replace("|", "\\|"), stored))


# What is given, its file, how it is made, more of its source's configuration, and part of what is said.
FILES = [
    ("no file", "log.parquet", lambda path: None, "", "no such file, or no file in the folder"),
    ("a folder without files", "log.parquet", Path.mkdir, "", "no such file, or no file in the folder"),
    ("a link to itself", "log.parquet", lambda path: path.symlink_to(path), "", "no such file, or no file in the folder"),
    ("a file of no bytes", "log.parquet", content(b""), "", "log.parquet cannot be read"),
    ("text called Parquet", "log.parquet", content(csv(GOOD)), "", "not a Parquet file"),
    ("Parquet cut short", "log.parquet", parquet(change=lambda data: data[:-20]), "", "not a Parquet file"),
    ("Parquet with damaged pages", "log.parquet", parquet(change=lambda data: data[:40] + b"\xff" * 300 + data[340:]), "", "cannot be"),
    ("Parquet without rows", "log.parquet", lambda path: pq.write_table(SCHEMA.empty_table(), path), "", "the sources are empty"),
    ("a needed column missing", "log.parquet", renamed, "", "did you mean columns = { user_id = 'userid' }"),
    ("a mapped column missing", "log.parquet", parquet(), 'columns = { user_id = "uid" }', "no column 'uid'"),
    ("a column of a wrong type", "log.parquet", parquet(), 'columns = { user_id = "event_time" }', "user_id must be text or whole numbers"),
    ("a day column missing", "log.parquet", parquet(), 'day_column = "ds"', "no column 'ds'"),
    ("Parquet called Delta", "log.parquet", parquet(), 'format = "delta"', "no Delta table there"),
    ("nothing but rows of a later day", "log.csv", content(csv("u1,i1,shop,2024-02-01")), 'format = "csv"', "choose a later --ds"),
    ("gzip cut short", "log.csv.gz", content(gzip.compress(csv(*[GOOD] * 999), mtime=0)[:60]), 'format = "csv"', "end of input stream"),
    ("text called gzip", "log.csv.gz", content(csv(GOOD)), 'format = "csv"', "not a gzip file"),
    ("random bytes called JSON", "log.json", content(bytes(range(128, 256))), 'format = "json"', "is not UTF-8; set encoding"),
    ("text called JSON", "log.json", content(csv(GOOD)), 'format = "json"', "holds no JSON objects"),
    ("a JSON array cut short", "log.json", content(b"[" + JSON + b","), 'format = "json"', "ends within an array"),
    ("Russian letters of Windows", "log.csv", content(csv(GOOD).decode().replace("u1", "\u041f\u0440\u0438\u0432\u0435\u0442").encode("cp1251")), 'format = "csv"', "set encoding"),
    ("Parquet called CSV", "log.csv", parquet(), 'format = "csv"', "is Parquet, not text"),
    ("a zip archive", "log.csv", content(b"PK\x03\x04"), 'format = "csv"', "is a zip archive"),
    ("a name twice in the header", "log.csv", content(csv(GOOD).replace(b"domain", b"user_id")), 'format = "csv"', "stands 2 times"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "name", "make", "more", "said"), FILES, ids=[of[0] for of in FILES])
def test_a_file(spark: SparkSession, tmp_path: Path, given: str, name: str, make, more: str, said: str):
    make(tmp_path / name)
    code, line = metarec(tmp_path, "extract", BASIC.replace("log.parquet", name) + more)
    assert code == 3 and said in line["error"]
    assert not Warehouse(spark, f"{tmp_path}/warehouse").exists(c.EVENTS)
    noted("Files", given, code, line["error"], "nothing", tmp_path)


HALF_GOOD = [
    ("a gzip bomb: one line of 150 MB", "csv", bomb, {"kept": 1}, "such a line is passed over"),
    ("CSV rows too short and too long", "csv", content(csv(GOOD, "u1", f"{GOOD},more")), {"bad_row": 2, "kept": 1}, ""),
    ("CSV quotes that do not fit", "csv", content(csv(GOOD, '"u2"x,i2,shop,2024-01-10', 'u3,"i3,shop,2024-01-10')), {"bad_row": 2, "kept": 1}, ""),
    ("JSON lines that are no objects", "json", content(JSON + b'{"user\n[7]\n'), {"bad_row": 2, "kept": 1}, ""),
    ("CSV that is not UTF-8", "csv", content(csv("u\xe9,i1,shop,2024-01-10").replace(b"\xc3\xa9", b"\xe9")), {"kept": 1}, "read as windows-1252, with a warning"),
    ("a damaged letter in UTF-8", "csv", content(csv("Zo\xeb,i1,shop,2024-01-10") + b"Zo\xeb,i2,shop,2024-01-10\n"), {"bad_encoding": 1, "kept": 1}, ""),
]  # fmt: skip


def test_files_that_are_read_in_part(spark: SparkSession, tmp_path: Path):
    sources = ""
    for number, (_, form, make, _, _) in enumerate(HALF_GOOD):
        file = tmp_path / f"log{number}.{form}{'.gz' if make is bomb else ''}"
        make(file)
        sources += f'[[sources]]\npath = "{file}"\nformat = "{form}"\nuser_namespace = "{number}"\n'
    code, _ = metarec(tmp_path, "extract", 'warehouse = "ROOT/warehouse"\n' + sources)
    assert code == 0
    counts = Warehouse(spark, f"{tmp_path}/warehouse").read(c.QUALITY).groupBy(c.SOURCE, "outcome").agg(F.sum("rows"))
    found = {(row[0], row[1]): row[2] for row in counts.collect()}
    for number, (given, form, _, outcomes, more) in enumerate(HALF_GOOD):
        assert {kind: count for (source, kind), count in found.items() if source == f"{number}:{form}"} == outcomes
        said = ", ".join(f"{count} {kind if kind == 'kept' else f'rejected as `{kind}`'}" for kind, count in outcomes.items())
        noted("Files", given, 0, f"{said}{more and f'; {more}'}", "rows, kept or rejected", tmp_path)


LONG = "x" * 1_000_000
# What is given, the row, and what becomes of it: None is an event. A row of no known time may be told by its event type.
ROWS = [
    ("no user", {c.USER_ID: None}, "null_user"),
    ("a blank user", {c.USER_ID: " \t"}, "null_user"),
    ("no item", {c.ITEM_ID: None}, "null_item"),
    ("a blank item", {c.ITEM_ID: ""}, "null_item"),
    ("no platform", {c.DOMAIN: None}, "null_domain"),
    ("a user id of a million characters", {c.USER_ID: LONG}, "long_id"),
    ("an item id of a million characters", {c.ITEM_ID: LONG}, "long_id"),
    ("a platform of a million characters", {c.DOMAIN: LONG}, "long_id"),
    ("no time", {c.EVENT_TIME: None}, "bad_time"),
    ("a time before 1970", {c.EVENT_TIME: datetime(1969, 12, 31, 23, 59)}, "bad_time"),
    ("a time in 2200", {c.EVENT_TIME: datetime(2200, 1, 1)}, "future_time"),
    ("control characters in ids", {c.USER_ID: "a\0b\n\x1b[2J", c.ITEM_ID: "c\rd"}, None),
    ("emoji", {c.USER_ID: "👩‍👩‍👧", c.ITEM_ID: "🛒"}, None),
    ("right-to-left text", {c.USER_ID: "משתמש", c.ITEM_ID: "\u202eبند"}, None),
    ("a user that looks like SQL", {c.USER_ID: "'; DROP TABLE events; --"}, None),
    ("an item that looks like a path", {c.ITEM_ID: "../../etc/passwd"}, None),
    ("a platform that looks like a path", {c.DOMAIN: "../up/ds=2024-01-01"}, None),
    ("an accent as one character", {c.USER_ID: "é"}, None),
    ("the same accent as two: another user", {c.USER_ID: "e\u0301"}, None),
    ("blanks around an id, which are part of it", {c.USER_ID: " u1 "}, None),
    ("a negative value", {c.VALUE: -5.0}, None),
    ("a value that is not a number", {c.VALUE: float("nan")}, None),
    ("an infinite value", {c.VALUE: float("-inf")}, None),
    ("a row", {c.ITEM_ID: "twice"}, None),
    ("its copy", {c.ITEM_ID: "twice"}, "duplicate"),
    ("its copy with another value", {c.ITEM_ID: "twice", c.VALUE: 2.0}, "duplicate"),
]
TEXTS = [
    ("a time without a zone is UTC", "2024-01-10 07:00:00", None),
    ("a time with a zone", "2024-01-10T09:30:00+02:00", None),
    ("a count of seconds", "1704870000", None),
    ("no time at all", "soon", "bad_time"),
    ("a day in digits is its midnight", "20240110", None),
    ("a time that may be of January or of October", "01/10/2024", "bad_time"),
    ("a month that is none", "2024-13-01", "bad_time"),
]


def outcomes(spark: SparkSession, tables: Path) -> dict[str, list[str]]:
    """Reasons (of events, none) by event type."""
    warehouse = Warehouse(spark, str(tables))
    kept = warehouse.read(c.EVENTS).select(c.EVENT_TYPE, F.lit(None).cast("string").alias(c.REASON))
    found: dict[str, list[str]] = {}
    for kind, reason in kept.unionByName(warehouse.read(c.REJECTED_EVENTS).select(c.EVENT_TYPE, c.REASON)).collect():
        found.setdefault(kind, []).append(reason)
    return found


@pytest.fixture(scope="module")
def night(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict]]:
    """A night on a log that holds all odd rows: its folder and its result."""
    folder = tmp_path_factory.mktemp("night")
    # Rows of one item and user are copies, unless their types differ: all copies have one.
    kinds = [f"row {c.ITEM_ID if row.get(c.ITEM_ID) == 'twice' else number}" for number, (_, row, _) in enumerate(ROWS)]
    odd = [event("odd", "i1", "shop", NOON) | {c.EVENT_TYPE: kind} | row for kind, (_, row, _) in zip(kinds, ROWS, strict=True)]
    odd += [event("bot", f"i{n % 10}", "shop", NOON + timedelta(seconds=n)) | {c.EVENT_TYPE: "bot"} for n in range(1001)]
    busy = [event("busy", f"i{n % 10}", "bulk", NOON - timedelta(seconds=10 * n)) for n in range(100_000)]
    write_log(folder / "log.parquet", *odd, *busy, event("loner", "only", "lonely", NOON))
    texts = [event("odd", "i1", "shop", time) | {c.EVENT_TYPE: f"text {n}"} for n, (_, time, _) in enumerate(TEXTS)]
    texts += [event("odd", "i1", "shop", "2024-01-10 06:00:00") | {c.EVENT_TYPE: kind} for kind in (None, "", LONG)]
    texts += [event("odd", "twice", "shop", "2024-01-10 12:00:00") | {c.EVENT_TYPE: f"row {c.ITEM_ID}"}]
    (folder / "log.json").write_text("".join(f"{json.dumps(row)}\n" for row in texts))
    more = '[[sources]]\npath = "ROOT/log.json"\nformat = "json"\n'
    code, line = metarec(folder, "nightly", BASIC + more + TINY_RUN.removeprefix(BASIC))
    assert code == 0
    yield folder, line
    shutil.rmtree(folder)


def test_rows(spark: SparkSession, night: tuple[Path, dict]):
    folder, line = night
    found = outcomes(spark, folder / "warehouse")
    expected = [
        (f"row {number}", given, reason) for number, (given, row, reason) in enumerate(ROWS) if row.get(c.ITEM_ID) != "twice"
    ]
    expected += [(f"text {number}", given, reason) for number, (given, _, reason) in enumerate(TEXTS)]
    assert {kind: found.pop(kind) for kind, _, _ in expected} == {kind: [reason] for kind, _, reason in expected}
    assert sorted(map(str, found.pop(f"row {c.ITEM_ID}"))) == ["None", "duplicate", "duplicate", "duplicate"]
    assert (found.pop("bot"), set(found.pop("view"))) == (["bot"] * 1001, {None})
    assert sorted(map(str, found)) == ["", "None", "x" * 1025] and {reason for of in found.values() for reason in of} == {
        "unknown_type"
    }
    told = expected + [("", given, reason) for given, row, reason in ROWS if row.get(c.ITEM_ID) == "twice"]
    told += [("", "its copy in another source", "duplicate"), ("", "1001 events of a user in an hour", "bot")]
    told += [("", f"an event type that is {what}", "unknown_type") for what in ("missing", "blank", "a million characters")]
    for _, given, reason in told:
        stored = "an event" if reason is None else "in `rejected_events`"
        noted("Rows", given, 0, "nothing" if reason is None else f"counted as `{reason}`", stored, folder)
    extracted = line["steps"]["extract"]
    assert extracted["rows_in"] == extracted["rows_out"] + sum(extracted["rejected"].values())


def test_odd_ids_pass_through_the_night_as_they_are(spark: SparkSession, night: tuple[Path, dict]):
    folder, _ = night
    lists = Warehouse(spark, f"{folder}/warehouse").read(c.RECOMMENDATIONS)
    users = {row[0] for row in lists.select(c.USER_ID).distinct().collect()}
    assert {row.get(c.USER_ID, "odd") for _, row, reason in ROWS if reason is None} <= users
    assert lists.where(F.col(c.DOMAIN) == "../up/ds=2024-01-01").count() == 1
    assert {path.name for path in folder.iterdir()} == {"log.parquet", "log.json", "metarec.toml", "warehouse"}


CONFIGURATIONS = [
    ("an unknown key", "[train]\nproceses = 2", "did you mean 'processes'"),
    ("an unknown section", "[trian]\nprocesses = 2", "did you mean 'train'"),
    ("a value of a wrong type", '[train]\nprocesses = "two"', "expected a valid integer"),
    ("true where a number belongs", "[features]\nmax_events_per_hour = true", "expected a valid integer"),
    ("a value out of range", "[quality]\nmax_rejected_share = 1.5", "less than or equal to 1"),
    ("a number that is not a number", "[quality]\nmin_events_share = nan", "quality.min_events_share"),
    ("a choice that is none", '[split]\nprotocol = "loo"', "'none', 'leave_one_out' or 'temporal'"),
    ("settings that contradict each other", "[model]\ndim = 10\nheads = 4", "does not divide"),
    ("one source with two platforms", '[[sources]]\npath = "/l"\ndomain = "a"\ncolumns = { domain = "b" }', "give one of them"),
    ("an unknown format", '[[sources]]\npath = "/l"\nformat = "orc"', "expected 'parquet', 'json', 'csv' or 'delta'"),
    ("an unknown column to map", '[[sources]]\npath = "/l"\ncolumns = { userid = "u" }', "no column 'userid' to map"),
    ("no TOML", "[train", "not valid TOML"),
]


@pytest.mark.parametrize(("given", "text", "said"), CONFIGURATIONS, ids=[of[0] for of in CONFIGURATIONS])
def test_a_configuration(tmp_path: Path, given: str, text: str, said: str):
    code, line = metarec(tmp_path, "extract", f'warehouse = "ROOT/warehouse"\n{text}\n')
    assert code == 2 and said in line["error"] and not (tmp_path / "warehouse").exists()
    noted("Configuration", given, code, line["error"], "nothing", tmp_path)


def test_a_warehouse_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").touch()
    code, line = metarec(tmp_path, "extract", BASIC.replace("ROOT/warehouse", "ROOT/file/warehouse"))
    assert code == 2 and "cannot be written" in line["error"]
    noted("Configuration", "a warehouse inside a file", code, line["error"], "nothing", tmp_path)


def edited(**values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return edit


def flipped(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([last ^ 1]))


def test_a_user_with_100_000_events_and_a_platform_with_one(spark: SparkSession, night: tuple[Path, dict]):
    warehouse, extreme = Warehouse(spark, f"{night[0]}/warehouse"), F.col(c.DOMAIN).isin("bulk", "lonely")
    measured = warehouse.read(c.METRICS).where(extreme & F.expr("split = 'test' AND segment IN ('first_time', 'repeat')"))
    targets = {tuple(row) for row in measured.select(c.DOMAIN, "segment", "users").collect()}
    assert targets == {("bulk", "repeat", 1), ("lonely", "first_time", 1)}
    lists = warehouse.read(c.RECOMMENDATIONS).where(extreme).select(c.USER_ID, c.DOMAIN, F.size("items"))
    # The one comes back to the same items, so the list may hold them; all that the other could be shown was seen.
    assert {tuple(row) for row in lists.collect()} == {("busy", "bulk", 5), ("loner", "lonely", 0)}


MODELS = [
    ("the model's folder is gone", shutil.rmtree, "not a whole model"),
    ("no manifest", lambda folder: (folder / "manifest.json").unlink(), "not a whole model"),
    ("a manifest that is not JSON", lambda folder: (folder / "manifest.json").write_text("{"), "is not JSON"),
    ("a format of another version", edited(format=99), "this version reads"),
    ("a file missing", lambda folder: (folder / "items.parquet").unlink(), "items.parquet has sha256 nothing"),
    ("one bit of the weights changed", flipped, "model.safetensors has sha256"),
    ("another vocabulary: table `items` was made anew", edited(items_table="another"), "its indexes mean other items"),
]


@pytest.mark.parametrize(("given", "harm", "said"), MODELS, ids=[of[0] for of in MODELS])
def test_a_model(spark: SparkSession, night: tuple[Path, dict], given: str, harm: Callable[[Path], None], said: str):
    folder, line = night
    warehouse = Warehouse(spark, f"{folder}/warehouse")
    before, model = warehouse.version(c.RECOMMENDATIONS), folder / "warehouse" / "_models" / line["model_id"]
    shutil.copytree(model, folder / "kept")
    harm(model)
    code, line = metarec(folder, "recommend", TINY_RUN)
    shutil.rmtree(model, ignore_errors=True)
    (folder / "kept").rename(model)
    assert code == 3 and said in line["error"] and warehouse.version(c.RECOMMENDATIONS) == before
    noted("Models", given, code, line["error"], "the lists of before", folder)


def test_the_document_shows_what_was_seen():
    parts = [
        "# Bad input\n\nWhat a user sees, and what is stored, as `tests/test_bad_input.py` saw it. `…` is a folder, a checksum or an id.\n"
    ]
    for part, rows in SEEN.items():
        table = [f"| {given} | {code} | {said} | {stored} |" for given, code, said, stored in rows]
        parts.append("\n".join([f"\n## {part}\n", "| given | exit code | said | stored |", "|---|---|---|---|", *table, ""]))
    seen = "\n".join(parts)
    assert sum(map(len, SEEN.values())) >= 40, "run the whole file"
    if os.environ.get("WRITE_DOCUMENTS"):
        DOCUMENT.write_text(seen, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == seen, "it has changed: look why, then run with WRITE_DOCUMENTS=1"
