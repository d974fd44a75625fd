"""Erased users: the table ``forgotten`` has only the hash of their id, by which their rows are recognised."""

from __future__ import annotations

import hashlib

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

HASH = "user_hash"


def hash_of(user: str) -> str:
    """SHA-256 of a user id, as stored in the tables (white space and case matter), in hexadecimal digits."""
    return hashlib.sha256(user.encode()).hexdigest()


def hashed() -> Column:
    """:func:`hash_of` of the column ``user_id``."""
    return F.sha2(F.col(c.USER_ID), 256)


def without(rows: DataFrame, forgotten: DataFrame) -> DataFrame:
    """Remove the rows of erased users."""
    return rows.join(forgotten.select(HASH), hashed() == F.col(HASH), "left_anti")


def marked(judged: DataFrame, forgotten: DataFrame) -> DataFrame:
    """Set the reason of erased users' rows to ``forgotten``, whatever it was."""
    erased_ids = forgotten.select(HASH, F.lit(c.FORGOTTEN).alias("erased"))
    rows = judged.join(erased_ids, hashed() == F.col(HASH), "left")
    return rows.withColumn(c.REASON, F.coalesce("erased", c.REASON)).drop(HASH, "erased")
