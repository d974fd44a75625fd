"""Loops that are compiled when they are first called, and kept compiled beside the package where that can be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import njit


def compiled(function: Callable | None = None, **options: object) -> Callable:
    """Compile a function of numbers and arrays, which then runs without Python's lock.

    Numba keeps what it has compiled in ``NUMBA_CACHE_DIR``, in the package or in the user's cache. Where none of them can be
    written, and where the package is a zip, whose place is another for each Spark application, each process compiles anew, which
    takes some seconds. It sees no change in functions of other files: loops that call each other stand in one.
    """
    if function is None:
        return lambda of: compiled(of, **options)
    try:
        return njit(function, nogil=True, cache=Path(function.__code__.co_filename).is_file(), **options)
    except RuntimeError:  # "no locator available": there is no place to keep it
        return njit(function, nogil=True, **options)


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
