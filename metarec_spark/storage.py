"""Small files beside the tables: models, checkpoints, snapshots and their manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metarec_spark.errors import DataError


def file_uri(path: Path) -> str:
    """``file:`` URI of a path, as Hadoop spells it: no character is escaped, whatever a folder is called."""
    return f"file://{path.absolute()}"


def local_path(uri: str) -> Path:
    """The path behind a ``file:`` URI.

    Raises
    ------
    DataError
        Where the URI is on another file system.
    """
    scheme, _, path = uri.partition(":")
    if scheme != "file":
        raise DataError(f"{uri}: models and snapshots must lie on a file system that every rank mounts (file:), got {scheme}:")
    return Path("/" + path.lstrip("/"))


def read_json(path: Path) -> dict:
    """Read a JSON object."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to write, which then takes the file's place: readers see the old file or the new one. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    yield draft
    draft.replace(path)


def write_json(path: Path, value: dict) -> None:
    """Write a JSON object whole."""
    with whole(path) as draft:
        draft.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
