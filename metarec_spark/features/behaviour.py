"""What events mean: which are dislikes, and which are context alone, by platform, event type and value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Features

Field = Callable[[str], Column]
"""The column of an event that has this name."""
ContextTypes = Mapping[str, Sequence[str]]
"""Platform → its event types that are context alone."""
NO_CONTEXT: ContextTypes = {}


def meanings(features: Features) -> list[dict[str, object]]:
    """Return the settings of this module that are set, each under its name."""
    names = ("dislike_below", "dislike_types", "context_types")
    return [{name: value} for name in names if (value := getattr(features, name))]


def unmatched(features: Features, domains: Collection[str], event_types: Collection[str]) -> list[str]:
    """Return the platforms and context types that the settings name and no event has, each with its key."""
    lost = []
    for key in ("dislike_below", "dislike_types", "context_types"):
        lost += [f"{key}: platform {domain!r}" for domain in sorted(getattr(features, key)) if domain not in domains]
    for domain, names in sorted(features.context_types.items()):
        lost += [f"context_types.{domain}: type {name!r}" for name in names if name not in event_types]
    return lost


def has_dislikes(features: Features) -> bool:
    """Return whether any event can be a dislike."""
    return bool(features.dislike_below or features.dislike_types)


def is_dislike(features: Features, field: Field = F.col) -> Column:
    """Return whether an event's ``value`` or type says that the user does not like the item."""
    by_value = [
        (field(c.DOMAIN) == F.lit(domain)) & (field(c.VALUE) < F.lit(least)) for domain, least in features.dislike_below.items()
    ]
    return _any([*by_value, *_of_types(features.dislike_types, field)])


def is_context(context_types: ContextTypes, field: Field = F.col) -> Column:
    """Return whether an event is context alone: models read it, and neither predict it nor are measured by it."""
    return _any(_of_types(context_types, field))


def _of_types(types: ContextTypes, field: Field) -> list[Column]:
    return [(field(c.DOMAIN) == F.lit(domain)) & field(c.EVENT_TYPE).isin(list(names)) for domain, names in types.items()]


def _any(parts: list[Column]) -> Column:
    return F.coalesce(reduce(Column.__or__, parts, F.lit(False)), F.lit(False))
