"""inspect: files → what they are, what a night would make of them, and a configuration that runs as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarec_spark import columns as c
from metarec_spark.config.inputs import ItemSource, Source
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.inspection.document import Entry, document, platform_of, quoted_columns
from metarec_spark.inspection.guesses import TimeForms, guess_more, time_forms
from metarec_spark.inspection.judged import Judged, judged
from metarec_spark.inspection.layout import FileSet, find_sources
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.runtime.logs import plain

_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")
_MANY = 0.2


@dataclass(frozen=True)
class InspectDetails(Details):
    """What inspect file_set."""

    config: str
    """File that was written."""
    logs: int
    catalogues: int
    rejected: dict[str, int]
    """Reason → rows of all logs."""


def inspect(job: Job, paths: list[str], out: Path, *, warehouse: str) -> Result:
    """Look at files, print ten judged rows of each log, and write a configuration.

    Parameters
    ----------
    paths
        Files, folders, globs or Delta tables, on any file system that Spark reads.
    out
        File to write; must not be there yet.
    warehouse
        What the configuration names as the warehouse.

    Raises
    ------
    ConfigError
        If ``out`` is there.
    DataError
        If no log is among the files, a file cannot be read, or the times of a log have two readings.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already; name another file with --out, or move it away")
    file_sets = [one for path in paths for one in find_sources(job.spark, path)]
    logs = [_log_entry(one) for one in file_sets if one.role == "log"]
    unknown = [one for one in file_sets if one.role == "unknown"]
    if not logs:
        raise DataError(f"no log among {', '.join(paths)}: {_why_none(unknown)}")
    logs = [replace(entry, judged=judged(job.spark, entry.source, job.config.features)) for entry in logs]  # type: ignore[arg-type]
    catalogues = [_item_entry(one, logs) for one in file_sets if one.role == "catalogue"]
    for one in unknown:
        log.warning("%s is left out: neither a log nor a catalogue; its columns are %s", one.path, ", ".join(one.sample.names))
    out.write_text(document([*logs, *catalogues], warehouse, unknown), encoding="utf-8")
    _show([*logs, *catalogues], out)
    outcomes = [entry.judged for entry in logs if entry.judged]
    rejected: dict[str, int] = {}
    for reason, count in (pair for outcome in outcomes for pair in outcome.rejected.items()):
        rejected[reason] = rejected.get(reason, 0) + count
    details = InspectDetails(str(out), len(logs), len(catalogues), rejected)
    rows_in, rows_out = sum(outcome.rows for outcome in outcomes), sum(outcome.events for outcome in outcomes)
    return Result(rows_in, rows_out, details=details)


def _why_none(unknown: list[FileSet]) -> str:
    if not unknown:
        return "catalogues alone were found"
    lacking = [name for name in (c.USER_ID, c.ITEM_ID, c.EVENT_TIME) if name not in unknown[0].columns]
    return (
        f"{unknown[0].path} has the columns {', '.join(unknown[0].sample.names)}; none is known as {' or '.join(lacking)}. "
        f'Write a configuration by hand, with columns = {{ {lacking[0]} = "…" }}; docs/your-log.md shows one'
    )


def _log_entry(file_set: FileSet) -> Entry:
    sample, notes = file_set.sample, {}
    values: dict[str, object] = {"path": file_set.path, "format": file_set.format}
    if c.DOMAIN not in file_set.columns:
        values["domain"] = platform_of(file_set.path)
        notes["domain"] = "no column names a platform: called after the path"
    columns = quoted_columns(file_set)
    if columns:
        values["columns"] = columns
        notes["columns"] = "; ".join(_example(ours, name, file_set) for ours, name in columns.items())
    times = sample.values[file_set.columns[c.EVENT_TIME]]
    values |= _time_format(file_set, time_forms(times), times, notes)
    days = [name for name, texts in sample.values.items() if _is_day_folder(name, texts, file_set)]
    if days:
        values["day_column"] = days[0]
        notes["day_column"] = "folders of the days on which rows arrived"
    return Entry(file_set, Source.model_validate(values), notes)


def _time_format(file_set: FileSet, forms: TimeForms, times: list[str], notes: dict[str, str]) -> dict[str, object]:
    if forms.read:
        if not any(re.search(r"\d{9,}|[+-]\d\d:?\d\d|Z", text) for text in times):
            notes["time_zone"] = f"times such as {times[0]!r} name no zone: UTC is meant, unless time_zone says another"
        return {}
    if len(forms.formats) > 1:
        raise DataError(
            f"{file_set.path}: times such as {times[0]!r} can be read as {' or '.join(forms.formats)}, and no value tells which. "
            f'Write time_format = "{forms.formats[0]}" (or the other) into a configuration by hand'
        )
    notes["time_format"] = f"{times[0]!r} has no other reading among the values that were looked at"
    notes["time_zone"] = "these times name no zone: UTC is meant, unless time_zone says another"
    return {"time_format": forms.formats[0]}


def _is_day_folder(name: str, texts: list[str], file_set: FileSet) -> bool:
    return name in file_set.sample.folders and bool(texts) and all(_DAY.fullmatch(text) for text in texts)


def _example(ours: str, name: str, file_set: FileSet) -> str:
    values = file_set.sample.values.get(name, [])
    return (
        f"{name} is {ours}: {len(set(values)):,} different values in {len(values):,}, such as {values[0][:40]!r}"
        if values
        else name
    )


def _item_entry(file_set: FileSet, logs: list[Entry]) -> Entry:
    values: dict[str, object] = {"path": file_set.path, "format": file_set.format}
    notes: dict[str, str] = {}
    if c.DOMAIN not in file_set.columns:
        values["domain"] = _platform_with_items(file_set, logs)
        notes["domain"] = "the platform whose items it names"
    sample, named = file_set.sample, file_set.columns.get(c.ATTRIBUTES, "")
    texts = [text for text in sample.values.get(named, []) if not text.startswith("[")]
    separator = next((sign for sign in "|;," if sum(sign in text for text in texts) > _MANY * len(texts)), None)
    if texts and named.casefold() != c.ATTRIBUTES and not separator:  # each is one attribute
        file_set = replace(file_set, columns={ours: name for ours, name in file_set.columns.items() if ours != c.ATTRIBUTES})
    elif texts:
        values["attribute_separator"] = separator or "|"
        notes["attribute_separator"] = f"attributes such as {texts[0][:40]!r}"
    columns = quoted_columns(file_set)
    if columns:
        values["columns"] = columns
    free = [name for name in sample.names if name not in file_set.columns.values()]
    for key, names in zip(("attribute_columns", "number_columns"), guess_more(free, sample.values), strict=True):
        if names:
            values[key], notes[key] = names, f"such as {', '.join(repr(sample.values[name][0][:20]) for name in names)}"
    return Entry(file_set, ItemSource.model_validate(values), notes)


def _platform_with_items(file_set: FileSet, logs: list[Entry]) -> str:
    """Return the platform of the log that has most of a catalogue's items."""
    ids = set(file_set.sample.values[file_set.columns[c.ITEM_ID]])
    best = max(logs, key=lambda entry: len(ids & set(entry.file_set.sample.values[entry.file_set.columns[c.ITEM_ID]])))
    if best.source.domain:
        return best.source.domain
    return next(iter(best.judged.platforms), "log") if best.judged else "log"


def _show(entries: list[Entry], out: Path) -> None:
    console = Console(width=None if Console().is_terminal else 140)
    for entry in entries:
        if entry.judged:
            console.print(_table(entry, entry.judged))
    console.print(f"Wrote {out}: read its comments, then run")
    last = max((entry.judged.last for entry in entries if entry.judged and entry.judged.last), default=None)
    console.print(f"  metarec nightly --config {out} --ds {last or 'YYYY-MM-DD'}")


def _table(entry: Entry, outcome: Judged) -> Table:
    lost = sum(outcome.rejected.values())
    title = f"{entry.file_set.path}: {outcome.events:,} of {outcome.rows:,} rows become events, {lost:,} are rejected"
    table = Table("outcome", c.USER_ID, c.ITEM_ID, "platform", c.EVENT_TYPE, "time (UTC)", c.VALUE, title=plain(title))
    for row in outcome.examples:
        cells = [
            row[c.REASON] or "event",
            *(row[name] for name in (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE)),
        ]
        table.add_row(*(Text("" if cell is None else plain(str(cell))) for cell in cells))
    return table
