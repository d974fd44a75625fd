"""Erased users: the table ``forgotten`` has only the hash of their id, by which their rows are recognised."""

from __future__ import annotations

import hashlib

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

HASH = "user_hash"
AS_ITEM = "as_item"
"""Column of ``forgotten``: whether rows in which the id is an item's are dropped, too."""
TOMBSTONE = "forgotten:"
"""What an erased item's id in ``items`` begins with."""


def hash_of(user: str) -> str:
    """SHA-256 of a user id, as stored in the tables (white space and case matter), in hexadecimal digits."""
    return hashlib.sha256(user.encode()).hexdigest()


def hashed() -> Column:
    """:func:`hash_of` of the column ``user_id``."""
    return F.sha2(F.col(c.USER_ID), 256)


def without(rows: DataFrame, forgotten: DataFrame) -> DataFrame:
    """Remove the rows of erased users."""
    return rows.join(forgotten.select(HASH), hashed() == F.col(HASH), "left_anti")


def without_items(rows: DataFrame, forgotten: DataFrame | None) -> DataFrame:
    """Remove the rows whose ``item_id`` is an erased item's."""
    items = None if forgotten is None else _items(forgotten)
    return rows if items is None else rows.join(F.broadcast(items), F.sha2(F.col(c.ITEM_ID), 256) == F.col(HASH), "left_anti")


def marked(judged: DataFrame, forgotten: DataFrame) -> DataFrame:
    """Set the reason of rows of erased users and items to ``forgotten``, whatever it was."""
    erased_ids = forgotten.select(HASH, F.lit(c.FORGOTTEN).alias("erased"))
    rows = judged.join(erased_ids, hashed() == F.col(HASH), "left").drop(HASH)
    items = _items(forgotten)
    if items is not None:
        items = items.withColumn("erased_item", F.lit(c.FORGOTTEN))
        rows = rows.join(F.broadcast(items), F.sha2(F.col(c.ITEM_ID), 256) == F.col(HASH), "left").drop(HASH)
    reasons = ["erased", *([] if items is None else ["erased_item"])]
    return rows.withColumn(c.REASON, F.coalesce(*reasons, c.REASON)).drop(*reasons)


def _items(forgotten: DataFrame) -> DataFrame | None:
    """Hashes of erased items; None if the table is of a version that knows none."""
    return forgotten.where(AS_ITEM).select(HASH) if AS_ITEM in forgotten.columns else None
