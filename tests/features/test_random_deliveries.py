"""Random histories of deliveries end in the tables that a careful person would make of them.

DELIVERIES in the environment says how many histories are tried, and DELIVERIES_FROM the first seed.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from features.deliveries import CLOCK, LAST_JUNE, Log, Reader, Row, row
from pyspark.sql import SparkSession

from metarec_spark.features.ingestion import ingest
from metarec_spark.warehouse.tables import Warehouse

FIRST, COUNT = int(os.environ.get("DELIVERIES_FROM", "0")), int(os.environ.get("DELIVERIES", "2"))
RULES = {"features": {"max_events_per_hour": 3, "event_types": ["click"]}, "quality": {"max_lost_share": 1.0}}
MODES = (("added",), ("complete",), ("added", "complete"))


class Killed(Warehouse):
    """A warehouse whose process dies before one of its writes."""

    left = 0

    def _before_write(self) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1

    def replace_days(self, *given: object, **more: object) -> None:
        self._before_write()
        super().replace_days(*given, **more)

    def append(self, *given: object, **more: object) -> None:
        self._before_write()
        super().append(*given, **more)

    def merge(self, *given: object, **more: object) -> None:
        self._before_write()
        super().merge(*given, **more)


class World:
    """Files of a log, with operations that people and machines do to them."""

    def __init__(self, log: Log, draw: Random) -> None:
        self.log, self.draw = log, draw
        self.files: dict[tuple[int, str], tuple[int, list[Row]]] = {}
        self.names = iter(range(1000))

    def rows(self, day: int) -> list[Row]:
        """Rows around a day: few users, items and hours, so that copies and bots come about; some broken, some of other days."""
        draw, rows = self.draw, []
        for _ in range(draw.randint(1, 8)):
            of_day = draw.choices((day, max(1, day - 1), day + 1, LAST_JUNE), (0.6, 0.2, 0.15, 0.05))[0]
            one = row(
                f"u{draw.randint(0, 2)}", f"i{draw.randint(0, 3)}", of_day, draw.randint(0, 1), value=draw.choice((None, 1.0))
            )
            one = draw.choices(
                (one, one._replace(item=None), one._replace(kind="odd"), one._replace(time="soon")), (20, 1, 1, 1)
            )[0]
            rows += [one] * draw.choice((1, 1, 1, 2))
        return rows

    def write(self, source: int, name: str, rows: list[Row]) -> None:
        self.log.write(name, rows, source)
        self.files[source, name] = next(CLOCK), rows

    def change(self, day: int) -> None:
        """One change of the log."""
        draw, source = self.draw, self.draw.randrange(len(self.log.deliveries))
        mine = [name for of, name in self.files if of == source]
        kind = draw.choice(("new", "new", "new", "overwrite", "grow", "repeat", "remove", "move", "touch")) if mine else "new"
        name = draw.choice(mine) if mine else ""
        rows = self.files[source, name][1] if mine else []
        if kind == "new":
            self.write(source, f"{draw.choice(('', 'sub/', 'a b/'))}{next(self.names)}", self.rows(day))
        elif kind == "overwrite":
            self.write(source, name, [*draw.sample(rows, len(rows) // 2), *self.rows(day)])
        elif kind == "grow":
            self.write(source, name, [*rows, *self.rows(day)])
        elif kind == "repeat":
            self.write(source, f"{next(self.names)}", draw.sample(rows, draw.randint(1, len(rows))))
        elif kind == "touch":
            self.write(source, name, rows)
        else:
            if kind == "move":
                to = f"{next(self.names)}"
                shutil.move(self.log.file(name, source), self.log.file(to, source))
                self.files[source, to] = next(CLOCK), rows
            else:
                self.log.file(name, source).unlink()
            del self.files[source, name]


def without_file(rows: Counter) -> Counter:
    """Rows without their file: which of equal copies is the event depends on which came first."""
    counts: Counter = Counter()
    for (source, _, *rest), number in rows.items():
        counts[source, *rest] += number
    return counts


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_random_history_ends_in_the_tables_of_a_careful_reader(spark: SparkSession, tmp_path: Path, seed: int):
    draw = Random(seed)
    log = Log(spark, tmp_path, *MODES[seed % len(MODES)], **RULES)
    world = World(log, draw)
    reader = Reader(3, ("click",), tuple(mode == "complete" for mode in log.deliveries))
    world.write(0, "first", [row("u0", "i0", 1), *world.rows(1)])
    for source in range(1, len(log.deliveries)):
        world.write(source, "first", world.rows(1))
    for night in range(1, 6):
        for _ in range(draw.randint(0, 3)):
            world.change(night)
        ds = draw.choice((night, night, night, night + 1, max(1, night - 1)))
        again, name = draw.random() < 0.1, draw.choice(("extract", "nightly"))
        if draw.random() < 0.2 and night > 1:
            job = log.job(ds, name, Killed)
            job.warehouse.left = draw.randint(0, 4)
            try:
                ingest(job, history=again)
            except KeyboardInterrupt:
                pass
            else:
                reader.night(world.files, log.job(ds).ds, again=again)
        log.ingest(ds, name, history=again)
        reader.night(world.files, log.job(ds).ds, again=again)
    paths = {key: f"{key[1]}.parquet" for key in reader.notebook}
    expected = reader.tables(paths, ("0:parquet", "1:parquet"))
    for table, rows in zip(("events", "rejected_events"), zip(log.tables(), expected, strict=True), strict=True):
        given, wanted = (without_file(part) for part in rows)
        assert (table, given - wanted, wanted - given) == (table, {}, {})
    log.assert_consistent()
