"""Jobs that die in this process, at the two places where state becomes visible: a Delta commit, and storage's atomic rename.

``finally`` blocks still run, which kill -9 does not let them: test_jobs.py kills processes for that, and drill.py does it often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isfunction
from pathlib import Path

import pytest
from faults.runs import Steps

from metarec_spark.warehouse.tables import Warehouse


class Killed(BaseException):
    """No ``except Exception`` of a job may catch it."""


@contextmanager
def at(point: str, warehouse: Path, act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` once in the block, at a point.

    Parameters
    ----------
    point
        A step as :class:`Steps` calls it: it has just become visible. Or ``before FOLDER``: the first rename into that folder of
        the warehouse is about to happen.
    """
    steps, rename, done = Steps(warehouse), Path.replace, []

    def reached() -> None:
        if not done:
            done.append(point)
            act()

    def watched(method: Callable) -> Callable:
        @wraps(method)
        def watching(*given: object, **named: object) -> object:
            result = method(*given, **named)
            if point in steps.new():
                reached()
            return result

        return watching

    def renamed(draft: Path, to: Path) -> Path:
        if point == f"before {to.parent.name}":
            reached()
        return watched(rename)(draft, to)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "replace", renamed)
        for name, method in vars(Warehouse).items():
            if isfunction(method) and not name.startswith("_"):
                patched.setattr(Warehouse, name, watched(method))
        yield
    assert done, f"{point} was not reached"


@contextmanager
def killed(point: str, warehouse: Path) -> Iterator[None]:
    """Raise :class:`Killed` in the block, at a point, and expect it."""

    def die() -> None:
        raise Killed(point)

    with at(point, warehouse, die), pytest.raises(Killed):
        yield
