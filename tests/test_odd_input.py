"""Logs as the world writes them: what becomes of each, as the table in docs/odd-input.md.

``WRITE_DOCUMENTS=1 python -m pytest -n0 tests/test_odd_input.py`` writes the page anew. What needs processes of its own is shown by
the test that the page names.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from features.deliveries import Log, row
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from sources.log_files import IDS, NOON, ROW, csv_text, parquet, read, text
from test_bad_input import BASIC, metarec

from metarec_spark.config.inputs import ItemSource
from metarec_spark.errors import DataError
from metarec_spark.features.content import content
from metarec_spark.sources.items import open_information
from metarec_spark.training.state import resume

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "odd-input.md"
HEAD = """\
# Odd input

Logs as they occur, and what becomes of them. Every line was seen by a test. `…` is a folder. [Bad input](bad-input.md) has what no
job can read.
"""
SEEN: dict[str, str] = {}


def shown(spark: SparkSession, path: Path | str, *columns: str, **settings: object) -> str:
    """Rows of a source as the product reads them, or what it says."""
    try:
        rows = read(spark, path, *columns or IDS, **settings)
    except DataError as error:
        return f"exit 3: {error}"
    return "; ".join(
        " ".join("nothing" if value is None else value for value in row if value is not None or columns) for row in rows
    )


# Files. Each function writes some and returns what was read.


def columns_in_another_order(spark: SparkSession, at: Path) -> str:
    text(at / "a.csv", "user_id,item_id,domain,event_time\nu1,i1,shop,2024-01-10\n")
    text(at / "b.csv", "item_id,event_time,user_id,domain\ni2,2024-01-10,u2,shop\n")
    return shown(spark, at, format="csv")


def quotes(spark: SparkSession, at: Path) -> str:
    text(
        at / "a.csv",
        'user_id,item_id,domain,event_time\nu1,"27"" monitor, 4K",shop,2024-01-10\nu2,"two\nlines",shop,2024-01-10\n',
    )
    return shown(spark, at, format="csv").replace("\n", "⏎")


def late_keys(spark: SparkSession, at: Path) -> str:
    plain = {name: ROW[name] for name in ("user_id", "item_id", "domain", "event_time")}
    text(at / "a.json", "\n".join(json.dumps(one) for one in [*[plain] * 1000, plain | {"event_type": "buy", "rating": 2}]))
    rows = read(spark, at, "event_type", "value", format="json", columns={"value": "rating"})
    with_both = [one for one in rows if one[0] == "buy" and one[1]]
    return f"{len(rows)} rows, {len(with_both)} with type and value: {' '.join(with_both[0])}"


def types_that_drift(spark: SparkSession, at: Path) -> str:
    values = {"int32": 101, "int64": 101, "string": "101", "double": 101.0, "uint64": 101, "decimal": Decimal(101)}
    types = {"int32": pa.int32(), "uint64": pa.uint64(), "decimal": pa.decimal128(38, 0)}
    for name, value in values.items():
        kinds = {"user_id": types[name]} if name in types else None
        parquet(at / f"{name}.parquet", ROW | {"user_id": value, "item_id": name}, types=kinds)
    return shown(spark, at)


def folders(spark: SparkSession, at: Path) -> str:
    for number, folder in enumerate(("ds=2024-01-10", "ds=2024-01-11/hour=7", "2024/01/12")):
        parquet(at / folder / "part.parquet", ROW | {"user_id": f"u{number}"})
    return shown(spark, at)


def days_in_folder_names(spark: SparkSession, at: Path) -> str:
    for number, day in enumerate(("20240110", "2024_01_10", "2024-01-10", "yesterday")):
        parquet(at / f"dt={day}" / "part.parquet", ROW | {"user_id": f"u{number}"})
    return shown(spark, at, "user_id", "arrival", "problem", day_column="dt")


def numbers_in_folder_names(spark: SparkSession, at: Path) -> str:
    for name in ("007", "7"):
        text(at / f"shop={name}" / "a.csv", csv_text({key: ROW[key] for key in ("user_id", "item_id", "event_time")}))
    return shown(spark, at, "domain", format="csv", columns={"domain": "shop"})


def nanoseconds(spark: SparkSession, at: Path) -> str:
    parquet(at / "a.parquet", ROW | {"event_time": datetime(2024, 1, 10, 12)}, types={"event_time": pa.timestamp("ns")})
    return shown(spark, at, "user_id", "event_time")


def latin_1(spark: SparkSession, at: Path) -> str:
    text(at / "a.csv", csv_text(ROW | {"user_id": "Müller"}, ROW | {"user_id": "Möller"}, separator=";"), "latin-1")
    return shown(spark, at, format="csv")


def utf_16(spark: SparkSession, at: Path) -> str:
    text(at / "a.csv", csv_text(ROW, separator="\t"), "utf-16")
    return shown(spark, at, format="csv")


def json_array(spark: SparkSession, at: Path) -> str:
    text(at / "a.json", json.dumps([ROW, ROW | {"user_id": "u2"}], indent=2))
    return shown(spark, at, format="json")


def nested(spark: SparkSession, at: Path) -> str:
    text(at / "a.json", json.dumps({"user": {"id": 7}, "item_id": "i", "domain": "shop", "event_time": NOON}))
    return shown(spark, at, format="json", columns={"user_id": "user.id"})


def names_in_capitals(spark: SparkSession, at: Path) -> str:
    text(at / "a.json", json.dumps({"User_ID": "u1", "item_id": "i", "domain": "shop", "event_time": NOON}))
    return shown(spark, at, format="json")


def lists_of_lists(spark: SparkSession, at: Path) -> str:
    text(at / "a.json", json.dumps({"item_id": "1", "attributes": [["Clothing", "Shoes"], ["Red"]]}))
    (one,) = open_information(spark, [ItemSource(path=str(at), format="json", domain="shop")]).collect()
    return ", ".join(one.attributes)


def genres(spark: SparkSession, at: Path) -> str:
    text(at / "a.csv", "item_id,attributes\n1,Action|Comedy\n")
    (one,) = open_information(spark, [ItemSource(path=str(at), format="csv", domain="shop", attribute_separator="|")]).collect()
    return ", ".join(one.attributes)


# Times


def a_day_as_a_number(spark: SparkSession, at: Path) -> str:
    parquet(at / "a.parquet", ROW | {"event_time": 20240110})
    return shown(spark, at, "event_time")


def two_units(spark: SparkSession, at: Path) -> str:
    for number, time in enumerate((1_704_888_000_000, 1_704_888_000)):
        parquet(at / f"{number}.parquet", ROW | {"event_time": time})
    return f"as set: {shown(spark, at, 'event_time', time_unit='ms')}; without a unit: {shown(spark, at, 'event_time')}"


FORMS = ("1704888000.5", "2024-01-10 12:00:00,5", "1704888000500000000", "Wed, 10 Jan 2024 12:00:00 GMT", "20240110T120000Z")


def forms_of_time(spark: SparkSession, at: Path) -> str:
    for number, form in enumerate(FORMS):
        parquet(at / f"{number}.parquet", ROW | {"user_id": str(number), "event_time": form})
    return "; ".join(time or "nothing" for _, time in read(spark, at, "user_id", "event_time"))


def local_times(spark: SparkSession, at: Path) -> str:
    parquet(at / "a.parquet", ROW | {"event_time": "10.01.2024 04:00"})
    return shown(spark, at, "event_time", time_format="%d.%m.%Y %H:%M", time_zone="America/Los_Angeles")


# Names


def catalogue_ids(spark: SparkSession, at: Path) -> str:
    parquet(at / "items.parquet", {"item_id": 101.0, "title": "A"}, {"item_id": 102.0, "title": "B"})
    rows = open_information(spark, [ItemSource(path=str(at / "items.parquet"), domain="shop")]).collect()
    return " ".join(sorted(one.item_id for one in rows))


def words_for_nothing(spark: SparkSession, at: Path) -> str:
    words = ("NULL", "\\N", "None", "nan", "Nullarbor")
    parquet(at / "a.parquet", *[ROW | {"user_id": word} for word in words])
    return shown(spark, at, "user_id")


def two_item_files(spark: SparkSession, at: Path) -> str:
    parquet(at / "titles.parquet", {"item_id": "1", "title": "AT&amp;T"})
    parquet(at / "vectors.parquet", {"item_id": "1", "content": [0.5, 1.0]})
    sources = [ItemSource(path=str(at / f"{name}.parquet"), domain="shop") for name in ("titles", "vectors")]
    (one,) = open_information(spark, sources).collect()
    return f"{one.title}, {one.content}"


def titles_without_blanks(spark: SparkSession, at: Path) -> str:
    parquet(at / "a.parquet", {"item_id": "1", "title": "辣椒酱小瓶"}, {"item_id": "2", "title": "辣椒酱大瓶"})
    information = open_information(spark, [ItemSource(path=str(at), domain="shop")])
    items = information.select("domain", "item_id", F.col("item_id").cast("int").alias("item_idx"))
    small, large = (set(one.tokens) for one in content(items, information).collect())
    return " ".join(word.removeprefix("w:") for word in sorted(small & large))


# What operators see


def days_out_of_range(spark: SparkSession, at: Path) -> str:
    said = []
    for ds in ("0001-01-01", "9999-12-31"):
        code, line = metarec(at, "extract", BASIC, ds=ds)
        said.append(f"{ds}: exit {code}: {line['error']}")
    return re.sub(r"today, [\d-]+", "today", "; ".join(said))


def a_cut_log_of_a_table(spark: SparkSession, at: Path) -> str:
    log = Log(spark, at)
    log.write("1", [row("u", "i", 1)])
    log.ingest(1)
    newest = max((at / "warehouse" / "events" / "_delta_log").glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:40])
    newest.with_name(f".{newest.name}.crc").unlink(missing_ok=True)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    log.write("2", [row("u", "i", 2)])
    config = BASIC.replace("ROOT/log.parquet", str(log.source()))
    code, line = metarec(at, "extract", config)
    return f"exit {code}: {line['error']}"


def a_cut_checkpoint(spark: SparkSession, at: Path) -> str:
    said = []
    for name, data in (("empty", b""), ("cut", b"\x10\0\0\0\0\0\0\0{")):
        (at / name).write_bytes(data)
        state, _ = resume(at / name, torch.nn.Linear(1, 1), None, None)
        said.append(f"{name}: training starts from epoch {state.epoch}")
    return "; ".join(said)


ENTRIES: dict[str, list[tuple[str, Callable[[SparkSession, Path], str], str]]] = {
    "Files": [
        ("CSV files whose columns are in another order", columns_in_another_order, "u1 i1; u2 i2"),
        ("quotes within quotes, and a line end in a field", quotes, 'u1 27" monitor, 4K; u2 two⏎lines'),
        ("JSON keys that first appear in line 1,001", late_keys, "1001 rows, 1 with type and value: buy 2.0"),
        ("user ids that are numbers, text and decimals by turns", types_that_drift, "101 decimal; 101 double; 101 int32; 101 int64; 101 string; 101 uint64"),
        ("day folders, day and hour folders, year/month/day", folders, "u0 i1; u1 i1; u2 i1"),
        ("days in folder names (`day_column`)", days_in_folder_names, "u0 2024-01-10 nothing; u1 2024-01-10 nothing; u2 2024-01-10 nothing; u3 nothing bad_day"),
        ("numbers in folder names", numbers_in_folder_names, "007; 7"),
        ("nanoseconds, as pandas writes them", nanoseconds, f"u1 {NOON}"),
        ("semicolons and Latin-1", latin_1, "Möller i1; Müller i1"),
        ("tabs and UTF-16", utf_16, "u1 i1"),
        ("a JSON array over many lines", json_array, "u1 i1; u2 i1"),
        ("nested names, `columns = { user_id = \"user.id\" }`", nested, "7 i"),
        ("names in capitals", names_in_capitals, "u1 i"),
        ("attributes as lists of lists", lists_of_lists, "Clothing, Shoes, Red"),
        ("genres in one text, `attribute_separator`", genres, "Action, Comedy"),
    ],
    "Times": [
        ("a day as the number 20240110", a_day_as_a_number, "2024-01-10 00:00:00"),
        ("`time_unit = \"ms\"`, and half of the rows in seconds", two_units, f"as set: {NOON}; nothing; without a unit: {NOON}; {NOON}"),
        (", ".join(FORMS), forms_of_time, f"{NOON}.5; {NOON}.5; {NOON}.5; {NOON}; {NOON}"),
        ("a format and a zone of the source", local_times, NOON),
    ],
    "Names": [
        ("ids 101.0 in the catalogue, 101 in the log", catalogue_ids, "101 102"),
        ("`NULL`, `\\N`, `None`, `nan` for nobody", words_for_nothing, "Nullarbor; nothing; nothing; nothing; nothing"),
        ("titles with entities in one file, vectors in another", two_item_files, "AT&T, [0.5, 1.0]"),
        ("what 辣椒酱小瓶 and 辣椒酱大瓶 share", titles_without_blanks, "椒酱 辣椒"),
    ],
    "Operators": [
        ("`--ds` out of range", days_out_of_range, "exit 2"),
        ("a commit in a table's log that was cut", a_cut_log_of_a_table, "exit 3"),
        ("a checkpoint that was cut", a_cut_checkpoint, "empty: training starts from epoch 0; cut: training starts from epoch 0"),
    ],
}  # fmt: skip
CASES = [(given, *entry) for entries in ENTRIES.values() for given, *entry in entries]

# Shown by a test of its own: what is given, what happens, and the test.
ELSEWHERE = [
    ("a file that is overwritten every night", "adds its days; rows that are read again are no copies", "features/test_ingestion.py::test_a_file_that_is_overwritten_every_night_adds_its_days"),
    ("raw days that were cleaned up, and `extract` by hand", "their events stay", "features/test_ingestion.py::test_days_whose_files_were_cleaned_up_stay_and_nothing_new_writes_nothing"),
    ("`extract` with other event types between two nights", "the next night reads the files again by its own rules", "features/test_ingestion.py::test_other_cleaning_rules_between_two_nights_lose_nothing_for_good"),
    ("a file of last June, a day delivered twice", "read whatever its days are; copies are `duplicate`", "features/test_ingestion.py::test_a_delivery_of_any_day_is_read_and_copies_of_stored_events_are_copies"),
    ("files or sources that change places", "a moved file's rows are copies; exit 2 if sources swap their names", "features/test_ingestion.py::test_a_new_source_and_a_moved_file_are_read_and_sources_cannot_change_places"),
    ("folders by local day, times in UTC", "rows up to 14 hours ahead of their folder wait for their day", "features/test_ingestion.py::test_rows_a_zone_ahead_of_their_folder_wait_for_their_day"),
    ("a day of which nearly all rows have no item", "exit 3; later nights leave the day out and say so, until it is mended or accepted", "features/test_gates.py::test_a_stopped_day_stays_out_until_it_is_accepted"),
    ("rows of a platform that never had an event", "rejected with their reason, told, and stop nobody", "features/test_gates.py::test_a_platform_that_anybody_can_make_up_stops_nobody"),
    ("a catalogue whose ids are not the log's", "told, with an id of each; exit 3 below `quality.min_known_share`", "features/test_items.py::test_a_catalogue_whose_ids_are_not_those_of_the_log_is_told_or_refused"),
    ("a block list that matches less than it should", "told with its numbers; exit 3 below `quality.min_known_share`", "scoring/test_rules.py::test_a_flag_that_cannot_be_read_keeps_the_item_out_and_a_list_that_fits_nothing_is_told"),
    ("a CSV of people to forget, quoted or padded", "read as the log is; exit 3 and the line of anybody who is not found", "operations/test_people.py::test_a_line_is_read_as_it_stands_without_its_quotes_and_as_a_whole_number"),
    ("a platform that is renamed", "`[platforms] alias` joins the names in logs, items and lists", "sources/test_lists.py::test_logs_items_and_lists_name_a_platform_by_one_name"),
    ("an item that is a forgotten person's id", "told; `--items` removes it too", "operations/test_forget.py::test_an_item_with_an_erased_persons_id_is_told_and_removed_on_request"),
    ("SIGTERM, Ctrl-C", "one line, exit 143 or 130, a row in `runs`", "faults/test_interrupted.py::test_a_signal_ends_a_job_in_order"),
    ("the JVM is killed", "one line, exit 1, a row in `runs`", "faults/test_interrupted.py::test_the_end_of_the_jvm_is_told_in_one_line"),
    ("a scheduled command fails", "its own result is mailed, no earlier one", "test_deploy.py::test_a_scheduled_command_that_failed_mails_its_own_result_and_no_earlier_one"),
    ("a jar or a `json.py` in the working directory", "not run", "runtime/test_session.py::test_no_jar_and_no_module_of_the_working_directory_is_run"),
    ("secrets in `[spark.conf]`", "in no command line, error or log line", "runtime/test_session.py::test_secrets_reach_spark_and_stand_in_no_command_line"),
    ("`umask 077`", "files and scratch folders are the user's alone", "runtime/test_session.py::test_files_have_the_permissions_of_the_umask_and_scratch_is_this_users_alone"),
    ("a reader who locks the warehouse", "cannot: the lock has mode 0600", "warehouse/test_lock.py::test_readers_cannot_take_the_lock"),
    ("another run that does not end", "the wait ends with exit 5", "warehouse/test_lock.py::test_a_wait_ends_with_code_5_and_nothing_is_done"),
    ("a commit of another program in `events`", "read like any other; no run stops", "features/test_ingestion.py::test_a_commit_of_another_program_stops_nothing"),
    ("`events` restored to an older version", "the same files are read again", "features/test_ingestion.py::test_events_that_were_restored_by_hand_are_read_again"),
    ("a copy of a warehouse", "scores with its own models", "test_registry.py::test_a_copied_warehouse_scores_with_its_own_models"),
    ("a wrong value in `[spark.conf]` or `--set`", "the error does not repeat it", "config/test_loader.py::test_an_error_about_spark_settings_does_not_repeat_their_values"),
    ("a user id without a name or a home", "exit 2, and what to set", "runtime/test_session.py::test_a_user_without_a_home_is_told_what_to_set"),
    ("escape sequences in an exception", "spelled out in the log", "runtime/test_logs.py::test_an_exceptions_text_is_escaped_too"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "read_or_said", "expected"), CASES, ids=[case[0][:50] for case in CASES])
def test_what_becomes_of(
    spark: SparkSession, tmp_path: Path, given: str, read_or_said: Callable[[SparkSession, Path], str], expected: str
):
    found = read_or_said(spark, tmp_path)
    SEEN[given] = re.sub(rf"(file:(//)?)?{tmp_path}(/warehouse)?", "…", found).replace("|", "\\|")
    assert expected.replace("|", "\\|") in SEEN[given]


@pytest.mark.parametrize("test", [test for _, _, test in ELSEWHERE])
def test_a_test_that_the_page_names_exists(test: str):
    file, _, name = test.partition("::")
    assert name in {
        node.name for node in ast.parse((ROOT / "tests" / file).read_text()).body if isinstance(node, ast.FunctionDef)
    }


def test_the_page_shows_what_was_seen():
    assert len(SEEN) == len(CASES), "run the whole file"
    parts = [HEAD]
    for part, entries in ENTRIES.items():
        rows = [f"| {given} | {SEEN[given]} |" for given, *_ in entries]
        parts.append("\n".join([f"## {part}\n", "| given | read, kept or said |", "|---|---|", *rows, ""]))
    rows = [f"| {given} | {what} | `tests/{test}` |" for given, what, test in ELSEWHERE]
    parts.append("\n".join(["## Shown by tests of their own\n", "| given | what happens | test |", "|---|---|---|", *rows, ""]))
    page = "\n".join(parts)
    if os.environ.get("WRITE_DOCUMENTS"):
        DOCUMENT.write_text(page, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == page, "it has changed: look why, then run with WRITE_DOCUMENTS=1"
