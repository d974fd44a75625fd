"""One job at a time writes to a warehouse: by a lock on a file of it, which goes with its holder, however that ends."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from py4j.protocol import Py4JJavaError

from metarec_spark.errors import ConfigError, first_line
from metarec_spark.warehouse.storage import atomic_write, exists, hadoop_path, local_path, read_bytes, remove

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TAKEN = ("AlreadyBeingCreatedException", "RecoveryInProgressException", "FileAlreadyExistsException")
"""What HDFS raises where another client has the file, or had it until it died, or made it at this moment."""
_EVERY = 2.0
"""Seconds between two tries."""
log = logging.getLogger("metarec_spark")


def warehouse_lock(spark: SparkSession, uri: str, who: str) -> AbstractContextManager[None]:
    """Hold the lock on a file for a block, and wait for it where another process has it, which the log then names.

    On object stores there is no such lock, and nothing is waited for.

    Raises
    ------
    ConfigError
        Where the file cannot be written.
    """
    path = local_path(uri)
    if path:
        return _locked(path, who)
    return _leased(spark, uri, who) if uri.startswith("hdfs:") else nullcontext()


def _unwritable(place: object, error: object) -> ConfigError:
    return ConfigError(f"{place} cannot be written: {error}. Set warehouse to a folder that this user may write")


def _wait_for(who: str, folder: object) -> None:
    log.warning("waiting for %s to end, which writes to %s", who or "another run", folder)


@contextmanager
def _locked(file: Path, who: str) -> Iterator[None]:
    """The lock is the process's own: it is not handed on to those it starts."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("a+", encoding="utf-8")
    except OSError as error:
        raise _unwritable(file.parent, error) from None
    with opened as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            _wait_for(held.read(), file.parent)
            fcntl.flock(held, fcntl.LOCK_EX)
        held.truncate(0)
        held.write(who)
        held.flush()
        yield


@contextmanager
def _leased(spark: SparkSession, uri: str, who: str) -> Iterator[None]:
    """HDFS lets one client at a time append to a file: the one with its lease. The client's JVM renews that as long as it lives;
    where it did not for a minute, since it died or stood still, another gets the lease. Nothing is appended, so no data node
    has a part in it; ``uri.by`` tells whose turn it is."""
    path, files = hadoop_path(spark, uri)
    held, waiting, by = None, False, f"{uri}.by"
    while held is None:
        try:
            if not files.exists(path):
                files.create(path, False).close()
            held = files.append(path)
        except Py4JJavaError as error:
            if not any(name in error.java_exception.toString() for name in _TAKEN):
                raise _unwritable(uri, first_line(error)) from None
            if not waiting:
                _wait_for(read_bytes(by).decode() if exists(by) else "", uri.rpartition("/")[0])
            waiting = True
            time.sleep(_EVERY)
    try:
        with atomic_write(by) as draft:
            draft.write_text(who, encoding="utf-8")
        yield
    finally:
        remove(by)
        try:
            held.close()
        except Py4JJavaError as error:
            log.warning("the turn on %s was not given back, and may have been lost before: %s", uri, first_line(error))
