"""Good and bad files of a behaviour log."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from metarec_spark import columns as c

NOON = datetime(2024, 1, 10, 12)
SCHEMA = pa.schema(
    [(name, pa.string()) for name in (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE)]
    + [(c.EVENT_TIME, pa.timestamp("us", "UTC")), (c.VALUE, pa.float64())]
)
JSON = b'{"user_id": "u1", "item_id": "i1", "domain": "shop", "event_time": "2024-01-10"}\n'
GOOD = "u1,i1,shop,2024-01-10 12:00:00"


def event(user: str, item: str, domain: str, time: datetime | str) -> dict[str, object]:
    return {c.USER_ID: user, c.ITEM_ID: item, c.DOMAIN: domain, c.EVENT_TYPE: "view", c.EVENT_TIME: time, c.VALUE: 1.0}


def write_log(path: Path, *extra: dict) -> None:
    """A log of users who each step through eight of shop's ten items, an hour apart, so that no item is popular; and ``extra``."""
    steps = [(user, step) for user in range(10) for step in range(8)]
    rows = [event(f"u{user}", f"i{(user - step) % 10}", "shop", NOON - timedelta(hours=step)) for user, step in steps]
    pq.write_table(pa.Table.from_pylist([*rows, *extra], SCHEMA), path)


def csv(*lines: str) -> bytes:
    return ("\n".join(("user_id,item_id,domain,event_time", *lines)) + "\n").encode()


def parquet(*, change: Callable[[bytes], bytes] = bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_log(path)
        path.write_bytes(change(path.read_bytes()))

    return write


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


def renamed(path: Path) -> None:
    pq.write_table(SCHEMA.empty_table().rename_columns(["userid", *SCHEMA.names[1:]]), path)


def bomb(path: Path) -> None:
    """150 kB that hold a line of 150 MB."""
    with gzip.open(path, "wb") as file:
        file.write(csv(GOOD))
        file.write(b"0" * 150_000_000 + b",i1,shop,2024-01-10 12:00:00\n")
