"""Keys and values of older configurations: they are still read, with one warning that names the new ones."""

from __future__ import annotations

import logging
from typing import Any

from metarec_spark.errors import ConfigError

log = logging.getLogger("metarec_spark")

OLD_KEYS = {
    "train.spectral_start": "train.spectral_init",
    "train.token_start": "train.token_init",
    "adapt.events": "adapt.training_events",
}
"""Old section.key → new section.key."""
REMOVED_KEYS = {"train.reader_pool": "Petastorm always reads in the rank itself"}
"""section.key that is no longer there → what holds instead; it is ignored with a warning."""
OLD_VALUES: dict[str, dict[str, str]] = {
    "adapt.modes": {
        "taught": "meta_trained_ranker",
        "finetuned": "fine_tuned",
        "lent": "cross_domain_heuristic",
        "pooled": "joint",
        "sample": "importance_sampled",
        "frozen": "frozen_encoder",
        "meta": "fine_tuned_from_meta",
    },
}
"""section.key → old value → new value, of keys that hold a choice or a list of choices."""


def other_names(key: str) -> list[str]:
    """Return the old or new names of a ``section.key``. A renamed key stays in its section."""
    return [other for pair in OLD_KEYS.items() if key in pair for other in pair if other != key]


def renamed(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a configuration, given as plain tables, with its old keys and values replaced by the new ones, and warn of them.

    Parameters
    ----------
    raw
        Tables as TOML gives them; not changed.
    where
        Name of the configuration in the warning and in errors.

    Raises
    ------
    ConfigError
        If a key is given by its old name and by its new one.
    """
    new, replaced = with_new_names(raw, where)
    if replaced:
        log.warning("%s uses old keys or values, which a later version will not read: %s", where, "; ".join(replaced))
    return new


def with_new_names(raw: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """As :func:`renamed`, with what was replaced in place of the warning; a model's manifest is read so."""
    new = {name: dict(section) if isinstance(section, dict) else section for name, section in raw.items()}
    return new, [*_rename_keys(new, where), *_remove_keys(new), *_rename_values(new)]


def _rename_keys(raw: dict[str, Any], where: str) -> list[str]:
    replaced = []
    for old, new in OLD_KEYS.items():
        (name, old_key), new_key = old.split("."), new.partition(".")[2]
        section = raw.get(name)
        if not isinstance(section, dict) or old_key not in section:
            continue
        if new_key in section:
            raise ConfigError(f"{where}: {old} is the old name of {new}, and both are given: remove {old}")
        section[new_key] = section.pop(old_key)
        replaced.append(f"{old} is now {new}")
    return replaced


def _remove_keys(raw: dict[str, Any]) -> list[str]:
    removed = []
    for name, instead in REMOVED_KEYS.items():
        section, key = name.split(".")
        if isinstance(raw.get(section), dict) and key in raw[section]:
            del raw[section][key]
            removed.append(f"{name} has no effect: {instead}")
    return removed


def _rename_values(raw: dict[str, Any]) -> list[str]:
    replaced: dict[str, None] = {}
    for name, new_values in OLD_VALUES.items():
        section, key = name.split(".")
        if not isinstance(raw.get(section), dict) or key not in raw[section]:
            continue
        value = raw[section][key]
        for old in value if isinstance(value, list) else [value]:
            if isinstance(old, str) and old in new_values:
                replaced[f"{name}: {old!r} is now {new_values[old]!r}"] = None
        raw[section][key] = (
            [_new_value(old, new_values) for old in value] if isinstance(value, list) else _new_value(value, new_values)
        )
    return list(replaced)


def _new_value(value: object, new_values: dict[str, str]) -> object:
    return new_values.get(value, value) if isinstance(value, str) else value
