"""Commands as a user starts them, timed and weighed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_PERIOD = 3.0


@dataclass(frozen=True)
class Ended:
    """A command that ended well."""

    result: dict[str, Any]
    """The last line on its standard output."""
    seconds: float
    """Wall time."""
    peak: float
    """Peak memory of its process tree in GB: proportional set size, sampled every three seconds."""


def run(command: list[object], log: Path, **environment: str) -> Ended:
    """Run a command whose last line on standard output is a JSON object; its standard error goes to ``log``.

    The program ends if the command fails.
    """
    start, peak = time.monotonic(), 0.0
    with log.open("w") as errors:
        running = subprocess.Popen(
            list(map(str, command)), env=os.environ | environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        while running.poll() is None:
            peak = max(peak, memory(running.pid))
            time.sleep(_PERIOD)
    seconds, lines = time.monotonic() - start, running.stdout.read().splitlines()
    if running.returncode or not lines:
        sys.exit(f"{' '.join(map(str, command))} failed with {running.returncode}: {lines[-1:]}; see {log}")
    return Ended(json.loads(lines[-1]), seconds, peak)


def memory(root: int) -> float:
    """Memory of a process tree in GB."""
    total = 0
    try:
        tree = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in tree:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return total / 2**30
