"""The files that a configuration names: behaviour logs, item information, allow and block lists, groups of items."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from metarec_spark import columns as c
from metarec_spark.config.base import Advanced, Count, Section, Zone, nearest

Format = Literal["parquet", "json", "csv", "delta"]
NULL_WORDS = ("null", r"\N", "none", "nan", "nat", "n/a", "#n/a", "na", "<na>", "nil", "undefined", "(null)", "-")


class File(Section):
    """What every input has: a path, a format, and the names of its columns."""

    path: str
    """Where the files are: any URI that Spark reads. Folders and globs are allowed."""
    format: Format = "parquet"
    """parquet, json (objects, one per line or pretty-printed, or arrays of objects), csv (with a header line, or with `names`) or
    delta."""
    domain: str | None = None
    """Platform of every row, if the file has no column `domain`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Product's column name = the file's column name, for each column that has another name in the file. `user.id` is the field
    `id` of the nested field `user`."""
    names: Advanced[list[str]] = Field(default_factory=list)
    """Names of the columns of CSV files without a header line, in their order. Empty: the first line of each file names them."""
    separator: Advanced[Literal["auto", ",", ";", "\t", "|"]] = "auto"
    """Character between two fields of CSV. auto: in each file, the one that gives its header the needed columns."""
    encoding: Advanced[str] = "auto"
    """Text encoding of CSV and JSON, such as `utf-8` or `latin-1`. auto: what a byte order mark says, or UTF-8; `cp1252` if a
    file is not UTF-8 and looks like a Western European language, which is logged."""
    null_values: Advanced[list[str]] = Field(default_factory=lambda: list(NULL_WORDS))
    """Words that mean "no value" in text, in lower or upper case."""

    mappable: ClassVar[tuple[str, ...]]
    _alias: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def alias(self) -> dict[str, str]:
        """A platform's name in the file → its name in the product, where they differ; from `platforms.alias`."""
        return self._alias

    def know_platforms_by(self, alias: dict[str, str]) -> None:
        """Take the names of platforms over, once, when the configuration is read."""
        self._alias = alias

    @model_validator(mode="after")
    def _one_domain(self) -> Self:
        if self.domain is not None and c.DOMAIN in self.columns:
            raise ValueError(f"domain = {self.domain!r} and columns.domain = {self.columns[c.DOMAIN]!r}: give one of them")
        return self

    @model_validator(mode="after")
    def _names_of_csv(self) -> Self:
        if self.names and self.format != "csv":
            raise ValueError(f"names are for files of csv without a header line, and format is {self.format!r}: remove names")
        if len({*self.names}) < len(self.names):
            raise ValueError(f"names = {self.names}: a name stands twice; give each column a name of its own")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            if name != "auto":
                "".encode(name)
        except LookupError:
            raise ValueError(f"no text encoding {name!r}; use a usual name, such as 'utf-8', 'latin-1' or 'utf-16'") from None
        return name

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, mapping: dict[str, str]) -> dict[str, str]:
        for name in mapping:
            if name not in cls.mappable:
                raise ValueError(f"no column {name!r} to map{nearest(name, cls.mappable)}; columns are {', '.join(cls.mappable)}")
        return mapping


class Source(File):
    """A behaviour log: one row per event."""

    name: Advanced[str | None] = None
    """Name of the source in the tables. By default its position and format, such as `0:parquet`; name the sources before you
    reorder them."""
    delivery: Literal["added", "complete"] = "added"
    """added: stored events stay; the rows of new and changed files are added, and rows that are stored already are duplicates.
    complete: the files are the whole truth of the days that they contain; a stored event of such a day that is in none of the
    files is removed."""
    user_namespace: Advanced[str | None] = None
    """Prefix of every user id (`namespace:id`). Set it if the ids of this log do not mean the same people as the ids of the
    other logs."""
    time_unit: Advanced[Literal["auto", "s", "ms", "us", "ns"]] = "auto"
    """Unit of a numeric event time: seconds, milliseconds, microseconds or nanoseconds since 1970-01-01 UTC. auto: the unit that
    the size of each number leaves, for times from 1973 to 5138."""
    time_format: Advanced[str | None] = None
    """Format of event times in text, as Python's strptime takes it, such as `%d/%m/%Y %H:%M:%S`. Without it, ISO 8601, RFC 2822
    and other unambiguous forms are read; with it, only this form is."""
    time_zone: Advanced[Zone] = "UTC"
    """Time zone of event times that name none."""
    day_column: str | None = None
    """Column (often a partition folder) with the day on which a row arrived. With it, rows that arrive too late
    (`features.late_days`) or ahead of their time are rejected."""

    mappable = (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE)

    @field_validator("time_format")
    @classmethod
    def _known_format(cls, form: str | None) -> str | None:
        if form is not None:
            noon = datetime(2001, 2, 3, 12, tzinfo=UTC)
            try:
                read = datetime.strptime(noon.strftime(form), form)
            except ValueError as error:
                raise ValueError(f"{form!r}: {error}; expected a format of strptime, such as '%d/%m/%Y %H:%M:%S'") from None
            if read.date() != noon.date():
                raise ValueError(f"{form!r} leaves the day open; expected a format of strptime, such as '%d/%m/%Y %H:%M:%S'")
        return form

    def label(self, position: int) -> str:
        """Name of the source in the tables."""
        return self.name or f"{position}:{self.format}"


class ItemSource(File):
    """Optional information on items: a title, attributes, a content vector."""

    attribute_columns: Advanced[list[str]] = Field(default_factory=list)
    """More columns with attributes, by their names in the files, such as `["brand", "category"]`. Each value is an attribute of
    the item: a text, a whole number, or each of a list."""
    number_columns: Advanced[list[str]] = Field(default_factory=list)
    """Columns with numbers, by their names in the files, such as `["price"]`. Items of similar numbers, less than half an octave
    (41 %) apart, share an attribute."""
    attribute_separator: Advanced[Annotated[str, Field(min_length=1)] | None] = None
    """Text between two attributes of an item, such as `|`, if a file holds several attributes of an item as one text."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.TITLE, c.ATTRIBUTES, c.CONTENT)


class ItemList(File):
    """An allow list or a block list: one row per item."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.LISTED)


class Cap(File):
    """Groups of items, such as brands, of which a list may hold only a few."""

    at_most: Count
    """Items of one group that a list may hold. An item may be in several groups; an item without a group is not limited."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.GROUP)
