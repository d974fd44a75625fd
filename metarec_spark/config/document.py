"""Write the page on the configuration from the keys' own docstrings.

``python -m metarec_spark.config.document > docs/configuration.md``
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from metarec_spark.config.base import Section, Tier, tier
from metarec_spark.config.inputs import File
from metarec_spark.config.loader import FILES, Config
from metarec_spark.config.renamed import OLD_KEYS, OLD_VALUES

_INTRODUCTION = """\
# Configuration

<!-- Generated: python -m metarec_spark.config.document > docs/configuration.md -->

One TOML file holds the configuration. `warehouse` and one `[[sources]]` are all that a first night needs; every other key has a
default. On the command line, `--set section.key=value` overrides a key, any number of times. An unknown key, a wrong type or a
value out of range stops the command with exit code 2 before any work; the message names the key, the value and what is expected.

Keys come in three tiers. Most installations set **everyday** keys only.
"""
_TIERS = {
    Tier.EVERYDAY: "What a person sets who runs the product on a log of their own.",
    Tier.ADVANCED: "To tune quality, speed or operations. The defaults were measured ([benchmarks](benchmarks.md)) or are safe.",
    Tier.EXPERIMENTAL: "Off by default: no measurement speaks for them yet. They may change or go in any version.",
}
_COLUMNS = "| key | values | default | meaning |\n|---|---|---|---|"
_NAMES = {date: "date, such as 1995-01-01", int: "whole number", float: "number", str: "text", bool: "true or false"}
_SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def document() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for level, about in _TIERS.items():
        parts.append(f"## {level.value.capitalize()} keys\n\n{about}\n")
        for described in sections():
            if rows := described.rows(level):
                parts.append(f"### {described.heading}\n\n{described.about}\n\n{_COLUMNS}\n{rows}\n")
    old = [f"| `{key}` | `{new}` |" for key, new in OLD_KEYS.items()]
    old += [f"| `{key} = {value!r}` | `{new!r}` |" for key, values in OLD_VALUES.items() for value, new in values.items()]
    parts.append("## Renamed keys\n\nOld names are still read, with one warning that names the new one.\n")
    parts.append("| old | new |\n|---|---|\n" + "\n".join(old))
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class Described:
    """A section as the page shows it."""

    heading: str
    about: str
    """What the section is for."""
    section: type[Section]
    keys: list[str]
    """Names of its fields that are shown under this heading."""

    def rows(self, level: Tier) -> str:
        """Return the table rows of the keys of one tier."""
        fields = {key: self.section.model_fields[key] for key in self.keys}
        return "\n".join(_row(key, field) for key, field in fields.items() if tier(field) is level)


def sections() -> Iterator[Described]:
    """Iterate over the top level, the kinds of files, and the sections, in the order of the page."""
    top = {name: field for name, field in Config.model_fields.items() if not _is_section(field)}
    yield Described("Top level", "Before any section.", Config, list(top))
    every_file = "Keys of each `[[sources]]`, `[[items]]`, `[[allow]]`, `[[block]]` and `[[cap]]`."
    yield Described("Every file", every_file, File, list(File.model_fields))
    for name, section in FILES.items():
        own = [key for key in section.model_fields if key not in File.model_fields]
        yield Described(f"`[[{name}]]`", _text(section.__doc__), section, own)
    for name, field in Config.model_fields.items():
        if _is_section(field):
            section = type(field.default)
            yield Described(f"`[{name}]`", _text(section.__doc__), section, list(section.model_fields))


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.default, Section)


def _row(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = "required" if field.is_required() else "–" if default is None or default in ([], {}) else f"`{_toml(default)}`"
    return f"| `{name}` | {_values(field.annotation, field.metadata)} | {shown} | {_text(field.description)} |"


def _values(annotation: object, limits: list[object] | tuple[object, ...] = ()) -> str:
    """Say which values a type accepts."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _values(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_values(part) for part in arguments if part is not type(None))
    if origin is list:
        inner = arguments[0]
        return "list of tables" if isinstance(inner, type) and issubclass(inner, Section) else f"list of {_values(inner)}"
    if origin is dict:
        return f"table: {_values(arguments[0])} = {_values(arguments[1])}"
    flat = [limit for mark in limits for limit in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    bounds = [f"{_SIGNS[type(limit)]} {getattr(limit, type(limit).__name__.lower())}" for limit in flat if type(limit) in _SIGNS]
    return " ".join([_NAMES[annotation], *filter(None, [", ".join(bounds)])]) if isinstance(annotation, type) else str(annotation)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("|", "\\|")  # a bar would end the table's cell
    return (
        f"[{', '.join(map(_toml, value))}]"
        if isinstance(value, list)
        else f"{value:_}"
        if isinstance(value, int)
        else f"{value:g}"
    )


def _text(docstring: str | None) -> str:
    """Return a docstring on one line, as Markdown in a table cell takes it."""
    return re.sub(r"\s+", " ", docstring or "").strip().replace("|", "\\|")


if __name__ == "__main__":
    print(document(), end="")
