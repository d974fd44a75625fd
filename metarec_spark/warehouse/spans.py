"""Spans of days: what a write replaces, as few conditions as possible."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta

from pyspark.sql import Column
from pyspark.sql import functions as F

_MOST_RANGES = 20
Spans = Sequence[tuple[date, date]]
"""First and last day of each run of days."""


def spans(days: Collection[date]) -> Spans:
    """First and last day of each run of days without a gap."""
    runs: list[tuple[date, date]] = []
    for day in sorted(days):
        if runs and (day - runs[-1][1]).days == 1:
            runs[-1] = runs[-1][0], day
        else:
            runs.append((day, day))
    return runs


def within(column: str, days: Collection[date]) -> Column:
    """Whether a column has one of the days."""
    return F.col(column).isin(sorted(days)) if days else F.lit(False)


def condition(column: str, days: Spans, *, undated: bool = False) -> str:
    """SQL for the condition of a Delta write, in which BETWEEN is not resolved: a column has a day of the spans, or none."""
    parts = [f"({column} >= DATE'{first.isoformat()}' AND {column} <= DATE'{last.isoformat()}')" for first, last in days]
    if len(days) > _MOST_RANGES:  # Spark cannot parse thousands of ORs
        all_days = [first + timedelta(days=n) for first, last in days for n in range((last - first).days + 1)]
        literals = ", ".join(f"DATE'{day.isoformat()}'" for day in all_days)
        parts = [f"{column} IN ({literals})"]
    return " OR ".join([*parts, *([f"{column} IS NULL"] if undated else [])]) or "false"
