"""Read the configuration, one TOML file, and check it in full before any work starts.

An unknown key, a wrong type or a value out of range is an error that names the key, the value, what is expected and the
nearest known key.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlparse

from pydantic import Field, ValidationError, field_validator, model_validator

from metarec_spark.config.base import nearest
from metarec_spark.config.renamed import other_names, renamed
from metarec_spark.config.sections import (
    Adapt,
    Cap,
    Evaluate,
    Features,
    Feedback,
    File,
    ItemList,
    ItemSource,
    Lock,
    Maintain,
    Model,
    Platforms,
    Quality,
    Recommend,
    Section,
    Source,
    Spark,
    Split,
    Train,
    Transitions,
)
from metarec_spark.errors import ConfigError

FILES: dict[str, type[File]] = {"sources": Source, "items": ItemSource, "allow": ItemList, "block": ItemList, "cap": Cap}
"""Keys of the top level that hold any number of files → what each entry is."""


class Config(Section):
    """The whole configuration file."""

    warehouse: str
    """Root folder of all tables and models: an absolute path or URI (file, hdfs, or any file system that Spark writes and fsspec
    reads)."""
    sources: list[Source] = Field(default_factory=list)
    """Behaviour logs, any number of them."""
    items: list[ItemSource] = Field(default_factory=list)
    """Files with titles, attributes and content vectors of items."""
    allow: list[ItemList] = Field(default_factory=list)
    """On the platforms that these lists name, only their items are recommended. On other platforms every item may be."""
    block: list[ItemList] = Field(default_factory=list)
    """Items that are never recommended."""
    cap: list[Cap] = Field(default_factory=list)
    """Groups of items of which a list may hold only a few."""
    platforms: Platforms = Platforms()
    split: Split = Split()
    features: Features = Features()
    quality: Quality = Quality()
    transitions: Transitions = Transitions()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    adapt: Adapt = Adapt()
    recommend: Recommend = Recommend()
    feedback: Feedback = Feedback()
    maintain: Maintain = Maintain()
    lock: Lock = Lock()
    spark: Spark = Spark()

    @model_validator(mode="after")
    def _platforms_by_one_name(self) -> Self:
        alias = self.platforms.alias
        for file in (*self.sources, *self.items, *self.allow, *self.block, *self.cap):
            file.know_platforms_by(alias)
        seen = self.recommend.exclude_seen
        by_key: dict[str, dict[str, Any]] = {
            "recommend.exclude_seen": seen if isinstance(seen, dict) else {},
            "recommend.min_score": self.recommend.min_score,
            "features.dislike_below": self.features.dislike_below,
            "features.dislike_types": self.features.dislike_types,
            "features.context_types": self.features.context_types,
        }
        for key, named in by_key.items():
            for old in sorted(alias.keys() & named.keys()):
                raise ValueError(f"{key}: {old!r} is an alias of {alias[old]!r}: use that name here")
        return self

    @field_validator("warehouse")
    @classmethod
    def _absolute(cls, uri: str) -> str:
        scheme = urlparse(uri).scheme
        if not scheme and not uri.startswith("/"):
            raise ValueError(f"{uri!r} is relative; give an absolute path or a URI such as file:///data/metarec")
        return (uri if scheme else f"file://{uri}").rstrip("/")


def load(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a configuration file and apply ``section.key=value`` overrides.

    Parameters
    ----------
    path
        A TOML file.
    overrides
        Each ``section.key=value``; the value is read as TOML, and as plain text if it is not TOML.

    Raises
    ------
    ConfigError
        If the file cannot be read, or anything in it is not as expected.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration {path}: no such file; give one with --config FILE.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {path}: not valid TOML: {error}") from None
    return parse(overridden(raw, overrides or []), where=str(path))


def parse(raw: dict[str, Any], where: str = "configuration") -> Config:
    """Check a configuration given as plain tables; ``where`` names it in errors."""
    try:
        return Config.model_validate(renamed(raw, where))
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{where}: " + "; ".join(dict.fromkeys(lines))) from None


def overridden(raw: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply ``section.key=value`` overrides to plain tables, in place, and return them.

    Raises
    ------
    ConfigError
        If an override has another form. It names the key alone, since a value may be a secret.
    """
    for override in overrides:
        _apply(raw, override)
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {name}{equals and '=…'}: expected section.key=value")
    if keys[:2] == ["spark", "conf"] and len(keys) > 2:  # Spark's own names have dots
        keys[2:] = [".".join(keys[2:])]
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = raw
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {name}=…: {key} is not a section; expected section.key=value")
    for other in other_names(name.strip()):  # the override wins, whichever name the file uses
        table.pop(other.rpartition(".")[2], None)
    table[keys[-1]] = value


def _explain(problem: Any) -> str:
    """Say what is wrong with a key in one sentence. Values of [spark.conf] may be secrets and are never repeated."""
    parts = [str(part) for part in problem["loc"] if not str(part).startswith(("literal[", "constrained-int"))]
    if problem["loc"][-1:] == ("literal['auto']",) or problem["loc"][-1:] == ("constrained-int",):
        return f"{'.'.join(parts)} = {problem['input']!r}: expected 'auto' or a whole number from 1"
    key = ".".join(parts) or "configuration"
    if problem["type"] == "extra_forbidden":
        known = list(_section_at(parts[:-1]).model_fields)
        return f"unknown key {key!r}{nearest(parts[-1], known)}; known keys are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{key!r} is missing and has no default"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    value = "…" if parts[:2] in (["spark"], ["spark", "conf"]) else repr(problem["input"])
    return f"{key} = {value}: expected {expected}" if problem["type"] != "value_error" else f"{key}: {expected}"


def _section_at(parts: list[str]) -> type[Section]:
    if not parts:
        return Config
    if parts[0] in FILES:
        return FILES[parts[0]]
    section = Config.model_fields[parts[0]].default
    return type(section) if isinstance(section, Section) else Config
