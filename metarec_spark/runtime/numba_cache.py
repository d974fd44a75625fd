"""Loops that are compiled when they are first called, and kept compiled in the user's own cache."""

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

import numpy as np
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from metarec_spark.runtime.cache import cache_folder


def compiled(function: Callable | None = None, **options: object) -> Callable:
    """Compile a function of numbers and arrays, which then runs without Python's lock.

    What was compiled is kept under the hash of its source, in a folder of the user's cache: for all processes, also where the
    package is a zip, whose place is another for each Spark application. Where that folder cannot be had, or others may write to
    it, each process compiles anew, which takes some seconds. Of other files that a function calls, only a change of this one is
    seen: loops that call each other stand in one.
    """
    if function is None:
        return lambda of: compiled(of, **options)
    made = njit(function, nogil=True, **options)
    with suppress(OSError, RuntimeError):  # no source, no home, or a folder that is not this user's alone
        made._cache = _Kept(function)
    return made


class _Place(_CacheLocator):
    """Where numba finds what it has compiled. It tells signatures, processors and its own versions apart by itself."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._hash = folder, hashlib.sha256(source.encode()).hexdigest()

    @classmethod
    def from_function(cls, function: Callable, file: str) -> _Place:
        modules = sorted({__name__, function.__module__})
        return cls(_own_folder(), "".join(inspect.getsource(sys.modules[name]) for name in modules))

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._hash

    def get_disambiguator(self) -> str:
        """In the files' names: two versions of the package never write to one file."""
        return self._hash[:16]


@cache
def _own_folder() -> Path:
    """The folder of what is kept; an OSError where others might have put a file there: what is kept is run."""
    folder = cache_folder() / "compiled"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    said = folder.lstat()
    if not stat.S_ISDIR(said.st_mode) or said.st_uid != os.geteuid() or said.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


class _Places(CompileResultCacheImpl):
    _locator_classes = (_Place,)


class _Kept(FunctionCache):
    """One process at a time reads or writes: two that compile for different arguments would give their files one name."""

    _impl_class = _Places

    def load_overload(self, *of: object) -> object:
        found = None
        with suppress(OSError), self._turn():
            try:
                found = super().load_overload(*of)
            except Exception:  # what a crash of the machine left in part
                self.flush()
        return found

    def save_overload(self, *of: object) -> None:
        with suppress(OSError), self._turn():  # where there is no room, the next process compiles it again
            super().save_overload(*of)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with (Path(self.cache_path) / "turn").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield


@compiled(fastmath={"reassoc", "contract"})
def product(one, other):
    """Scalar product of two vectors, summed in float64."""
    total = 0.0
    for i in range(len(one)):
        total += np.float64(one[i]) * np.float64(other[i])
    return total


@compiled
def products(ones: np.ndarray, others: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """[n] float32: scalar products of ``ones[row]`` with ``others[column]``; each depends on its two vectors alone."""
    found = np.empty(len(row), np.float32)
    for i in range(len(row)):
        found[i] = product(ones[row[i]], others[column[i]])
    return found
