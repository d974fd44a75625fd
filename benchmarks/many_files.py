"""Is every row of a log of many unlike files accounted for, source by source and file by file?

python benchmarks/many_files.py [--events 10000000] [--files 400] [--share 0.05] [--seed 0] [--out warehouse/many_files]

Three sources (CSV, JSON, Parquet) of files that differ in separator, encoding, compression, order and case of columns, late columns,
form of time and folder. A share of the rows is broken on purpose, in each of several ways as often; one row in a hundred is written
twice. What a file holds is counted while it is written, what became of it is read from ``ingested``, ``events`` and
``rejected_events``. Exit code 1: a row is missing, or was counted twice.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import processes
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from hostile_files import TEXT_FORMS

from metarec_spark.warehouse.storage import file_uri

FORMATS = ("csv", "json", "parquet")
START, DAYS, LAST_DAY = datetime(2024, 1, 1, tzinfo=UTC), 90, "2024-04-01"
BROKEN = {
    "null_user": ("user_id", ""),
    "null_item": ("item_id", None),
    "bad_time": ("event_time", "soon"),
    "long_id": ("item_id", "x" * 2000),
}
COPIES = 0.01
Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.05, help="share of the rows that is broken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("warehouse/many_files"))
    options = parser.parse_args()
    out = options.out.absolute()
    log, run = out / f"log-{options.events}-{options.files}-{options.share}-{options.seed}", out / "run"
    if not (log / "expected.json").exists():
        shutil.rmtree(log, ignore_errors=True)
        expected = {}
        for number in range(options.files):
            path, counts = _file(
                log, number, options.events // options.files, options.share, random.Random(f"{options.seed} {number}")
            )
            expected[path] = counts
        (log / "expected.json").write_text(json.dumps(expected))
    expected = json.loads((log / "expected.json").read_text())
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    sources = "".join(
        f'[[sources]]\npath = {json.dumps(file_uri(log / form))}\nformat = "{form}"\ndomain = "shop"\n' for form in FORMATS
    )
    config = run / "metarec.toml"
    config.write_text(f'warehouse = {json.dumps(file_uri(run / "tables"))}\n{sources}[spark]\nmaster = "local[2]"\n')
    ended = processes.run(["metarec", "extract", "--config", config, "--ds", LAST_DAY], run / "log")
    print(
        f"{ended.result['rows_in']:,} rows read, {ended.result['rows_out']:,} kept, {ended.seconds:.0f} s, peak {ended.peak:.1f} GB\n"
    )
    sys.exit(0 if reconciled(expected, run / "tables") else 1)


def _file(log: Path, number: int, rows: int, share: float, draw: random.Random) -> tuple[str, dict[str, int]]:
    """Write a file; its path below the log, and how many of its rows are broken in which way, copies or sound."""
    form, counts = FORMATS[number % 3], Counter[str]()
    names = ["user_id", "item_id", "event_time", *(name for name in ("event_type", "value") if draw.random() < 0.7)]
    draw.shuffle(names)
    folder = log / form / draw.choice(["", f"ds=2024-03-{1 + number % 30:02}", "2024/03", "a b", "[x]"])
    folder.mkdir(parents=True, exist_ok=True)
    records = _rows(number, rows, share, names, counts, draw)
    ending = draw.choice(["", "", ".gz"]) if form != "parquet" else ""
    path = folder / f"part {number}+é.{form}{ending}"
    if form == "parquet":
        _parquet(path, list(records), names, draw)
    else:
        time = TEXT_FORMS[draw.choice(["iso", "zulu", "compact", "mail", "log", "count 1000", "count 1000000", "fraction"])]
        text = [
            row | {"event_time": time.write(row["event_time"]) if isinstance(row["event_time"], datetime) else row["event_time"]}
            for row in records
        ]
        content = _csv(text, names, draw) if form == "csv" else _json(text, draw)
        data = content.encode(draw.choice(["utf-8", "utf-8-sig", "utf-16"]))
        path.write_bytes(gzip.compress(data, 1) if ending else data)
    return str(path.relative_to(log)), dict(counts)


def _rows(number: int, rows: int, share: float, names: list[str], counts: Counter[str], draw: random.Random) -> Iterator[Row]:
    """Rows of a file: no two files have an event in common."""
    ways, written = list(BROKEN), 0
    while written < rows:
        time = START + timedelta(seconds=draw.randrange(DAYS * 86_400), milliseconds=draw.randrange(1000))
        row: Row = {"user_id": f"u{draw.randrange(500_000)}", "item_id": f"{number} é{written}", "event_time": time}
        row |= {"event_type": draw.choice(["view", "buy"]), "value": draw.choice([None, 1, 2.5])}
        row = {name: row[name] for name in names}
        outcome = "kept"
        if draw.random() < share:
            outcome = draw.choice(ways)
            name, value = BROKEN[outcome]
            row[name] = value
        written += 1
        counts[outcome] += 1
        yield row
        if outcome == "kept" and written < rows and draw.random() < COPIES:
            written += 1
            counts["copies"] += 1
            yield row


def _csv(rows: list[Row], names: list[str], draw: random.Random) -> str:
    file = io.StringIO(newline="")
    quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(file, delimiter=draw.choice(",;\t|"), lineterminator=draw.choice(["\n", "\r\n"]), quoting=quoting)
    writer.writerow(["extra", *(name.upper() if draw.random() < 0.2 else name for name in names)])
    writer.writerows(['a "b"\nc', *("" if row[name] is None else row[name] for name in names)] for row in rows)
    return file.getvalue()


def _json(rows: list[Row], draw: random.Random) -> str:
    ascii_only = draw.random() < 0.5
    lines = [json.dumps(row | {"more": {"x": [1, "]}"]}}, ensure_ascii=ascii_only) for row in rows]
    return f"[{','.join(lines)}]" if draw.random() < 0.3 else "\n".join(lines)


def _parquet(path: Path, rows: list[Row], names: list[str], draw: random.Random) -> None:
    columns: dict[str, pa.Array] = {}
    for name in names:
        values = [row[name] for row in rows]
        if name == "event_time":
            kind = draw.choice([pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC"), pa.string()])
            values = [value if isinstance(value, datetime) else None for value in values]
            columns[name] = pa.array(values, pa.timestamp("us", "UTC"))
            columns[name] = pc.strftime(columns[name], "%Y-%m-%dT%H:%M:%S%z") if kind == pa.string() else columns[name].cast(kind)
        elif name == "value":
            columns[name] = pa.array(values, draw.choice([pa.float64(), pa.float32()]))
        else:
            text = pa.array(values, pa.string())
            columns[name] = draw.choice([text, text.cast(pa.large_string()), text.dictionary_encode()])
    pq.write_table(pa.table(columns | {"__index_level_0__": pa.array(range(len(rows)))}), path)


def reconciled(expected: dict[str, dict[str, int]], tables: Path) -> bool:
    """Print what each source's files hold and what became of it; whether both are the same, file by file."""
    ingested = DeltaTable(tables / "ingested").to_pyarrow_table().to_pylist()
    by_path = {f"{row['source'].partition(':')[2]}/{unquote(row['file'])}": row for row in ingested}
    events = _by_file(DeltaTable(tables / "events").to_pyarrow_table(columns=["source", "file"]))
    rejected = _by_file(DeltaTable(tables / "rejected_events").to_pyarrow_table(columns=["source", "file", "reason"]), "reason")
    print("| source | files | in the files | kept | rejected | copies | files that differ |\n|---|---|---|---|---|---|---|")
    whole = by_path.keys() == expected.keys()
    for form in FORMATS:
        total, differ = Counter[str](), 0
        for path, counts in ((path, counts) for path, counts in expected.items() if path.startswith(f"{form}/")):
            row, reasons = by_path.get(path, {}), {reason: counts.get(reason, 0) for reason in BROKEN}
            same = (row.get("rows"), row.get("events"), row.get("duplicates")) == (
                sum(counts.values()),
                counts["kept"],
                counts.get("copies", 0),
            )
            same &= events[path,] == counts["kept"] and reasons == {reason: rejected[path, reason] for reason in BROKEN}
            differ += not same
            total.update({"rows": sum(counts.values()), "kept": counts["kept"], "rejected": sum(reasons.values())})
            total["copies"] += counts.get("copies", 0)
            if not same and differ <= 3:
                print(f"{path}: {counts} written; found {row}, {events[path,]} events", file=sys.stderr)
        files = sum(path.startswith(f"{form}/") for path in expected)
        print(
            f"| {form} | {files} | {total['rows']:,} | {total['kept']:,} | {total['rejected']:,} | {total['copies']:,} | {differ} |"
        )
        whole &= not differ
    return whole


def _by_file(table: pa.Table, *more: str) -> Counter[tuple[str, ...]]:
    """Rows of each file, and of each reason in it."""
    rows = table.group_by(["source", "file", *more]).aggregate([([], "count_all")]).to_pylist()
    return Counter(
        {
            (f"{row['source'].partition(':')[2]}/{unquote(row['file'])}", *(row[name] for name in more)): row["count_all"]
            for row in rows
        }
    )


if __name__ == "__main__":
    main()
