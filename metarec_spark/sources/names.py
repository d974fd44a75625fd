"""Find our columns among the names that a file has: by mapped name, letter case aside, or by a dotted path into nested fields."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metarec_spark import columns as c
from metarec_spark.errors import DataError

if TYPE_CHECKING:  # tasks import this file, and need no configuration
    from metarec_spark.config.inputs import File

DAY = "day_column"
"""Our name of the column that says when a row arrived."""
_RATING = "rating"
_IDS = (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE, c.GROUP)
_DEFAULTS = {c.EVENT_TYPE: "event", c.LISTED: "true"}
_SEVERAL = (c.ATTRIBUTES, c.CONTENT, c.GROUP)
Tree = Mapping[str, object]
"""Names of a file; a name that has names below it comes with a mapping of these."""


@dataclass(frozen=True)
class Wanted:
    """A column of ours that files are searched for."""

    name: str
    """Our name."""
    spellings: tuple[str, ...]
    """What a file may call it, in order of preference."""
    required: bool = False
    """Whether each file must have it."""
    mapped: bool = False
    """Whether the configuration names it; then at least one file must have it."""
    default: str | None = None
    """Text of the column in a file, or in a JSON object, that has no such name."""
    is_id: bool = False
    """Whether its numbers are names: 101.0 is 101."""
    several: bool = False
    """Whether a row holds several values."""
    separator: str | None = None
    """What separates several values that are given as one text."""
    or_one: bool = False
    """Whether a text that is no list is one value, where a row may hold several."""


def wanted(
    source: File,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    day: str | None = None,
    separator: str | None = None,
) -> list[Wanted]:
    """Return the columns to search the files of a source for; no domain if the whole source is of one.

    Parameters
    ----------
    day
        The file's own name of the column that says when a row arrived.
    separator
        What separates attributes that are given as one text.
    """
    names = [name for name in (*required, *optional) if not (name == c.DOMAIN and source.domain)]
    columns = [
        Wanted(
            name,
            (source.columns[name],) if name in source.columns else (name, _RATING) if name == c.VALUE else (name,),
            required=name in required,
            mapped=name in source.columns,
            default=_DEFAULTS.get(name),
            is_id=name in _IDS,
            several=name in _SEVERAL,
            separator=separator if name == c.ATTRIBUTES else None,
            or_one=name == c.GROUP,
        )
        for name in names
    ]
    return [*columns, Wanted(DAY, (day,), required=True, mapped=True)] if day else columns


def find(column: Wanted, tree: Tree) -> tuple[str, ...] | None:
    """Return the path of a column in a file, one name a level; None if the file lacks it.

    The exact name comes first, then one that differs in letter case alone, then dotted paths.

    Raises
    ------
    DataError
        If several names differ in letter case alone and none of them is exact.
    """
    return next((path for path in (_find(spelling, tree) for spelling in column.spellings) if path), None)


def _find(spelling: str, tree: Tree) -> tuple[str, ...] | None:
    name = _one(spelling, tree)
    if name is not None:
        return (name,)
    parts = spelling.split(".")
    for length in range(len(parts) - 1, 0, -1):
        first = _one(".".join(parts[:length]), tree)
        below = None if first is None else tree[first]
        rest = _find(".".join(parts[length:]), below) if isinstance(below, Mapping) else None
        if first is not None and rest:
            return (first, *rest)
    return None


def _one(spelling: str, tree: Tree) -> str | None:
    if spelling in tree:
        return spelling
    close = [name for name in tree if name.casefold() == spelling.casefold()]
    if len(close) > 1:
        raise DataError(f"{spelling!r} may be {' or '.join(map(repr, close))}; map the one that is meant, or rename the others")
    return close[0] if close else None


def merged(trees: Sequence[Tree]) -> dict[str, object]:
    """Return the names of several files, or of several JSON objects, as one tree."""
    names: dict[str, object] = {}
    for tree in trees:
        for name, below in tree.items():
            known = names.get(name)
            both = [one for one in (known, below) if isinstance(one, Mapping)]
            names[name] = merged(both) if both else None
    return names


def flat(tree: Tree, prefix: str = "") -> list[str]:
    """Return the dotted paths of all names of a file."""
    paths = []
    for name, below in tree.items():
        paths += flat(below, f"{prefix}{name}.") if isinstance(below, Mapping) and below else [prefix + name]
    return paths


def missing(column: Wanted, tree: Tree) -> str:
    """Return the message for a column that a file lacks, with the nearest name that it has."""
    names = flat(tree)
    listed = ", ".join(names) or "no names at all"
    if column.mapped:
        return f"no column {column.spellings[0]!r} among {listed}"
    close = difflib.get_close_matches(column.name, names, n=1)
    hint = (
        f"did you mean columns = {{ {column.name} = {close[0]!r} }}?" if close else f'map it: columns = {{ {column.name} = "…" }}'
    )
    return f"no column {column.name!r} among {listed}; {hint}"


def check(columns: Sequence[Wanted], trees: Mapping[str, Tree], *, in_each: bool) -> None:
    """Check that files have the columns that they must have.

    Parameters
    ----------
    trees
        File → its names.
    in_each
        Whether a required column must be in each file; otherwise in at least one, as a mapped one.

    Raises
    ------
    DataError
        If a column is missing, with the file.
    """
    for column in columns:
        lacking = []
        for file, tree in trees.items():
            try:
                if not find(column, tree):
                    lacking.append(file)
            except DataError as error:
                raise DataError(f"{file}: {error}") from None
        if (
            lacking
            and (len(lacking) == len(trees) if not (column.required and in_each) else True)
            and (column.required or column.mapped)
        ):
            others = f" (as {len(lacking) - 1} more files)" if len(lacking) > 1 else ""
            raise DataError(f"{lacking[0]}{others}: {missing(column, trees[lacking[0]])}")
