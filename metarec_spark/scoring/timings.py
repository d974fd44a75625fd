"""Where the executors' time goes while lists are made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import SparkContext

ENCODING, ADDITIONS, SEARCH = PARTS = "encoding", "additions", "search"
WHOLE, OTHER = "whole", "other"


class Timings:
    """Processor seconds that tasks take, whole and by part; a task that is run twice counts twice.

    Spark's own, for reading, shuffling and writing, are not among them.
    """

    def __init__(self, context: SparkContext) -> None:
        self._seconds = {name: context.accumulator(0.0) for name in (WHOLE, *PARTS)}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count, in a task, what a block takes."""
        start = time.process_time()
        yield
        self._seconds[name] += time.process_time() - start

    def seconds(self) -> dict[str, float]:
        """By part, on the driver; other: models are loaded, batches read and lists put together."""
        found = {name: seconds.value for name, seconds in self._seconds.items()}
        parts = {name: found[name] for name in PARTS}
        return parts | {OTHER: found[WHOLE] - sum(parts.values())}
