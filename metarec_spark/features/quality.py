"""Data quality: rows counted by outcome, and the gates that stop a day that lost too many of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Quality
from metarec_spark.features.cleaning import DAY

OUTCOME, ROWS, KEPT = "outcome", "rows", "kept"
USUAL_DAYS = 7
FEWEST_ROWS = 100
"""Fewer rows are never refused by their share."""
_LOSES_NOTHING = ("duplicate", "bot")
_SHOWN = 10


@dataclass
class Findings:
    """What the gates found."""

    problems: dict[date, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Day → every source and platform beyond a limit, with its numbers."""
    new_platforms: list[str] = field(default_factory=list)
    """Platforms beyond the limit of rejected rows that have never had an event: they stop no day."""

    def reason(self, day: date) -> str:
        """What was found of one day, as one text."""
        return "; ".join(self.problems[day])


def check(
    quality: DataFrame, days: Collection[date], expected: Collection[date], settings: Quality, platforms: DataFrame
) -> Findings:
    """Judge days by the outcomes of their rows.

    A platform that has never had an event stops no day, and its rows do not count for its source: anybody who can write to a log
    can name a platform. Of a source that has never had an event, all rows count.

    Parameters
    ----------
    quality
        Rows of the table ``quality``, of the days to judge and of the ``USUAL_DAYS`` before each expected day.
    days
        Days to judge by the share of rejected rows.
    expected
        Days on which every platform should have events: judged by their number too.
    platforms
        (source, domain) that have ever had an event.
    """
    findings = Findings()
    _rejected(findings, quality, days, settings.max_rejected_share, platforms)
    if settings.min_events_share and expected:
        _missing(findings, quality, sorted(expected), settings.min_events_share)
    findings.problems = defaultdict(list, {day: texts for day, texts in findings.problems.items() if texts})
    return findings


def check_undated(
    findings: Findings, quality: DataFrame, days: Collection[date], settings: Quality, platforms: DataFrame
) -> None:
    """Add the days that undated rows stop, of those that nothing else stops.

    Parameters
    ----------
    quality
        Rows of the table ``quality`` of these days, together with rows that name no day and the other rows of their files.
    days
        Days that these rows count for.
    settings, platforms
        As for :func:`check`.
    """
    _rejected(findings, quality, {*days} - findings.problems.keys(), settings.max_rejected_share, platforms)


def _rejected(findings: Findings, quality: DataFrame, days: Collection[date], most: float, platforms: DataFrame) -> None:
    lost = F.col(OUTCOME) != KEPT
    counts = (F.sum(ROWS).alias("read"), F.coalesce(F.sum(F.when(lost, F.col(ROWS))), F.lit(0)).alias("lost"))
    is_beyond = (F.col("read") >= FEWEST_ROWS) & (F.col("lost") > most * F.col("read"))
    rows = quality.where(F.col(DAY).isin(sorted(days)) & ~F.col(OUTCOME).isin(*_LOSES_NOTHING))
    if rows.rollup(DAY, c.SOURCE, c.DOMAIN).agg(*counts).where(is_beyond & F.col(c.SOURCE).isNotNull()).isEmpty():
        return
    known = platforms.select(c.SOURCE, c.DOMAIN, F.lit(True).alias("has_events")).distinct()
    rows = rows.join(F.broadcast(known), [c.SOURCE, c.DOMAIN], "left")
    rows = rows.join(F.broadcast(known.select(c.SOURCE, F.lit(True).alias("source_has_events")).distinct()), c.SOURCE, "left")
    set_aside = F.col(c.DOMAIN).isNotNull() & F.col("has_events").isNull() & F.col("source_has_events").isNotNull()
    rows = rows.withColumn("set_aside", F.coalesce(set_aside, F.lit(False)))
    # One group for each source without the platforms that are set aside, and one for each platform in it.
    whole = (
        rows.where(~F.col("set_aside"))
        .groupBy(DAY, c.SOURCE, F.lit(None).cast("string").alias(c.DOMAIN), "set_aside")
        .agg(*counts)
    )
    # Rows without a platform are all rejected; they count for their source only.
    by_platform = rows.where(F.col(c.DOMAIN).isNotNull()).groupBy(DAY, c.SOURCE, c.DOMAIN, "set_aside").agg(*counts)
    beyond = whole.unionByName(by_platform).where(is_beyond)
    for row in beyond.orderBy(DAY, c.SOURCE, F.col(c.DOMAIN).asc_nulls_first()).toLocalIterator():
        group = rows.where((F.col(DAY) == row[DAY]) & (F.col(c.SOURCE) == row[c.SOURCE]) & lost)
        group = group.where(~F.col("set_aside") if row[c.DOMAIN] is None else F.col(c.DOMAIN) == row[c.DOMAIN])
        reasons = Counter(dict(map(tuple, group.groupBy(OUTCOME).agg(F.sum(ROWS)).toLocalIterator())))
        where = f"source {row[c.SOURCE]}" + ("" if row[c.DOMAIN] is None else f", domain {row[c.DOMAIN][:100]!r}")
        share = f"{where}: {row['lost']} of {row['read']} rows rejected {dict(reasons.most_common())}"
        if row["set_aside"]:
            findings.new_platforms.append(f"{row[DAY]}, {share}")
        else:
            findings.problems[row[DAY]].append(f"{share}, at most {most:.0%} may be (quality.max_rejected_share)")


def _missing(findings: Findings, quality: DataFrame, days: Sequence[date], least: float) -> None:
    first = days[0] - timedelta(days=USUAL_DAYS)
    rows = quality.where((F.col(OUTCOME) == KEPT) & F.col(DAY).between(F.lit(first), F.lit(days[-1])))
    events = {tuple(row[:3]): row[3] for row in rows.select(c.SOURCE, c.DOMAIN, DAY, ROWS).collect()}
    for source, domain in sorted({key[:2] for key in events}):
        for day in days:
            today, *before = (events.get((source, domain, day - timedelta(days=back)), 0) for back in range(USUAL_DAYS + 1))
            usual = median(before)
            if today < least * usual:
                findings.problems[day].append(
                    f"source {source}, domain {domain!r}: {today} events, {usual:g} is usual, and {least:.0%} of that must be "
                    "there (quality.min_events_share)"
                )


def add_losses(findings: Findings, lost: dict[tuple[str, date], tuple[int, int]], most: float) -> set[date]:
    """Add the days on which a source would remove too many of its stored events; returns these days.

    Parameters
    ----------
    lost
        (source, day) → events that would be removed, stored events.
    most
        Largest share that may be removed.
    """
    days = set()
    for (source, day), (removed, stored) in sorted(lost.items()):
        if removed > most * stored:
            text = f"source {source}: {removed} of {stored} stored events are in none of its files any more, at most {most:.0%} "
            findings.problems[day].append(text + "may be removed (quality.max_lost_share)")
            days.add(day)
    return days


def few(days: Collection[date]) -> str:
    """The first days, and how many there are."""
    shown = ", ".join(str(day) for day in sorted(days)[:_SHOWN])
    return shown if len(days) <= _SHOWN else f"{shown} and {len(days) - _SHOWN} more"
