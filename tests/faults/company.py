"""A small company: its log, items and block list, its configuration, and what its warehouse holds between two jobs."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import FAST
from faults.runs import METAREC, Run

from metarec_spark.warehouse.storage import file_uri

DAY = date(2024, 1, 10)
NEXT = DAY + timedelta(days=1)
USERS, ITEMS = 60, 12
THIN = "games"

_TOML = """\
warehouse = {warehouse}
[[sources]]
path = {log}
day_column = "ds"
[[items]]
path = {items}
[[block]]
path = {block}
[split]
protocol = "leave_one_out"
[features]
max_length = 8
[model]
dim = 16
dropout = 0.0
[train]
epochs = 6
learning_rate = 0.03
batch_tokens = 128
[adapt]
modes = ["cross_domain_heuristic", "frozen_encoder"]
training_events = 1000
seeds = 1
[recommend]
top_n = 5
[spark]
master = "local[2]"
[spark.conf]
"""


@dataclass(frozen=True)
class Work:
    """A job of a day, and the states of the warehouse before it and after it."""

    command: tuple[str, ...]
    ds: date
    before: str
    after: str

    def __str__(self) -> str:
        return f"{' '.join(self.command)} of the {self.ds:%d}th"


ADAPT = ("adapt", "--domain", THIN)
TWO_RANKS = ("train", "--set", "train.processes=2")
NIGHT = Work(("nightly",), DAY, "nothing", "night")
NEXT_NIGHT = Work(("nightly",), NEXT, "night", "next night")
WORKS = (
    Work(("extract",), DAY, "nothing", "extracted"),
    Work(("train",), DAY, "extracted", "trained"),
    Work(TWO_RANKS, DAY, "extracted", "trained by two"),
    Work(("evaluate",), DAY, "trained", "evaluated"),
    Work(("recommend",), DAY, "evaluated", "recommended"),
    NIGHT,
    Work(ADAPT, DAY, "recommended", "adapted"),
    Work(("extract",), NEXT, "recommended", "next extracted"),
    Work(("recommend",), NEXT, "next extracted", "next recommended"),
    NEXT_NIGHT,
    Work(("feedback",), NEXT, "next recommended", "told"),
    Work(("maintain",), NEXT, "told", "maintained"),
    Work(("forget", "--user", "u3"), NEXT, "maintained", "forgotten"),
)
SAME = {"night": "recommended", "next night": "next recommended"}
"""What a chain ends in is what its parts end in."""


class Company:
    """Everything of it lies in one folder; ``tables`` is its warehouse."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables, self.file = folder.absolute(), folder.absolute() / "tables", folder.absolute() / "company.toml"
        if not self.file.exists():
            _write_log(self.folder / "log")
            _write_items(self.folder)
            places = {name: json.dumps(file_uri(self.folder / path)) for name, path in _PLACES.items()}
            conf = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in FAST.items())
            self.file.write_text(_TOML.format(**places) + conf)

    def arguments(self, work: Work, *more: str) -> list[str]:
        """Of the ``metarec`` command that does it."""
        return [*work.command, "--config", str(self.file), "--ds", work.ds.isoformat(), *more]

    def start(self, work: Work, *more: str, **options: object) -> Run:
        """Start it as a process."""
        log = self.folder / "logs" / f"{time.time_ns()}-{work.command[0]}.log"
        return Run([*METAREC, *self.arguments(work, *more)], self.tables, log, **options)

    def keeps(self, state: str) -> bool:
        """Whether a state was kept."""
        return state == "nothing" or (self.folder / "states" / state).exists()

    def keep(self, state: str) -> None:
        """Keep the warehouse as it is now."""
        draft = self.folder / "states" / f".{state}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(self.tables, draft)
        draft.rename(draft.with_name(state))

    def put_back(self, state: str) -> None:
        """Make the warehouse what it was, in its place: the paths of models are absolute."""
        shutil.rmtree(self.tables, ignore_errors=True)
        if state != "nothing":
            shutil.copytree(self.folder / "states" / state, self.tables)


_PLACES = {"warehouse": "tables", "log": "log", "items": "items.parquet", "block": "block.parquet"}
Row = tuple[str | None, str, str, datetime]


def _event(user: str, domain: str, item: int, day: date, hour: int) -> Row:
    return user, domain, f"{domain}-{item % ITEMS}", datetime(day.year, day.month, day.day, hour)


def _write_log(folder: Path) -> None:
    """Walkers who take the next item of a domain a day; on the next day, some go on, and new ones and a new item come."""
    rows: list[Row] = []
    for user in range(USERS):
        steps = 3 + user % 4
        domains = ("books", *(["films"] if user % 2 == 0 else []), *([THIN] if user < 25 else []))
        for place, domain in enumerate(domains):
            days = [DAY - timedelta(days=steps - 1 - step) for step in range(steps)]
            rows += [_event(f"u{user}", domain, user + step, day, 10 + place) for step, day in enumerate(days)]
    rows += [rows[0], (None, "books", "books-1", datetime(2024, 1, 9, 9)), ("u1", "books", "", datetime(2024, 1, 9, 9))]
    rows += [_event(f"u{user}", "books", user + 3 + user % 4, NEXT, 10) for user in range(20)]
    rows += [_event("new", "films", item, NEXT, 8 + item) for item in range(3)]
    rows += [("u0", "films", "films-new", datetime(2024, 1, 11, 9))]
    late = ("u7", "books", "books-11", datetime(2024, 1, 9, 23))
    by_day: dict[date, list[Row]] = {NEXT: [late]}
    for row in rows:
        by_day.setdefault(row[3].date(), []).append(row)
    for day, of_day in by_day.items():
        to = folder / f"ds={day.isoformat()}"
        to.mkdir(parents=True)
        columns = dict(zip(("user_id", "domain", "item_id", "event_time"), zip(*of_day, strict=True), strict=True))
        types = [pa.string()] * 3 + [pa.timestamp("us", "UTC")]
        arrays = {name: pa.array(values, kind) for (name, values), kind in zip(columns.items(), types, strict=True)}
        pq.write_table(pa.table(arrays), to / "part.parquet")


def _write_items(folder: Path) -> None:
    ids = [(domain, f"{domain}-{item}") for domain in ("books", "films", THIN) for item in range(ITEMS)]
    domain, item = map(list, zip(*ids, strict=True))
    attributes = [[f"kind {place % 3}", of] for place, of in enumerate(domain)]
    titles = [f"The {name}" for name in item]
    table = pa.table({"domain": domain, "item_id": item, "title": titles, "attributes": attributes})
    pq.write_table(table, folder / _PLACES["items"])
    pq.write_table(pa.table({"domain": ["books"], "item_id": ["books-5"]}), folder / _PLACES["block"])
