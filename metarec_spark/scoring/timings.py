"""Processor seconds that executors spend on each part of making lists."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import SparkContext

ENCODING, ADDITIONS, SEARCH = PARTS = "encoding", "additions", "search"
WHOLE, OTHER = "whole", "other"


class Timings:
    """Processor seconds of tasks, in all and by part; a task that runs twice counts twice.

    Spark's own work (reading, shuffling, writing) is not counted.
    """

    def __init__(self, context: SparkContext) -> None:
        self._seconds = {name: context.accumulator(0.0) for name in (WHOLE, *PARTS)}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add, in a task, the processor time of a block to a part."""
        start = time.process_time()
        yield
        self._seconds[part] += time.process_time() - start

    def seconds(self) -> dict[str, float]:
        """Return the seconds by part, on the driver; "other" is loading models, reading batches and assembling lists."""
        totals = {name: seconds.value for name, seconds in self._seconds.items()}
        parts = {name: totals[name] for name in PARTS}
        return parts | {OTHER: totals[WHOLE] - sum(parts.values())}
