"""What became of a log's rows, counted; and whether a day has lost so much that it is not published."""

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
    """Rows of the table ``quality``, of rows that :func:`metarec_spark.features.cleaning.judge` has judged; a blank domain is
    none."""
    outcome, domain = F.coalesce(F.col(c.REASON), F.lit(KEPT)), F.when(~blank(F.col(c.DOMAIN)), F.col(c.DOMAIN))
    return judged.groupBy(c.SOURCE, domain.alias(c.DOMAIN), DAY, outcome.alias(OUTCOME)).agg(F.count("*").alias(ROWS))


def check(quality: DataFrame, ds: date, settings: Quality) -> None:
    """Refuse a day that lost too much.

    Parameters
    ----------
    quality
        As :func:`counted` gives it, of the day and of the ``USUAL_DAYS`` before it.

    Raises
    ------
    DataError
        Which names every source and domain that is beyond a limit, with its numbers.
    """
    said = [*_rejected(quality, ds, settings.max_rejected_share), *_missing(quality, ds, settings.min_events_share)]
    if said:
        raise DataError(
            f"{ds} lost too much, and nothing of it is published: {'; '.join(said)}. Mend the log and run the day again, or "
            "change [quality]"
        )


def _rejected(quality: DataFrame, ds: date, most: float) -> Iterator[str]:
    counts, lost = F.sum(ROWS), F.col(OUTCOME) != KEPT
    rows = quality.where((F.col(DAY) == F.lit(ds)) & ~F.col(OUTCOME).isin(*_LOSES_NOTHING))
    # A row of each source alone, and of each domain in it.
    groups = rows.rollup(c.SOURCE, c.DOMAIN).agg(
        counts.alias("read"),
        F.coalesce(F.sum(F.when(lost, F.col(ROWS))), F.lit(0)).alias("lost"),
        F.grouping(c.SOURCE).alias("all"),
        F.grouping(c.DOMAIN).alias("whole"),
    )
    # Rows without a domain are all rejected, and count for their source.
    groups = groups.where((F.col("all") == 0) & ((F.col("whole") == 1) | F.col(c.DOMAIN).isNotNull()))
    beyond = groups.where((F.col("read") >= _FEWEST_ROWS) & (F.col("lost") > most * F.col("read")))
    for row in beyond.orderBy(c.SOURCE, F.col("whole").desc(), c.DOMAIN).toLocalIterator():
        mine = rows.where((F.col(c.SOURCE) == row[c.SOURCE]) & lost)
        mine = mine if row["whole"] else mine.where(F.col(c.DOMAIN) == row[c.DOMAIN])
        reasons = Counter({of[OUTCOME]: of["n"] for of in mine.groupBy(OUTCOME).agg(counts.alias("n")).toLocalIterator()})
        where = f"source {row[c.SOURCE]}" + ("" if row["whole"] else f", domain {row[c.DOMAIN][:100]!r}")
        share = f"{row['lost']} of {row['read']} rows rejected {dict(reasons.most_common())}"
        yield f"{where}: {share}, at most {most:.0%} may be (quality.max_rejected_share)"


def _missing(quality: DataFrame, ds: date, least: float) -> Iterator[str]:
    if not least:
        return
    days = [ds - timedelta(days=back) for back in range(USUAL_DAYS + 1)]
    kept = quality.where((F.col(OUTCOME) == KEPT) & F.col(DAY).isin(days)).select(c.SOURCE, c.DOMAIN, DAY, ROWS)
    of = {tuple(row[:3]): row[3] for row in kept.toLocalIterator()}
    for source, domain in sorted({key[:2] for key in of}):
        today, *before = (of.get((source, domain, day), 0) for day in days)
        usual = median(before)
        if today < least * usual:
            yield (
                f"source {source}, domain {domain!r}: {today} events, {usual:g} is usual, and {least:.0%} of that must be there "
                "(quality.min_events_share)"
            )
