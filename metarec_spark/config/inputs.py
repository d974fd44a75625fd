"""The files that a configuration names: behaviour logs, item information, allow and block lists, groups of items."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from metarec_spark import columns as c
from metarec_spark.config.base import Advanced, Count, Section, nearest

Format = Literal["parquet", "json", "csv", "delta"]


class File(Section):
    """What every input has: a path, a format, and the names of its columns."""

    path: str
    """Where the files are: any URI that Spark reads. Folders and globs are allowed."""
    format: Format = "parquet"
    """parquet, json (one object per line), csv (with a header line) or delta."""
    domain: str | None = None
    """Platform of every row, if the file has no column `domain`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Product's column name = the file's column name, for each column that has another name in the file."""

    mappable: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _one_domain(self) -> Self:
        if self.domain is not None and c.DOMAIN in self.columns:
            raise ValueError(f"domain = {self.domain!r} and columns.domain = {self.columns[c.DOMAIN]!r}: give one of them")
        return self

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, mapping: dict[str, str]) -> dict[str, str]:
        for name in mapping:
            if name not in cls.mappable:
                raise ValueError(f"no column {name!r} to map{nearest(name, cls.mappable)}; columns are {', '.join(cls.mappable)}")
        return mapping


class Source(File):
    """A behaviour log: one row per event."""

    user_namespace: Advanced[str | None] = None
    """Prefix of every user id (`namespace:id`). Set it if the ids of this log do not mean the same people as the ids of the
    other logs."""
    time_unit: Advanced[Literal["s", "ms", "us"]] = "s"
    """Unit of a numeric event time: seconds, milliseconds or microseconds since 1970-01-01 UTC."""
    day_column: str | None = None
    """Column (often a partition folder) with the day on which a row arrived. Without it, every run reads the whole log."""

    mappable = (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE)


class ItemSource(File):
    """Optional information on items: a title, attributes, a content vector."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.TITLE, c.ATTRIBUTES, c.CONTENT)


class ItemList(File):
    """An allow list or a block list: one row per item."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.LISTED)


class Cap(File):
    """Groups of items, such as brands, of which a list may hold only a few."""

    at_most: Count
    """Items of one group that a list may hold. An item may be in several groups; an item without a group is not limited."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.GROUP)
