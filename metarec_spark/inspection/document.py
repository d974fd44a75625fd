"""Write a configuration from what was found, each guess with its reason as a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from metarec_spark import columns as c
from metarec_spark.config.inputs import ItemSource, Source
from metarec_spark.inspection.guesses import plain
from metarec_spark.inspection.judged import Judged
from metarec_spark.inspection.layout import FileSet

_MUCH_REPEAT = 0.2
_SHARE_SHOWN = 0.01
_COMMON = (
    "events",
    "event",
    "log",
    "logs",
    "data",
    "items",
    "interactions",
    "ratings",
    "part",
    "tmp",
    "raw",
    "behavior",
    "behaviour",
)
"""Names of folders and files that say nothing of the platform."""


@dataclass(frozen=True)
class Entry:
    """One source of the configuration that is written."""

    file_set: FileSet
    source: Source | ItemSource
    notes: dict[str, str]
    """Key → why it has this value."""
    judged: Judged | None = None


def platform_of(path: str) -> str:
    """Return a platform's name from the folder or file that its log lies in."""
    parts = [part for part in re.split(r"/", path) if part and not re.search(r"[*?=]", part) and not part.endswith(":")]
    name = next(
        (part for part in reversed(parts) if re.sub(r"\d+", "", plain(part.split(".")[0])) not in _COMMON),
        parts[-1] if parts else "log",
    )
    return re.sub(r"[^a-z0-9]+", "-", name.split(".")[0].casefold()).strip("-") or "log"


def document(entries: list[Entry], warehouse: str, unknown: list[FileSet]) -> str:
    """Return the text of a configuration file."""
    lines = ["# Written by `metarec inspect`. Each comment says why a line is as it is: read them before the first night."]
    lines += [f"warehouse = {json.dumps(warehouse)}", ""]
    for entry in entries:
        lines += [*_source(entry), ""]
    for file_set in unknown:
        names = ", ".join(file_set.sample.names)
        lines += [f"# {file_set.path}: neither a log (user, item, time) nor a catalogue; its columns are {names}"]
    lines += list(_advice(entries))
    return "\n".join(lines).rstrip("\n") + "\n"


def _source(entry: Entry) -> Iterator[str]:
    file_set, source = entry.file_set, entry.source
    size = f"{file_set.files} files, {file_set.bytes / 1e6:,.1f} MB" if file_set.files else "a table"
    yield f"[[{'sources' if isinstance(source, Source) else 'items'}]]  # {size}"
    if entry.judged:
        yield f"# {_outcome(entry.judged)}"
    values = source.model_dump(exclude_defaults=True) | {"format": source.format}
    for key in ["path", "format", *(key for key in values if key not in ("path", "format"))]:
        note = entry.notes.get(key)
        yield f"{key} = {_toml(values[key])}" + (f"  # {note}" if note else "")
    yield from (f"# {note}" for key, note in entry.notes.items() if key not in values)


def _outcome(judged: Judged) -> str:
    first = f"the first {judged.rows:,} rows" if judged.cut else f"{judged.rows:,} rows"
    lost = ", ".join(f"{count:,} {reason}" for reason, count in judged.rejected.items())
    span = f" from {judged.first} to {judged.last}" if judged.first else ""
    return f"{first}: {judged.events:,} events{span}, {judged.users:,} users, {judged.items:,} items; rejected: {lost or 'none'}"


def _advice(entries: list[Entry]) -> Iterator[str]:
    logs = [entry.judged for entry in entries if entry.judged and entry.judged.events]
    events = sum(one.events for one in logs)
    repeats = sum(one.repeats * one.events for one in logs) / events if events else 0.0
    if events:
        yield f"# {repeats:.0%} of the events are of an item that their user had before."
    if repeats > _MUCH_REPEAT:
        yield "# Where people come back to the same things, lists may hold them: [recommend] exclude_seen = false"
    types = {name: count for one in logs for name, count in one.event_types.items()}
    if len(types) > 1:
        yield f"# Event types: {', '.join(types)}; to accept some of them only: [features] event_types = [...]"
        yield "# If lists are for some of them (purchases) and not for others (views), or if some are dislikes:"
        yield "# [features] context_types = { PLATFORM = [...] }, dislike_types = { PLATFORM = [...] }"
    for entry in entries:
        if isinstance(entry.source, Source) and (low := _low_ratings(entry.file_set)):
            platform = entry.source.domain or "PLATFORM"
            yield f"# {low:.0%} of the ratings that were looked at are 1 or 2 of 5. To learn nothing from them: [features]"
            yield f"# dislike_below = {{ {_key(platform)} = 3 }}"
    same = sum(one.one_time * one.events for one in logs) / events if events else 0.0
    if same > _SHARE_SHOWN:
        yield f"# {same:.0%} of the events have the same time as another of their user: their order is not known."


def _low_ratings(file_set: FileSet) -> float:
    """Return the share of values below 3, if the values look like ratings from 1 to 5; else 0."""
    texts = file_set.sample.values.get(file_set.columns.get(c.VALUE, ""), [])
    values = [float(text) for text in texts]
    ratings = len(set(values)) > 2 and all(0.5 <= value <= 5 and (2 * value).is_integer() for value in values)
    return sum(value < 3 for value in values) / len(values) if ratings else 0.0


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def quoted_columns(file_set: FileSet) -> dict[str, str]:
    """Return the columns that have another name in the file than ours."""
    spelled = {c.VALUE: (c.VALUE, "rating")}
    return {ours: name for ours, name in file_set.columns.items() if name.casefold() not in spelled.get(ours, (ours,))}
