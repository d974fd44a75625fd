"""What changed in ``events`` between two versions: events that came and events that went, each counted once."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

NET = "net"
_KEY = (c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.EVENT_DATE)


def net(changes: DataFrame) -> DataFrame:
    """The events that were added (``net`` 1) or removed (-1) altogether: a day that was replaced by equal rows holds none.

    Parameters
    ----------
    changes
        As :meth:`metarec_spark.warehouse.tables.Warehouse.changes` gives them.
    """
    sign = F.when(F.col("_change_type") == "insert", 1).otherwise(-1)
    return changes.groupBy(*_KEY).agg(F.sum(sign).alias(NET)).where("net <> 0")


def losing(events: DataFrame, *key: str) -> DataFrame:
    """The users, or items, of whom an event was removed."""
    return events.where("net < 0").select(*key).distinct()
