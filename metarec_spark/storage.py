"""Small files beside the tables: models, checkpoints, snapshots and their manifests."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from metarec_spark.errors import ConfigError, DataError

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject
    from pyspark.sql import SparkSession

_LONGEST_RUN = 2 * 86_400
"""Seconds after which no run uses its scratch folder any more."""
log = logging.getLogger("metarec_spark")


def cache_folder() -> Path:
    """Of what a user need not fetch or make again: ``$XDG_CACHE_HOME/metarec_spark``, by default ``~/.cache/metarec_spark``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarec_spark"


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


@contextmanager
def turn(file: Path, who: str) -> Iterator[None]:
    """Hold a file's lock for a block, and wait for it where another process has it, which the log then names.

    The lock is the process's own: it goes when the process ends, however that ends, and is not handed on to those it starts.

    Raises
    ------
    ConfigError
        Where the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("a+", encoding="utf-8")
    except OSError as error:
        said = f"{file.parent} cannot be written: {error}"
        raise ConfigError(f"{said}. Set warehouse to a folder that this user may write") from None
    with opened as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            log.warning("waiting for %s to end, which writes to %s", held.read() or "another run", file.parent)
            fcntl.flock(held, fcntl.LOCK_EX)
        held.truncate(0)
        held.write(who)
        held.flush()
        yield


def hadoop(spark: SparkSession, uri: str) -> tuple[JavaObject, JavaObject]:
    """A path and its file system, as Hadoop knows them."""
    path = spark.sparkContext._jvm.org.apache.hadoop.fs.Path(uri)
    return path, path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())


@contextmanager
def scratch(spark: SparkSession, parent: str) -> Iterator[str]:
    """The URI of a new folder, which goes at the end of the block; so do those that killed runs left in the parent."""
    path, files = hadoop(spark, parent)
    for left in files.listStatus(path) if files.exists(path) else ():
        if time.time() - left.getModificationTime() / 1000 > _LONGEST_RUN:
            files.delete(left.getPath(), True)
    folder = f"{parent}/{uuid.uuid4().hex}"  # a name of its own: executors keep what they have read
    try:
        yield folder
    finally:
        files.delete(hadoop(spark, folder)[0], True)
