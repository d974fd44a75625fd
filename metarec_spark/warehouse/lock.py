"""One job at a time writes to a warehouse: a lock on a file in it, which is released when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from py4j.protocol import Py4JJavaError

from metarec_spark.errors import Busy, ConfigError, first_line
from metarec_spark.warehouse.storage import atomic_write, exists, hadoop_path, local_path, read_bytes, remove

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FILE = "_lock"
"""Name of the file in the warehouse."""
_TAKEN = ("AlreadyBeingCreatedException", "RecoveryInProgressException", "FileAlreadyExistsException")
"""What HDFS raises if another client has the file, or had it until it died, or creates it at this moment."""
_EVERY = 1.0
"""Seconds between two tries."""
log = logging.getLogger("metarec_spark")


def can_lock(root: str) -> bool:
    """Whether a warehouse can be locked: in a folder or on HDFS; object stores have no such lock."""
    return local_path(root) is not None or root.startswith("hdfs:")


def warehouse_lock(spark: SparkSession, root: str, owner: str, longest_wait: float) -> AbstractContextManager[None]:
    """Hold the warehouse's lock for a block. If another process has it, the log names that one, and this one waits.

    On object stores there is no such lock, and no wait.

    Parameters
    ----------
    owner
        What others are told of this process.
    longest_wait
        Seconds.

    Raises
    ------
    ConfigError
        If the lock's file cannot be written.
    Busy
        If another process still has the lock after ``longest_wait``.
    """
    path = local_path(root)
    if path:
        return _locked(path / FILE, owner, longest_wait)
    return _leased(spark, f"{root}/{FILE}", owner, longest_wait) if can_lock(root) else nullcontext()


def _unwritable(location: object, error: object) -> ConfigError:
    return ConfigError(f"{location} cannot be written: {error}. Set warehouse to a folder that this user may write")


def _wait(attempt: Callable[[], bool], holder: Callable[[], str], folder: object, longest: float) -> None:
    """Try until an attempt succeeds; the log names who has the lock, once."""
    until, other = time.monotonic() + longest, ""
    while not attempt():
        if not other:
            other = holder() or "another run"
            log.warning("waiting for %s to end, which writes to %s", other, folder)
        if time.monotonic() > until:
            raise Busy(
                f"{folder} is still in use by {other} after {longest:.0f} s (lock.timeout_seconds); nothing was done. "
                "Run it again when that run has ended; if it hangs, end it"
            )
        time.sleep(_EVERY)


@contextmanager
def _locked(file: Path, owner: str, longest_wait: float) -> Iterator[None]:
    """A lock of this process alone: the processes that it starts do not inherit it, and who may only read cannot take it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
        if os.stat(opened.fileno()).st_uid == os.geteuid():
            os.chmod(opened.fileno(), 0o600)  # whatever the umask was, and whoever made it
    except OSError as error:
        raise _unwritable(file, error) from None
    with opened as lock:

        def attempt() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        def holder() -> str:
            lock.seek(0)
            return lock.read()

        _wait(attempt, holder, file.parent, longest_wait)
        lock.seek(0)
        lock.truncate()
        lock.write(owner)
        lock.flush()
        yield


@contextmanager
def _leased(spark: SparkSession, uri: str, owner: str, longest_wait: float) -> Iterator[None]:
    """HDFS lets one client at a time append to a file: the one with its lease, which the client's JVM renews as long as it lives.

    If it did not renew the lease for a minute, since it died or stood still, another client gets it. Nothing is appended, so no
    data node has a part in it; ``uri.owner`` tells who has the lease.
    """
    path, files = hadoop_path(spark, uri)
    streams, by = [], f"{uri}.owner"

    def attempt() -> bool:
        try:
            if not files.exists(path):
                files.create(path, False).close()
            streams.append(files.append(path))
        except Py4JJavaError as error:
            if not any(name in error.java_exception.toString() for name in _TAKEN):
                raise _unwritable(uri, first_line(error)) from None
            return False
        return True

    _wait(attempt, lambda: read_bytes(by).decode() if exists(by) else "", uri.rpartition("/")[0], longest_wait)
    try:
        with atomic_write(by) as draft:
            draft.write_text(owner, encoding="utf-8")
        yield
    finally:
        remove(by)
        try:
            streams[0].close()
        except Py4JJavaError as error:
            log.warning("the lock %s was not released, and may have been lost before: %s", uri, first_line(error))
