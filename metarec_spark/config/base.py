"""What every section of the configuration shares: strict types, frozen values, and the tier of each key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, TypeVar
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]


class Tier(StrEnum):
    """Who needs to know a key."""

    EVERYDAY = "everyday"
    """Everybody who runs the product on a log of their own."""
    ADVANCED = "advanced"
    """People who tune quality, speed or operations; the defaults were measured or are safe."""
    EXPERIMENTAL = "experimental"
    """Research options: off by default, because no measurement speaks for them yet."""


Advanced = Annotated[T, Tier.ADVANCED]
"""Marks a key as advanced: ``late_days: Advanced[Count] = 2``. A key without a mark is an everyday key."""
Experimental = Annotated[T, Tier.EXPERIMENTAL]
"""Marks a key as experimental."""


class Section(BaseModel):
    """A table of the configuration file: frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def tier(field: FieldInfo) -> Tier:
    """Return the tier of a key."""
    return next((mark for mark in field.metadata if isinstance(mark, Tier)), Tier.EVERYDAY)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return ", did you mean …?" if a known name is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def _known_zone(name: str) -> str:
    if name not in available_timezones() and not re.fullmatch(r"[+-]\d\d:\d\d", name):
        close = nearest(name, sorted(available_timezones()))
        raise ValueError(f"no time zone {name!r}{close}; use a name such as 'Europe/Berlin', or an offset such as '+02:00'")
    return name


Zone = Annotated[str, AfterValidator(_known_zone)]
