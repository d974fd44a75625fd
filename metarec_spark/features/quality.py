"""Data quality: rows counted by outcome, and the gate that stops a day that lost too many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from statistics import median

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Quality
from metarec_spark.errors import DataError
from metarec_spark.features.cleaning import DAY, blank

OUTCOME, ROWS, KEPT = "outcome", "rows", "kept"
USUAL_DAYS = 7
_FEWEST_ROWS = 100
_LOSES_NOTHING = ("duplicate", "bot", c.FORGOTTEN)


def counted(judged: DataFrame) -> DataFrame:
    """Rows of the table ``quality``: cleaned rows counted by source, domain (null if it is blank), day and outcome."""
    outcome, domain = F.coalesce(F.col(c.REASON), F.lit(KEPT)), F.when(~blank(F.col(c.DOMAIN)), F.col(c.DOMAIN))
    return judged.groupBy(c.SOURCE, domain.alias(c.DOMAIN), DAY, outcome.alias(OUTCOME)).agg(F.count("*").alias(ROWS))


def check(quality: DataFrame, ds: date, settings: Quality) -> None:
    """Stop if a day lost too many rows.

    Parameters
    ----------
    quality
        Rows of :func:`counted`, of the day and of the ``USUAL_DAYS`` before it.

    Raises
    ------
    DataError
        With every source and domain that is beyond a limit, and its numbers.
    """
    problems = [*_rejected(quality, ds, settings.max_rejected_share), *_missing(quality, ds, settings.min_events_share)]
    if problems:
        raise DataError(
            f"{ds} lost too much, and nothing of it is published: {'; '.join(problems)}. Mend the log and run the day again, or "
            "change [quality]"
        )


def _rejected(quality: DataFrame, ds: date, most: float) -> Iterator[str]:
    counts, lost = F.sum(ROWS), F.col(OUTCOME) != KEPT
    rows = quality.where((F.col(DAY) == F.lit(ds)) & ~F.col(OUTCOME).isin(*_LOSES_NOTHING))
    # One group for each source, and one for each domain in it.
    groups = rows.rollup(c.SOURCE, c.DOMAIN).agg(
        counts.alias("read"),
        F.coalesce(F.sum(F.when(lost, F.col(ROWS))), F.lit(0)).alias("lost"),
        F.grouping(c.SOURCE).alias("all"),
        F.grouping(c.DOMAIN).alias("whole"),
    )
    # Rows without a domain are all rejected; they count for their source only.
    groups = groups.where((F.col("all") == 0) & ((F.col("whole") == 1) | F.col(c.DOMAIN).isNotNull()))
    beyond = groups.where((F.col("read") >= _FEWEST_ROWS) & (F.col("lost") > most * F.col("read")))
    for row in beyond.orderBy(c.SOURCE, F.col("whole").desc(), c.DOMAIN).toLocalIterator():
        group = rows.where((F.col(c.SOURCE) == row[c.SOURCE]) & lost)
        group = group if row["whole"] else group.where(F.col(c.DOMAIN) == row[c.DOMAIN])
        reasons = Counter(dict(map(tuple, group.groupBy(OUTCOME).agg(counts).toLocalIterator())))
        where = f"source {row[c.SOURCE]}" + ("" if row["whole"] else f", domain {row[c.DOMAIN][:100]!r}")
        share = f"{row['lost']} of {row['read']} rows rejected {dict(reasons.most_common())}"
        yield f"{where}: {share}, at most {most:.0%} may be (quality.max_rejected_share)"


def _missing(quality: DataFrame, ds: date, least: float) -> Iterator[str]:
    if not least:
        return
    days = [ds - timedelta(days=back) for back in range(USUAL_DAYS + 1)]
    kept_rows = quality.where((F.col(OUTCOME) == KEPT) & F.col(DAY).isin(days)).select(c.SOURCE, c.DOMAIN, DAY, ROWS)
    events = {tuple(row[:3]): row[3] for row in kept_rows.toLocalIterator()}
    for source, domain in sorted({key[:2] for key in events}):
        today, *before = (events.get((source, domain, day), 0) for day in days)
        usual = median(before)
        if today < least * usual:
            yield (
                f"source {source}, domain {domain!r}: {today} events, {usual:g} is usual, and {least:.0%} of that must be there "
                "(quality.min_events_share)"
            )
