"""What every reader returns: files of one kind as rows with our names, and types that are still the files' own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T


@dataclass(frozen=True)
class Group:
    """Files of a source that are alike."""

    rows: DataFrame
    """Our columns, each as the files have it, without those that they lack; and ``file``, ``modified`` and ``problem``."""
    example: str
    """One of the files."""
    kind: Literal["csv", "json", "typed"]
    """csv: all is text, numbers too. json: text is text, and numbers were made text. typed: each column has its type."""
    spelled: dict[str, str] = field(default_factory=dict)
    """Columns by our names → what the files call them."""
    nanoseconds: dict[str, bool] = field(default_factory=dict)
    """Columns of nanoseconds since 1970; whether they count in UTC, otherwise in a local time."""

    @property
    def types(self) -> dict[str, T.DataType]:
        """Type of each column."""
        return {column.name: column.dataType for column in self.rows.schema}

    def get(self, name: str) -> Column:
        """Return a column, null if the files lack it."""
        return F.col(name) if name in self.types else F.lit(None).cast("string")
