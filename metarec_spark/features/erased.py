"""People who asked to be forgotten: the table ``forgotten`` has the hash of their id alone, and by it their rows are known."""

from __future__ import annotations

import hashlib

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

HASH = "user_hash"


def hash_of(user: str) -> str:
    """SHA-256 of a user id as the tables hold it, blanks and case included, as hexadecimal digits."""
    return hashlib.sha256(user.encode()).hexdigest()


def hashed() -> Column:
    """:func:`hash_of` of the column ``user_id``."""
    return F.sha2(F.col(c.USER_ID), 256)


def without(rows: DataFrame, forgotten: DataFrame) -> DataFrame:
    """Rows but those of the forgotten."""
    return rows.join(forgotten.select(HASH), hashed() == F.col(HASH), "left_anti")


def marked(judged: DataFrame, forgotten: DataFrame) -> DataFrame:
    """Judged rows; those of the forgotten get that reason, whatever else is wrong with them."""
    asked = forgotten.select(HASH, F.lit(c.FORGOTTEN).alias("asked"))
    rows = judged.join(asked, hashed() == F.col(HASH), "left")
    return rows.withColumn(c.REASON, F.coalesce("asked", c.REASON)).drop(HASH, "asked")
