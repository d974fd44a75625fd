"""forget: after it, the person is in no table, and stays out of what is read again."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from training.warehouses import DAY, NEXT, copied, event, job_at, rows_of, stages, write_log

from metarec_spark.errors import DataError
from metarec_spark.features.as_of import users_as_of
from metarec_spark.features.erased import hash_of
from metarec_spark.features.extract import extract
from metarec_spark.job import Job, Result
from metarec_spark.operations.feedback import collect
from metarec_spark.operations.forget import forget
from metarec_spark.operations.maintain import maintain
from metarec_spark.operations.people import people
from metarec_spark.scoring.recommend import recommend
from metarec_spark.warehouse.contracts import contract
from metarec_spark.warehouse.storage import local_path
from metarec_spark.warehouse.tables import Warehouse

LATER = NEXT + timedelta(days=1)
# The last one is the largest id of all: Delta's log names the smallest and the largest value of columns.
PEOPLE = ["u5", "'; DROP TABLE events; --", "../../x", 'O"Brien\\', " u6", "~🦊"]
WITH_USERS = ["events", "rejected_events", "user_sequences", "recommendations", "feedback"]


@dataclass(frozen=True)
class Forgotten:
    """A warehouse before and after its PEOPLE were forgotten."""

    spark: SparkSession
    folder: Path
    before: dict[str, list[tuple]]
    after: dict[str, list[tuple]]
    result: Result
    said: str

    def job(self, name: str = "forget", ds: date = LATER) -> Job:
        return job_at(self.spark, self.folder, name, ds)


def texts(value: object) -> Iterator[str]:
    """Every string in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts([*value.items()])
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from texts(part)


def of_people(rows: list[tuple]) -> list[tuple]:
    return [row for row in rows if set(PEOPLE) & set(texts(row))]


def tables(job: Job) -> dict[str, list[tuple]]:
    return {name: rows_of(job, name) for name in job.warehouse.names()}


def filled(folder: Path, spark) -> None:
    """Events, lists of two days and feedback, of the PEOPLE too; each of them has a row that was rejected."""
    rows = [event(person, "books", f"b{n}", NEXT, hour) for n, person in enumerate(PEOPLE) for hour in (8, 9)]
    write_log(folder / "log" / "3.parquet", [*rows, *[event(person, "books", None, NEXT) for person in PEOPLE]])
    write_log(folder / "log" / "4.parquet", [event(person, "films", "f1", LATER) for person in [*PEOPLE, "u1"]])
    for ds in (NEXT, LATER):
        extract(job_at(spark, folder, "extract", ds))
        recommend(job_at(spark, folder, "recommend", ds))
    collect(job_at(spark, folder, "feedback", LATER))


@pytest.fixture(scope="module")
def done(spark, tmp_path_factory) -> Forgotten:
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path_factory.mktemp("forget"))
    filled(folder, spark)
    job, said = job_at(spark, folder, "forget", LATER), []
    (local_path(job.warehouse.path("_training")) / "m" / "snapshot").mkdir(parents=True)
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("metarec_spark")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        before = tables(job)
        result = forget(job, people(PEOPLE, None))
        return Forgotten(spark, folder, before, tables(job), result, "\n".join(said))
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def test_the_people_were_in_every_table_that_has_users_and_are_in_none(done):
    assert sorted(name for name, rows in done.before.items() if of_people(rows)) == sorted(WITH_USERS)
    assert {name for name, rows in done.after.items() if of_people(rows)} == set()


def test_rows_of_others_are_as_they_were(done):
    for name, rows in done.before.items():
        assert done.after[name] == [row for row in rows if row not in of_people(rows)], name
    assert set(done.after) - set(done.before) == {"forgotten"}


def test_the_hash_alone_is_kept(done):
    assert done.after["forgotten"] == sorted((hash_of(person), LATER, None) for person in PEOPLE)


def test_the_result_counts_the_rows_of_each_table(done):
    found = done.result.details.tables
    assert {name: of.rows for name, of in found.items()} == {name: len(of_people(done.before[name])) for name in WITH_USERS}
    assert done.result.rows_in == len(PEOPLE) and done.result.rows_out == sum(of.rows for of in found.values())
    assert done.result.details.unknown == []


def test_the_result_says_which_versions_hold_them_and_until_when(done):
    warehouse, found = done.job().warehouse, done.result.details.tables
    first = datetime.now(UTC).date() + timedelta(days=31)
    for name, of in found.items():
        without = of.in_versions_before
        assert of_people([tuple(row) for row in warehouse.read(name, without - 1).collect()]), name
        assert not of_people([tuple(row) for row in warehouse.read(name, without).collect()]), name
        assert first - timedelta(days=1) <= date.fromisoformat(of.removed_from) <= first
    # The model that serves was trained on versions of these two with the people in it.
    assert {name for name, of in found.items() if of.pinned_by_model} == {"events", "user_sequences"}
    assert "train and evaluate again" in done.said and "`metarec maintain` removes these from" in done.said


def test_neither_log_nor_result_nor_a_tables_own_log_names_them(done):
    warehouse = local_path(done.job().warehouse.root)
    logs = [file.read_text() for file in warehouse.glob("*/_delta_log/*.json")]
    assert len(logs) > 20
    for place in (done.said, json.dumps(done.result.to_json(), ensure_ascii=False), *logs):
        assert not [person for person in PEOPLE if json.dumps(person, ensure_ascii=False)[1:-1] in place]
    assert all(f"user {hash_of(person)[:12]}: " in done.said for person in PEOPLE)


def test_an_unfinished_training_is_removed(done):
    assert not local_path(done.job().warehouse.path("_training")).exists()


def test_old_versions_give_them_to_no_training_and_no_evaluation(done):
    job = done.job("evaluate", DAY)
    (model,) = job.warehouse.read("models").collect()
    held = job.warehouse.read("user_sequences", model["table_versions"]["user_sequences"])
    assert not held.where("user_id = 'u5'").isEmpty()
    found = users_as_of(job, DAY, model["table_versions"], job.config.features)
    assert found.where("user_id = 'u5'").isEmpty() and found.count() == held.count() - 1


@pytest.fixture(scope="module")
def again(done, tmp_path_factory) -> tuple[Job, Result, Result]:
    """The whole log read again, and forgetting again."""
    folder = copied(done.folder, tmp_path_factory.mktemp("again"))
    read = extract(job_at(done.spark, folder, "extract", LATER), history=True)
    job = job_at(done.spark, folder, "forget", LATER)
    return job, read, forget(job, people(PEOPLE, None))


def test_the_whole_log_read_again_does_not_bring_them_back(done, again):
    job, read, _ = again
    assert not [name for name, rows in tables(job).items() if of_people(rows)]
    theirs = of_people(done.before["events"]) + of_people(done.before["rejected_events"])
    assert read.details.forgotten == len(theirs) == 29
    assert read.rows_in == read.rows_out + sum(read.details.rejected.values()) + len(theirs)
    for name in ("events", "rejected_events"):
        assert rows_of(job, name) == done.after[name]
    counts = Counter[str]()
    for row in job.warehouse.read("ingested").select("events", "forgotten").collect():
        counts.update(row.asDict())
    assert counts == {"forgotten": len(theirs), "events": len(done.after["events"])}


def test_counts_and_transitions_follow(again):
    job, _, _ = again
    of_items = {(row.domain, row.item_id): row.events for row in job.warehouse.read("items").collect() if row.events}
    of_events = job.warehouse.read("events").groupBy("domain", "item_id").count().collect()
    assert of_items == {(row[0], row[1]): row[2] for row in of_events}
    inputs = job.warehouse.last_commit("item_transitions", "extract").inputs
    assert inputs["user_sequences"] == job.warehouse.version("user_sequences")


def test_lists_of_others_stand_and_nobody_is_scored_for_it(done, again):
    job, _, _ = again
    before = rows_of(job, "recommendations")
    assert recommend(replace(job, name="recommend")).details.scored_users == 0
    assert rows_of(job, "recommendations") == before
    collect(replace(job, name="feedback"))
    assert rows_of(job, "feedback") == done.after["feedback"]


def test_forgetting_again_removes_nothing_and_still_says_what_is_left_to_do(done, again):
    _, _, second = again
    assert second.rows_out == 0 and len(second.details.unknown) == len(PEOPLE)
    assert second.details.tables == {name: replace(of, rows=0) for name, of in done.result.details.tables.items()}


def test_what_maintain_has_removed_is_gone_from_the_disk(again):
    """With a retention of nothing, as if its days had passed."""
    job, _, _ = again
    job.spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        for name in WITH_USERS:
            job.warehouse.vacuum(name, 0)
    finally:
        job.spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    for name in WITH_USERS:
        files = [file for file in local_path(job.warehouse.path(name)).rglob("*.parquet") if "_delta_log" not in file.parts]
        users = {user for file in files for user in pq.ParquetFile(file).read(["user_id"])["user_id"].to_pylist()}
        assert not users & set(PEOPLE) and (users or name == "rejected_events"), name


class Killed(Warehouse):
    """A warehouse whose process dies after its first deletion."""

    def delete(self, *given: object) -> None:
        if "events" in self.versions_written:
            raise KeyboardInterrupt
        super().delete(*given)


def test_a_run_that_was_killed_is_completed_by_the_next(spark, tmp_path, tmp_path_factory):
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)
    job = job_at(spark, folder, "forget", NEXT)
    with pytest.raises(KeyboardInterrupt):
        forget(replace(job, warehouse=Killed(spark, job.warehouse.root)), people(["u3"], None))
    assert [row[0] for row in rows_of(job, "forgotten")] == [hash_of("u3")]
    assert "u3" in {row[0] for row in rows_of(job, "user_sequences")}
    extract(job_at(spark, folder, "extract", NEXT))
    assert {name: of.rows for name, of in forget(job, people(["u3"], None)).details.tables.items()}["events"] == 0
    assert not [name for name, rows in tables(job).items() if "u3" in set(texts(rows))]


def test_someone_unknown_stops_the_run_and_nobody_is_forgotten(spark, tmp_path, tmp_path_factory):
    job = job_at(spark, copied(stages(spark, tmp_path_factory).extracted, tmp_path), "forget")
    file = tmp_path / "ids.txt"
    file.write_text("u3\nnobody\nu4\nno one\n")
    before = tables(job)
    with pytest.raises(DataError, match="2 of 4 people are in no table: line 2, line 4. Nobody was forgotten.*--missing-ok"):
        forget(job, people([], file))
    assert tables(job) == before and not job.warehouse.exists("forgotten")


def test_someone_unknown_is_told_and_kept_out_if_that_is_asked_for(spark, tmp_path, caplog):
    job = job_at(spark, tmp_path, "forget")
    with caplog.at_level("INFO", "metarec_spark"):
        result = forget(job, people(["nobody", "nobody"], None), missing_ok=True)
    assert (result.rows_in, result.rows_out, result.details.unknown) == (1, 0, [hash_of("nobody")[:12]])
    assert caplog.messages == [f"user {hash_of('nobody')[:12]}: no row in any table; an id counts as the tables hold it"]
    write_log(tmp_path / "log" / "1.parquet", [event(user, "books", "b0", DAY) for user in ("nobody", "u1")])
    assert extract(job_at(spark, tmp_path, "extract")).details.forgotten == 1
    maintain(job_at(spark, tmp_path, "maintain"))


def test_ids_are_found_as_the_log_holds_them(spark, tmp_path, tmp_path_factory):
    """From a CSV with header and quotes, with white space, or with the decimals of a number."""
    folder = copied(stages(spark, tmp_path_factory).extracted, tmp_path)
    write_log(folder / "log" / "3.parquet", [event(user, "books", "b0", NEXT) for user in ("7", "a,b")])
    extract(job_at(spark, folder, "extract", NEXT))
    file = tmp_path / "ids.csv"
    file.write_text('name,user_id\n"Lovelace, Ada",u3\nx, u4 \ny,"a,b"\nz,7.0\n')
    result = forget(job_at(spark, folder, "forget", NEXT), people([], file))
    assert result.rows_in == 4 and result.details.unknown == []
    assert {row[0] for row in rows_of(job_at(spark, folder, "forget"), "events")}.isdisjoint({"u3", "u4", "a,b", "7"})


def test_an_item_with_an_erased_persons_id_is_told_and_removed_on_request(spark, tmp_path, tmp_path_factory):
    """A platform on which people follow people: u5 is a user, and an item that others have events with."""
    folder = copied(stages(spark, tmp_path_factory).evaluated, tmp_path)
    follows = [event(f"u{n}", "books", "u5", NEXT) for n in (1, 2)]
    write_log(folder / "log" / "3.parquet", follows)

    def at(name: str, ds: date = NEXT) -> Job:
        return job_at(spark, folder, name, ds, recommend={"top_n": 50, "users": "all"})

    extract(at("extract"))
    recommend(at("recommend"))
    index = {row.item_id: row.item_idx for row in at("tables").warehouse.read("items").collect()}["u5"]
    told = forget(at("forget"), people(["u5"], None))
    assert told.details.as_items.keys() >= {"events", "items"}
    done = forget(at("forget"), people(["u5"], None), items=True)
    assert done.details.as_items == told.details.as_items
    extract(at("extract"), history=True)
    recommend(at("recommend"))
    assert not [name for name, rows in tables(at("tables")).items() if "u5" in set(texts(rows))]
    items = {row.item_idx: row for row in at("tables").warehouse.read("items").collect()}
    assert items[index].item_id == f"forgotten:{hash_of('u5')}" and items[index].events == 0
    assert len(items) == index + 1, "no index is given twice"
    assert not [1 for row in rows_of(at("tables"), "recommendations") if "forgotten:" in json.dumps(row, default=str)]
    assert forget(at("forget"), people(["u5"], None), items=True).details.as_items == {}


def test_the_tables_with_users_are_found_by_their_contracts():
    assert all("user_id" in contract(name).schema.names for name in WITH_USERS)
