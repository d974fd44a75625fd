"""Net changes of ``events`` between two versions: events that were added or removed, each counted once."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.warehouse.commits import in_effect
from metarec_spark.warehouse.tables import Warehouse

NET = "net"
_KEY = (c.USER_ID, c.DOMAIN, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.EVENT_DATE)


def net(changes: DataFrame) -> DataFrame:
    """Events that were added (``net`` 1) or removed (-1) in total: a day that was replaced by equal rows has none.

    Parameters
    ----------
    changes
        Rows of :meth:`metarec_spark.warehouse.tables.Warehouse.changes`.
    """
    sign = F.when(F.col("_change_type") == "insert", 1).otherwise(-1)
    return changes.groupBy(*_KEY).agg(F.sum(sign).alias(NET)).where("net <> 0")


def losing(changes: DataFrame, *key: str) -> DataFrame:
    """The users (or items) that lost an event, from rows of :func:`net`."""
    return changes.where("net < 0").select(*key).distinct()


class EventChanges:
    """Net changes of ``events`` up to one version, computed once for all tables that were last made from the same version.

    A context manager: the changes stay cached until its end.
    """

    def __init__(self, warehouse: Warehouse, version: int) -> None:
        self.version = version
        self._warehouse = warehouse
        self._since: dict[int, DataFrame | None] = {}

    def __enter__(self) -> EventChanges:
        return self

    def __exit__(self, *_: object) -> None:
        for changes in self._since.values():
            if changes is not None:
                changes.unpersist()

    def since(self, name: str, settings: str | None = None) -> int | None:
        """Version of ``events`` that a table was last made from, by whatever job; None if it must be made from all events anew,
        since there is no such version or it was made with other settings."""
        commits = (logged.metadata for logged in in_effect(self._warehouse.commits(name)))
        commit = next((commit for commit in commits if commit and c.EVENTS in commit.inputs), None)
        return commit.inputs[c.EVENTS] if commit and commit.settings == settings else None

    def for_table(self, name: str, settings: str | None = None) -> DataFrame | None:
        """Rows of :func:`net` since the version that a table was last made from (:meth:`since`).

        None if the table must be made from all events: there is no such version, or the change feed does not reach back to it.
        """
        since = self.since(name, settings)
        if since is None:
            return None
        if since not in self._since:
            changes = self._warehouse.changes(c.EVENTS, since, self.version)
            self._since[since] = changes if changes is None else net(changes).persist()
        return self._since[since]
