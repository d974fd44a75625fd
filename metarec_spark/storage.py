"""Small files beside the tables (models, checkpoints, snapshots' manifests), on any file system that fsspec knows."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import fsspec

from metarec_spark.errors import DataError


def local_path(uri: str) -> Path:
    """The path behind a ``file:`` URI.

    Raises
    ------
    DataError
        Where the URI is on another file system.
    """
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        raise DataError(
            f"{uri}: model files and snapshots must lie on a file system that every rank mounts (file:), got {parsed.scheme}:"
        )
    return Path(url2pathname(parsed.path))


def read_json(uri: str) -> dict:
    """Read a JSON object."""
    with fsspec.open(_spelled(uri), "r", encoding="utf-8") as file:
        return json.load(file)


def write_json(uri: str, value: dict) -> None:
    """Write a JSON object whole: readers see the old file or the new one."""
    path = local_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(path)


def _spelled(uri: str) -> str:
    return str(local_path(uri)) if urlparse(uri).scheme in ("", "file") else uri
