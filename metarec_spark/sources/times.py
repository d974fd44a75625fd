"""Read times from text: ISO 8601, RFC 2822 and other forms with one reading, and counts since 1970. No Spark here.

What has several readings, or none, is no time and never a guess: 01/02/2024, a year, a month, a time of day, abbreviated zones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:  # tasks import this file, and need no configuration
    from metarec_spark.config.inputs import Source

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
LARGEST = {"s": 10**11, "ms": 10**14, "us": 10**17, "ns": 10**20}
"""Unit → the count from which on a number is of the next unit, if the unit is auto: of 5138 in this one, of 1973 in the next."""
LAST = 253_402_300_799_999_999
"""Microseconds from 1970 to the end of 9999, UTC."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_DIGITS = re.compile(r"(?:19|20)\d{6}(?:\d{4}|\d{6})?")
"""20240110, 202401101200, 20240110120000: as counts of any unit, these would be long past or far ahead."""
_COUNT = re.compile(r"\d{9,19}(?:[.,]\d+)?|\d\.\d+E\d{1,2}")
"""A count since 1970; 1.704888E9 is how Java writes a whole double."""
_ZONE = r"(?P<zone>(?:GMT|UTC|UT)?[+-]\d{2}(?::?\d{2})?|GMT|UTC|UT|Z|[A-Z][A-Z_]+(?:/[A-Z_+-]+)+)?"
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?(?:\s?(?P<half>[AP])\.?M\.?)?"
_REST = rf"{_CLOCK}\s*{_ZONE}\s*(?:\[[^\]]*\]|\([^)]*\))?"
_WEEKDAY = r"(?:[A-Z]{3,9}\.?,?\s+)?"
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = rf"(?P<name>{'|'.join(_MONTHS)})[A-Z]*\.?"
_DAY, _YEAR = r"(?P<day>\d{1,2})", r"(?P<year>\d{4})"
_FORMS = [
    re.compile(form, re.IGNORECASE)
    for form in (
        # 2024-01-10T12:00:00,123Z; 2024/1/10 1:00 PM; 2024-01-10
        rf"{_YEAR}(?P<mark>[-/.])(?P<month>\d{{1,2}})(?P=mark){_DAY}(?:(?:T|\s+){_REST})?",
        # 20240110T120000Z; 20240110
        rf"{_YEAR}(?P<month>\d\d)(?P<day>\d\d)(?:T?(?P<hour>\d\d)(?P<minute>\d\d)(?:(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?\s*{_ZONE})?",
        # Wed, 10 Jan 2024 12:00:00 +0000; 10-Jan-2024; 10/Jan/2024:12:00:00 +0000
        rf"{_WEEKDAY}{_DAY}[-/.\s]+{_MONTH},?[-/\s]+{_YEAR}(?:[\s,:T]+{_REST})?",
        # Jan 10, 2024 12:00 PM; Wed Jan 10 2024 12:00:00 GMT+0100 (CET)
        rf"{_WEEKDAY}{_MONTH}\s+{_DAY}(?:st|nd|rd|th)?,?\s+{_YEAR}(?:[\s,]+{_REST})?",
        # Wed Jan 10 12:00:00 UTC 2024
        rf"{_WEEKDAY}{_MONTH}\s+{_DAY}\s+{_CLOCK}\s+(?:{_ZONE}\s+)?{_YEAR}",
    )
]


@dataclass(frozen=True)
class TimeReader:
    """Reads the times of a source."""

    unit: str
    """Unit of counts: s, ms, us, ns, or auto."""
    form: str | None
    """Format of ``datetime.strptime``, if there is one."""
    zone: str
    """Zone of times that name none."""

    @classmethod
    def from_source(cls, source: Source) -> TimeReader:
        """Return the reader of a source."""
        return cls(source.time_unit, source.time_format, source.time_zone)

    def __call__(self, text: str | None) -> int | None:
        """Return microseconds from 1970 to a time, UTC; None if the text is no time from 1970 to 9999.

        A time without a zone is of the reader's zone. If clocks showed it twice, as they were put back, it is the first; if they
        never did, as they were put forward, it is none.
        """
        if text is None:
            return None
        try:
            micros = self._micros(text.strip())
        except (ValueError, OverflowError):
            return None
        return micros if micros is not None and 0 <= micros <= LAST else None

    def _micros(self, text: str) -> int | None:
        if self.form is not None:
            return self._since_1970(datetime.strptime(text, self.form))
        if text[4:5] == "-" == text[7:8] and text[10:11] in (" ", "T") and len(text) >= 19:
            try:
                return self._since_1970(datetime.fromisoformat(text))
            except ValueError:
                pass
        if self.unit == "auto" and _DIGITS.fullmatch(text):
            return self._in_form(_FORMS[1].fullmatch(text))
        if _COUNT.fullmatch(text):
            return counted(text, self.unit)
        if text.isdigit():
            return None
        return self._in_form(next((match for form in _FORMS if (match := form.fullmatch(text))), None))

    def _in_form(self, match: re.Match[str] | None) -> int | None:
        if match is None:
            return None
        parts = match.groupdict()
        month = _MONTHS.index(parts["name"].lower()) + 1 if "name" in parts else int(parts["month"])
        hour, half = int(parts["hour"] or 0), (parts.get("half") or "").lower()
        if half:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + 12 * (half == "p")
        clock = hour, int(parts["minute"] or 0), int(parts["second"] or 0), int(((parts["fraction"] or "") + "000000")[:6])
        return self._since_1970(datetime(int(parts["year"]), month, int(parts["day"]), *clock, tzinfo=_zone_of(parts["zone"])))

    def _since_1970(self, time: datetime) -> int | None:
        if time.tzinfo is None:
            zone = known_zone(self.zone)
            aware = time.replace(tzinfo=zone, fold=0)
            if zone is not UTC and aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != time:
                return None
            time = aware
        return (time - _EPOCH) // _MICROSECOND


def counted(text: str, unit: str) -> int:
    """Return microseconds from a count of units, by its size if the unit is auto."""
    if "E" in text:
        text = f"{Decimal(text):f}"
    whole, _, fraction = text.replace(",", ".").partition(".")
    count = int(whole)
    unit = next(name for name, largest in LARGEST.items() if count < largest) if unit == "auto" else unit
    digits = len(fraction)
    return int(whole + fraction) * 10**6 // (PER_SECOND[unit] * 10**digits)


def _zone_of(name: str | None) -> tzinfo | None:
    if not name:
        return None
    offset = re.fullmatch(r"(?:GMT|UTC|UT)?([+-])(\d{2}):?(\d{2})?", name, re.IGNORECASE)
    if offset:
        distance = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        return timezone(-distance if offset[1] == "-" else distance)
    return UTC if "/" not in name else known_zone(name)


@lru_cache(256)
def known_zone(name: str) -> tzinfo:
    """Return a zone by its name or offset."""
    if name == "UTC":
        return UTC
    if name[0] in "+-":
        return timezone((1 if name[0] == "+" else -1) * timedelta(hours=int(name[1:3]), minutes=int(name[4:6])))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"no time zone {name!r}") from error
