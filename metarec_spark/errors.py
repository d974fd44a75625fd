"""Errors that a user can act on: what, where, got what, what to do next.

Each class carries the exit code that every command ends with.
"""

import re
from itertools import dropwhile, islice

_LONGEST_CAUSE = 200
_MACHINE = re.compile("[Pp]ermission denied|No space left|Read-only file system|Disk quota exceeded")


class MetarecError(Exception):
    """Any failure that the product explains itself."""

    exit_code = 1


class ConfigError(MetarecError):
    """The configuration, the command line or the machine is not usable as given."""

    exit_code = 2


class DataError(MetarecError):
    """A source, a table or a contract does not hold what it should."""

    exit_code = 3


class ModelRejected(MetarecError):
    """No model was approved."""

    exit_code = 4


class Busy(MetarecError):
    """Another run has the warehouse's lock, and kept it for longer than this run may wait. Nothing was done."""

    exit_code = 5


class Conflict(MetarecError):
    """Another run or program wrote to a table while this run did."""


class TrainingError(MetarecError):
    """A training rank failed, or the rows that ranks read do not add up."""


def damaged_table(name: str, cause: str) -> str:
    """Say that a table's log cannot be read, and what to do."""
    return (
        f"table {name} cannot be read: {cause[:_LONGEST_CAUSE]}. If a file of its folder _delta_log is missing or cut, restore "
        "the table's folder from a backup; or move it away, and the command that writes the table makes it anew (events: "
        "`metarec extract --history`, if the sources still hold the whole log)"
    )


def unreadable(error: Exception) -> str | None:
    """Explain a file that Spark could not read; None if the error is about something else: a full disk, say, is no damage."""
    text = str(error)
    if by_task := re.search(rf"^{DataError.__module__}\.{DataError.__qualname__}: (.+)$", text, re.MULTILINE):
        return by_task[1]
    if not _MACHINE.search(text) and (log := re.search(r"/(\w+)/_delta_log/([\w.]+)", text)):
        return damaged_table(log[1], f"{log[2]}: {first_line(error)}")
    file = re.search(r"\[FAILED_READ_FILE[.\w]*\] Encountered error while reading file (\S+?)\.?\s", text)
    if file is None:
        return None
    causes = re.findall(r"^Caused by: (?:[\w$]+\.)*([\w$]+(?:: .+)?)$", text, re.MULTILINE)
    why = f": {causes[-1][:_LONGEST_CAUSE]}" if causes else ""
    return f"{file[1]} cannot be read{why}. Is it whole, and of the format that the configuration names? Mend it or take it away"


def first_line(error: BaseException) -> str:
    """The first line of an error. If Py4J carries a JVM's error, the line is of that one, which says why a call failed; if the
    error is a Python worker's traceback, it is the line at its end."""
    lines = str(getattr(error, "java_exception", error)).strip().splitlines() or [""]
    traceback = dropwhile(lambda line: not line.startswith("Traceback"), lines)
    return next((line for line in islice(traceback, 1, None) if line and not line[0].isspace()), lines[0])
