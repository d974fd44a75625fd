"""Progress of an epoch: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

log = logging.getLogger("metarec_spark")
_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows loss, sequences per second and the remaining time of one epoch."""

    def __init__(self, title: str, steps: int, epochs_after: int, *, shown: bool) -> None:
        self.title, self.steps, self.epochs_after = title, steps, epochs_after
        self.done, self.start, self.last = 0, time.monotonic(), time.monotonic()
        self.terminal = shown and sys.stderr.isatty()
        self.lines = shown and not self.terminal
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")
        self.bar = Bar(*columns, console=Console(stderr=True), transient=True, disable=not self.terminal)
        self.task = self.bar.add_task(title, total=steps, text="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, loss: float, sequences: int) -> None:
        """Count a step; ``loss`` is the mean so far, ``sequences`` the number so far on this rank."""
        self.done += 1
        now = time.monotonic()
        if not (self.terminal or (self.lines and now - self.last > _SECONDS_BETWEEN_LINES)):
            return
        self.last = now
        elapsed = now - self.start
        left = elapsed / self.done * (self.steps - self.done + self.steps * self.epochs_after)
        text = f"loss {loss:.4f}, {sequences / elapsed:.0f} sequences/s, {left:.0f} s left at most"
        self.bar.update(self.task, advance=1, text=text)
        if self.lines:
            log.info("%s: step %d/%d, %s", self.title, self.done, self.steps, text)
