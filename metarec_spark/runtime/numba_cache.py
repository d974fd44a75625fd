"""Numba functions, compiled when they are first called and cached on disk in a folder that only this user can write."""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from metarec_spark.errors import ConfigError
from metarec_spark.runtime.cache import cache_folder


def compiled(function: Callable | None = None, **options: Any) -> Callable:
    """Compile a function of numbers and arrays, which then runs without Python's lock.

    Machine code is cached under the hash of its source: for all processes, also if the package is a zip, whose path differs from
    one Spark application to the next. If the cache folder is missing, or writable by other users, each process compiles anew,
    which takes some seconds. The hash covers the function's file and this one: functions that call each other stand in one file.
    """
    if function is None:
        return lambda decorated: compiled(decorated, **options)
    dispatcher: Any = njit(function, nogil=True, **options)
    with suppress(OSError, RuntimeError, ConfigError):  # no source, no home, or a folder that others may write
        dispatcher._cache = _LockedCache(function)
    return dispatcher


class _Locator(_CacheLocator):
    """Tells numba where a function's machine code is. Numba itself tells signatures, processors and its versions apart."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._hash = folder, hashlib.sha256(source.encode()).hexdigest()

    @classmethod
    def from_function(cls, function: Callable, file: str) -> _Locator:
        modules = sorted({__name__, function.__module__})
        return cls(_own_folder(), "".join(inspect.getsource(sys.modules[name]) for name in modules))

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._hash

    def get_disambiguator(self) -> str:
        """Part of the files' names: two versions of the package never write to one file."""
        return self._hash[:16]


@cache
def _own_folder() -> Path:
    """The cache folder; PermissionError if others may write to it, since its files are executed."""
    folder = cache_folder() / "compiled"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 (as numba declares it)


class _LockedCache(FunctionCache):
    """One process at a time reads or writes: two that compile for different arguments would give their files one name."""

    _impl_class = _CacheImpl

    def load_overload(self, *arguments: object) -> object:
        overload = None
        with suppress(OSError), self._lock():
            try:
                overload = super().load_overload(*arguments)
            except Exception:  # cut by a crash of the machine
                self.flush()
        return overload

    def save_overload(self, *arguments: object) -> None:
        with suppress(OSError), self._lock():  # if the disk is full, the next process compiles it again
            super().save_overload(*arguments)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (Path(self.cache_path) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@compiled(fastmath={"reassoc", "contract"})
def product(one: np.ndarray, other: np.ndarray) -> np.float64:
    """Dot product of two vectors, summed in float64."""
    total = np.float64(0.0)
    for i in range(len(one)):
        total += np.float64(one[i]) * np.float64(other[i])
    return total


@compiled
def products(ones: np.ndarray, others: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """[n] float32: dot products of ``ones[row]`` with ``others[column]``; each depends on its two vectors alone."""
    values = np.empty(len(row), np.float32)
    for i in range(len(row)):
        values[i] = product(ones[row[i]], others[column[i]])
    return values
