"""Random choices as Spark expressions: hashes of a seed, the name of the choice and the ids that it is for."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

_PRIME = 2_654_435_761


def uniform(seed: int, what: str, *keys: Column | str) -> Column:
    """Return a uniform number in [0, 1); the integer type of a key is part of the hash."""
    return F.shiftrightunsigned(F.xxhash64(F.lit(seed), F.lit(what), *keys), 11) * F.lit(2.0**-53)


def one_of(values: Column, drawn: Column) -> Column:
    """Return the element of an array that a uniform number selects."""
    return values[F.floor(drawn * F.size(values))]


def spread(shares: Mapping[str, float] | Mapping[int, float]) -> Column:
    """Return a constant array of a thousand elements in which each value has its share, in thousandths; shares sum to 1."""
    return F.concat(*[F.array_repeat(F.lit(value), round(share * 1000)) for value, share in shares.items()])


def popular(drawn: Column, count: Column, head: int) -> Column:
    """Return a rank in [0, count) with weights of about 1 / (rank + head): the inverse of their cumulative sum."""
    return F.least(F.floor((F.pow(1 + count / head, drawn) - 1) * head), count - 1)


def scattered(number: Column, count: int, turn: Column) -> Column:
    """Return a permutation of 0 … count - 1 that moves neighbours far apart, for a count below 2**31.

    ``turn`` is a uniform number, the same for all of them. It is a permutation because a prime above ``count`` has no factor in
    common with ``count``.
    """
    return (number * _PRIME + F.floor(turn * count)) % count
