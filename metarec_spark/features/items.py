"""Items: a dense int index for every (domain, item id), assigned once and never changed."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.features.quality import FEWEST_ROWS
from metarec_spark.job import log

_KEY = [c.DOMAIN, c.ITEM_ID]


def counted(events: DataFrame) -> DataFrame:
    """(domain, item_id, events, first_day, last_day) of every item with an event."""
    days = F.min(c.EVENT_DATE).alias("first_day"), F.max(c.EVENT_DATE).alias("last_day")
    return events.groupBy(*_KEY).agg(F.count("*").alias("events"), *days)


def recounted(items: DataFrame, added: DataFrame) -> DataFrame:
    """:func:`counted` of all events of the items in ``added``, from their stored counts and their new events.

    Valid for items that lost no event.
    """
    new = counted(added)
    before = items.join(new, _KEY, "left_semi").select(*new.columns)
    days = F.min("first_day").alias("first_day"), F.max("last_day").alias("last_day")
    return before.unionByName(new).groupBy(*_KEY).agg(F.sum("events").alias("events"), *days)


def updated(items: DataFrame, known: DataFrame, first_free: int) -> DataFrame:
    """Rows to merge into ``items``: new counts of items that have an index, and new items with an index.

    Parameters
    ----------
    items
        The table before.
    known
        (domain, item_id, events, first_day, last_day) of all items that may have changed; 0 and nulls for an item without
        events.
    first_free
        The smallest index that no item has.

    Notes
    -----
    New indexes follow (first_day, domain, item_id), items without events last. The new items are sorted in one task, which spills
    to disk.
    """
    both = known.join(items.select(*_KEY, c.ITEM_IDX), _KEY, "left")
    columns = [c.ITEM_IDX, *_KEY, "events", "first_day", "last_day"]
    old = both.where(F.col(c.ITEM_IDX).isNotNull())
    order = Window.orderBy(F.col("first_day").asc_nulls_last(), *_KEY)
    new = both.where(F.col(c.ITEM_IDX).isNull())
    new = new.withColumn(c.ITEM_IDX, (F.row_number().over(order) + F.lit(first_free - 1)).cast("int"))
    return old.select(*columns).unionByName(new.select(*columns))


def require_known(information: DataFrame, items: DataFrame, known: DataFrame, least: float) -> None:
    """Tell how many rows of each platform's catalogue name an item with events; stop if hardly any does.

    Parameters
    ----------
    information
        (domain, item_id) of all rows.
    items
        The table before.
    known
        As for :func:`updated`.
    least
        Least share of a platform's rows, or of its items with events if those are fewer; of fewer than 100, none is refused.

    Raises
    ------
    DataError
        If it is not reached: ids of the catalogue are written otherwise than those of the log.
    """
    sold = items.where("events > 0").select(*_KEY).unionByName(known.where("events > 0").select(*_KEY)).distinct()
    rows = information.select(*_KEY, F.lit(True).alias("row")).join(sold.withColumn("sold", F.lit(True)), _KEY, "full")
    in_one = F.min(F.when(F.col("sold").isNull(), F.col(c.ITEM_ID))), F.min(F.when(F.col("row").isNull(), F.col(c.ITEM_ID)))
    counts = rows.groupBy(c.DOMAIN).agg(F.count("row"), F.count_if(F.col("row") & F.col("sold")), F.count("sold"), *in_one)
    for domain, listed, matched, with_events, a_row, an_item in counts.orderBy(c.DOMAIN).collect():
        if not listed:
            continue
        text = "platform %s: %d of %d rows of the catalogue have events; %d of %d items with events have a row"
        log.info(text, domain, matched, listed, matched, with_events)
        could = min(listed, with_events)
        if matched >= max(1, least * could) or not could:
            continue
        message = (
            f"platform {domain}: {matched} of {listed} rows of the catalogue name one of the {with_events} items with events: it "
            f"has {a_row!r}, the log has {an_item!r}; check item_id in both"
        )
        if could >= FEWEST_ROWS and matched < least * could:
            raise DataError(f"{message}; at least {least:.0%} of {could} must (quality.min_known_share)")
        log.warning(message)
