"""Logs on standard error, one line a record, as text or as JSON: with the job, its day and step and, in JSON, the run's id."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from logging import LogRecord
from types import TracebackType
from typing import Literal

log = logging.getLogger("metarec_spark")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
NUMBERS = ("seconds", "rows_in", "rows_out")
"""What a record may carry beside its message: ``extra`` of a logging call."""

Form = Literal["text", "json"]
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


@dataclass
class LogContext:
    """What the log lines of this process carry beside their message. Nothing but the log reads it."""

    form: Form = "text"
    job: str | None = None
    ds: date | None = None
    run_id: str | None = None
    """None before a run begins."""
    step: str | None = None
    """Step of the job that runs, or that failed."""
    secrets: set[str] = field(default_factory=set)
    """Texts that no line may show."""


context = LogContext()


def start(job: str, ds: date | None) -> None:
    """Log what this process does from here on under that job's name."""
    context.job, context.ds, context.run_id, context.step = job, ds, None, None
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if context.form == "json" else _Text())
    handler.addFilter(_no_trace_of_py4j)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)


def start_run(run_id: str) -> None:
    """Log what follows under that run."""
    context.run_id, context.step = run_id, None


@contextmanager
def step(name: str) -> Iterator[None]:
    """Log what happens in the block under that step; if the block fails, its error is logged under the step too."""
    context.step = name
    yield
    context.step = None


def hide(secrets: Iterable[str]) -> None:
    """Show ``***`` in place of these texts from here on."""
    context.secrets |= set(filter(None, secrets))


def redacted(text: str) -> str:
    """A text without the secrets that :func:`hide` was given."""
    for secret in sorted(context.secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def plain(text: str) -> str:
    """A text whose control characters are escaped: names of users, items and platforms come from outside."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _no_trace_of_py4j(record: LogRecord) -> bool:
    """Py4J logs a traceback for each call to a JVM that has died; the job says it once."""
    return "py4j" not in record.pathname


class _Text(logging.Formatter):
    def formatMessage(self, record: LogRecord) -> str:
        where = " ".join(str(part) for part in (context.job, context.ds, context.step) if part)
        return redacted(f"{self.formatTime(record)} {record.levelname} {where}: {plain(record.message)}")

    def formatException(self, ei: ExceptionInfo) -> str:
        return redacted("\n".join(plain(line) for line in super().formatException(ei).split("\n")))


class _Json(logging.Formatter):
    def format(self, record: LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        ds = context.ds.isoformat() if context.ds else None
        line: dict[str, object] = {"time": time, "level": record.levelname, "run_id": context.run_id}
        line |= {"job": context.job, "ds": ds, "step": context.step, "message": redacted(record.getMessage())}
        line |= {name: getattr(record, name) for name in NUMBERS if hasattr(record, name)}
        return json.dumps(line | ({"traceback": redacted(self.formatException(record.exc_info))} if record.exc_info else {}))
