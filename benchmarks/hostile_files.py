"""Write logs as the world writes them: what a seed decides on, file by file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
from hostile_oracle import EPOCH, Written

from metarec_spark.config.inputs import Source

ZONES = ["UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata"]
TEXTS = [
    "a",
    "b c",
    "  x ",
    "007",
    "é",
    "Zoë",
    "ß",
    '27" x',
    "a,b",
    "a;b",
    "a|b",
    "a\tb",
    "it's",
    "\\",
    "l1\nl2",
    '"',
    "1.10",
    "x.0",
]
WORDS = ["NULL", "\\N", "None", "nan", "", "  ", "N/A"]
NAMES = {"user_id": "uid", "item_id": "sku", "event_time": "ts", "event_type": "kind", "value": "stars"}


@dataclass(frozen=True)
class Form:
    """A way to write a time."""

    write: Callable[[datetime], object]
    read: Callable[[object], datetime]
    local: bool = False
    """Whether it is a clock's time of the log's zone."""


def _count(per_second: int) -> Form:
    def write(time: datetime) -> int:
        return (time - EPOCH) // timedelta(microseconds=1) * per_second // 10**6

    return Form(write, _by_size)


def _by_size(count: object) -> datetime:
    """Read a count as whoever looks at it does: of the units, by the one that gives a year of today."""
    number = Decimal(str(count))
    per_second = next(10**power for power in (0, 3, 6, 9) if number < 10 ** (11 + power))
    return EPOCH + timedelta(microseconds=int(number * 10**6 / per_second))


def _pattern(pattern: str, *, local: bool) -> Form:
    def parsed(text: object) -> datetime:
        return datetime.strptime(str(text), pattern)

    return Form(lambda time: time.strftime(pattern), parsed, local)


TEXT_FORMS = {
    "iso": Form(lambda time: time.isoformat(), lambda text: datetime.fromisoformat(str(text))),
    "zulu": Form(
        lambda t: t.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        lambda x: datetime.strptime(str(x), "%Y-%m-%dT%H:%M:%S.%f%z"),
    ),
    "comma": Form(
        lambda t: t.strftime("%Y-%m-%d %H:%M:%S,%f"), lambda x: datetime.strptime(str(x), "%Y-%m-%d %H:%M:%S,%f"), True
    ),
    "naive": _pattern("%Y-%m-%d %H:%M:%S", local=True),
    "minutes": _pattern("%Y/%m/%d %H:%M", local=True),
    "day": _pattern("%Y-%m-%d", local=True),
    "compact day": _pattern("%Y%m%d", local=True),
    "compact": _pattern("%Y%m%dT%H%M%S%z", local=False),
    "digits": _pattern("%Y%m%d%H%M%S", local=True),
    "mail": _pattern("%a, %d %b %Y %H:%M:%S %z", local=False),
    "log": _pattern("%d/%b/%Y:%H:%M:%S %z", local=False),
    "halves": _pattern("%b %d, %Y %I:%M:%S %p", local=True),
    "ctime": _pattern("%a %b %d %H:%M:%S %Y", local=True),
    **{f"count {per_second}": _count(per_second) for per_second in (1, 10**3, 10**6, 10**9)},
    "fraction": Form(
        lambda time: f"{(time - EPOCH) // timedelta(microseconds=1) / Decimal(10**6):f}",
        _by_size,
    ),
}


def _either(form: Form) -> Callable[[object], datetime | None]:
    """Read a time; None for what the form does not take."""

    def reader(value: object) -> datetime | None:
        try:
            return form.read(value)
        except (ValueError, ArithmeticError):
            return None

    return reader


class HostileLog:
    """A log that a seed decides on."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder / f"log{seed}"
        self.format = self.random.choice(["csv", "csv", "json", "parquet"])
        self.zone = self.random.choice(ZONES)
        self.numeric = self.random.random() < 0.5
        self.mapping = {ours: name for ours, name in NAMES.items() if self.random.random() < 0.3}
        if self.format != "csv" and "user_id" in self.mapping and self.random.random() < 0.5:
            self.mapping["user_id"] = "user.id"
        self.source = Source(path=str(self.folder), format=self.format, domain="shop", columns=self.mapping, time_zone=self.zone)
        count = self.random.randint(1, 4)
        # A mapped column must be in one file at least.
        self.files = [self._file(i, every_column=i == 0) for i in range(count)]

    def _id(self) -> object:
        if self.random.random() < 0.04:
            return None
        return self.random.randint(1, 30) if self.numeric else self.random.choice(TEXTS) + str(self.random.randint(1, 3))

    def _rows(self, names: Sequence[str]) -> list[dict[str, object]]:
        rows = []
        for _ in range(self.random.randint(0, 12)):
            time = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(
                seconds=self.random.randint(0, 366 * 86400), microseconds=self.random.randint(0, 999_999)
            )
            time = self.random.choice([time, time, time, time, time, datetime(1970, 1, 20, 17, 34, tzinfo=UTC)])
            row = {"user_id": self._id(), "item_id": self._id(), "event_time": time}
            row |= {"event_type": self.random.choice(["view", "buy", None]), "value": self.random.choice([None, 1, 2.5, -3])}
            rows.append({name: row[name] for name in names})
        return rows

    def _file(self, number: int, *, every_column: bool) -> Written:
        names = ["user_id", "item_id", "event_time"]
        names += [name for name in ("event_type", "value") if every_column or self.random.random() < 0.6]
        self.random.shuffle(names)
        folder = self.folder / self.random.choice(["", "ds=2024-01-10", "ds=2024-01-10/hour=07", "2024/01/10", "a b", "[x]"])
        folder.mkdir(parents=True, exist_ok=True)
        own = {name: self.mapping.get(name, name) for name in names}
        rows = self._rows(names)
        if self.format == "parquet":
            return self._parquet(folder / f"part {number}+é.parquet", own, rows)
        form = TEXT_FORMS[self.random.choice(list(TEXT_FORMS))]
        text = [{**row, "event_time": self._time(form, row["event_time"])} for row in rows]
        path = folder / f"part {number}.{self.format}{self.random.choice(['', '', '.gz', '.bz2'])}"
        write = self._csv if self.format == "csv" else self._json
        return write(path, own, text, _either(form))

    def _time(self, form: Form, time: object) -> object:
        assert isinstance(time, datetime)
        if self.random.random() < 0.03:
            return self.random.choice(["", "soon", "01/02/2024", "0000-00-00", None])
        return form.write(time.astimezone(ZoneInfo(self.zone)) if form.local or self.random.random() < 0.5 else time)

    def _csv(
        self, path: Path, own: dict[str, str], rows: list[dict[str, object]], time: Callable[[object], datetime | None]
    ) -> Written:
        header = [self._name(name) for name in own.values()]
        for extra in range(self.random.randint(0, 2)):
            header.insert(self.random.randint(0, len(header)), f"extra{extra}")
        separator = self.random.choice(",;\t|")
        file = io.StringIO(newline="")
        end = self.random.choice(["\n", "\r\n"])
        quoting = self.random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
        writer.writerow(header)
        by_name = {self._lower(name): ours for ours, name in own.items()}
        broken = []
        for row in rows:
            fields = [self._field(row[by_name[self._lower(name)]]) if self._lower(name) in by_name else "x" for name in header]
            if self.random.random() < 0.05:
                fields = self.random.choice([fields[:-1], [*fields, "more"]])
            writer.writerow(fields)
            if self.random.random() < 0.03 and end == "\n":
                broken.append(
                    self.random.choice([f'u"{separator}"x"y', f'"open{separator}i', f'"a"b{separator}c']) + str(len(broken))
                )
                file.write(broken[-1] + "\n")
        written = {ours: header[[self._lower(name) for name in header].index(self._lower(name))] for ours, name in own.items()}
        return self._text(Written(path, written, time, separator=separator, broken=broken), file.getvalue())

    def _name(self, name: str) -> str:
        return name.upper() if self.random.random() < 0.1 else name

    def _lower(self, name: str) -> str:
        return name.lower()

    def _field(self, value: object) -> str:
        if value is None:
            return self.random.choice(WORDS)
        return f"{value}.0" if isinstance(value, int) and value < 1000 and self.random.random() < 0.3 else str(value)

    def _json(
        self, path: Path, own: dict[str, str], rows: list[dict[str, object]], time: Callable[[object], datetime | None]
    ) -> Written:
        objects = []
        for row in rows:
            record: dict[str, object] = {}
            for ours, name in own.items():
                value = row[ours]
                if value is None and self.random.random() < 0.5 and ours != "event_type":
                    continue
                if isinstance(value, int) and ours != "event_time" and self.random.random() < 0.3:
                    value = self.random.choice([float(value), str(value)])
                inner = record
                for part in name.split(".")[:-1]:
                    inner = inner.setdefault(part, {})  # type: ignore[assignment]
                inner[name.split(".")[-1]] = value
            objects.append(record | {"more": {"x": [1, "]}"]}})
        ascii_only, indent = self.random.random() < 0.5, self.random.choice([None, None, 1])
        form = self.random.choice(["lines", "lines", "array", "values"])
        broken = []
        if form == "array":
            text = json.dumps(objects, ensure_ascii=ascii_only, indent=indent)
        else:
            lines = [json.dumps(one, ensure_ascii=ascii_only, indent=indent if form == "values" else None) for one in objects]
            if form == "lines" and self.random.random() < 0.3:
                broken = [self.random.choice(['{"user_id": ', "nonsense", '{"a": 1,}'])]
                lines.insert(self.random.randint(1, len(lines)) if lines else 0, broken[0])
            text = "\n".join(lines) + "\n"
            broken = broken if len(lines) > 1 else []
            text = text if broken or form != "lines" or len(lines) > 1 else "\n".join(json.dumps(one) for one in objects) + "\n"
        return self._text(Written(path, own, time, broken=broken), text)

    def _text(self, file: Written, text: str) -> Written:
        """Write a text in an encoding that has all its letters."""
        encodings = ["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"]
        file.encoding = self.random.choice(encodings)
        data = text.encode(file.encoding, "strict")
        if file.encoding == "cp1252" and text.isascii():
            file.encoding = "utf-8"
        compress = {".gz": gzip.compress, ".bz2": bz2.compress}.get(file.path.suffix, bytes)
        file.path.write_bytes(compress(data))
        return file

    def _parquet(self, path: Path, own: dict[str, str], rows: list[dict[str, object]]) -> Written:
        columns: dict[str, pa.Array] = {}
        time_reader: Callable[[object], datetime | None] = lambda value: value  # type: ignore[assignment,return-value]  # noqa: E731
        int96 = False
        for ours, name in own.items():
            values = [row[ours] for row in rows]
            if ours == "event_time":
                array, time_reader, int96 = self._times(values)
            elif ours in ("user_id", "item_id") and self.numeric:
                array = self._numbers(values)
            elif ours == "value":
                array = pa.array(values, self.random.choice([pa.float64(), pa.float32()]))
            else:
                kinds = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
                array = pa.array([None if value is None else str(value) for value in values], pa.string())
                kind = self.random.choice(kinds)
                array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)
            if "." in name:
                columns[name.split(".")[0]] = pa.StructArray.from_arrays([array], [name.split(".")[1]])
            else:
                columns[name] = array
        columns["__index_level_0__"] = pa.array(range(len(rows)), pa.int64())
        pq.write_table(pa.table(columns), path, use_deprecated_int96_timestamps=int96)
        return Written(path, own, time_reader)

    def _numbers(self, values: list[object]) -> pa.Array:
        kinds = [pa.int32(), pa.int64(), pa.uint64(), pa.float64(), pa.float32(), pa.decimal128(38, 0), pa.decimal128(12, 2)]
        kind = self.random.choice([*kinds, pa.string(), pa.binary()])
        if pa.types.is_decimal(kind):
            return pa.array([None if value is None else Decimal(int(str(value))) for value in values], kind)
        if kind in (pa.string(), pa.binary()):
            return pa.array([None if value is None else str(value) for value in values], pa.string()).cast(kind)
        if pa.types.is_floating(kind) and self.random.random() < 0.3:
            values = [value if self.random.random() < 0.8 else 1.5 for value in values]
        return pa.array(values, kind)

    def _times(self, values: list[object]) -> tuple[pa.Array, Callable[[object], datetime | None], bool]:
        times = [time for time in values if isinstance(time, datetime)]
        zone = ZoneInfo(self.zone)
        naive = [time.astimezone(zone).replace(tzinfo=None) for time in times]
        choice = self.random.choice(["us", "ns", "ms", "naive us", "naive ns", "int96", "date", "int", "float", "text", "key"])
        if choice in ("us", "ns", "ms"):
            return (
                pa.array(times, pa.timestamp("us", "UTC")).cast(pa.timestamp(choice, "UTC"), safe=False),
                lambda value: value,
                False,
            )
        if choice.startswith("naive"):
            return pa.array(naive, pa.timestamp("us")).cast(pa.timestamp(choice[-2:])), lambda value: value, False
        if choice == "int96":
            array = pa.array([time.replace(tzinfo=None) for time in times], pa.timestamp("us"))
            return array, lambda value: None if value is None else value.replace(tzinfo=UTC), True
        if choice == "date":
            return pa.array([time.date() for time in naive], pa.date32()), _midnight, False
        if choice == "key":
            return pa.array([int(f"{time:%Y%m%d}") for time in naive], pa.int32()), _either(TEXT_FORMS["compact day"]), False
        if choice == "text":
            form = TEXT_FORMS[self.random.choice(list(TEXT_FORMS))]
            return pa.array([None if t is None else str(self._time(form, t)) for t in times], pa.string()), _either(form), False
        form = _count(self.random.choice([1, 10**3, 10**6, 10**9]) if choice == "int" else 1)
        return (
            pa.array([form.write(time) for time in times], pa.int64() if choice == "int" else pa.float64()),
            _either(form),
            False,
        )


def _midnight(value: object) -> datetime | None:
    return datetime(value.year, value.month, value.day) if isinstance(value, date) else None
