"""Logs on standard error, one line a record, as text or as JSON: with the job, its day and step and, in JSON, the run's id."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

log = logging.getLogger("metarec_spark")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
NUMBERS = ("seconds", "rows_in", "rows_out")
"""What a record may carry beside its message: ``extra`` of a logging call."""

Form = Literal["text", "json"]


@dataclass
class About:
    """What the lines of this process are about."""

    form: Form = "text"
    job: str | None = None
    ds: date | None = None
    run_id: str | None = None
    """None before a run has begun."""
    step: str | None = None
    """Step of the job that is being done, or that failed."""


about = About()


@contextmanager
def step(name: str) -> Iterator[None]:
    """What is logged in the block is of that step; after an error, ``about`` still names it."""
    about.step = name
    yield
    about.step = None


def start(job: str, ds: date | None) -> None:
    """Log what this process does from here on as that job's."""
    about.job, about.ds, about.run_id, about.step = job, ds, None, None
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if about.form == "json" else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)


def plain(text: str) -> str:
    """A text whose control characters are spelled out: names of users, items and platforms come from outside."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        where = " ".join(str(part) for part in (about.job, about.ds, about.step) if part)
        return f"{self.formatTime(record)} {record.levelname} {where}: {plain(record.message)}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = {"time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"), "level": record.levelname}
        said |= {"run_id": about.run_id, "job": about.job, "ds": about.ds and about.ds.isoformat(), "step": about.step}
        said |= {"message": record.getMessage()} | {name: getattr(record, name) for name in NUMBERS if hasattr(record, name)}
        return json.dumps(said | ({"traceback": self.formatException(record.exc_info)} if record.exc_info else {}))
