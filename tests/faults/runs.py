"""Jobs as processes of their own, watched from outside and killed. Nothing in the product knows of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
MARK = "METAREC_FAULTS"
"""Of a run and all that it starts, in their environment: by it they are found, wherever they went."""
_LONGEST, _GRACE = 900.0, 30.0
_EVERY = 0.008
LAUNCH = """
import sys
from metarec_spark.training.launch import launch
launch(sys.argv[1], 2, "local", None, timeout=60)
"""
"""Two ranks on this host, as the file that is named says."""
METAREC = (sys.executable, "-c", "from metarec_spark.cli import main; main()")

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

# What comes into being in a warehouse: table commits, and the steps of models on their way.
_FILES = (
    "_training/*/*.json",
    "_training/*/checkpoint.safetensors",
    "_training/*/refit/checkpoint.safetensors",
    "_training/*/runs/*/checkpoint.safetensors",
    "_training/*/twins/*/manifest.json",
    "_models/*/model.safetensors",
    "_models/*/manifest.json",
)
_FOLDERS = ("_transitions/*", "_rules/*", "_new_items/*")


@dataclass(frozen=True)
class Point:
    """When a run is killed."""

    step: str | None
    """A step as :class:`Steps` calls it; None: there is none to wait for."""
    seconds: float
    """After it, or after the start."""

    def __str__(self) -> str:
        return f"{self.step} + {self.seconds:.2f} s" if self.step else f"at {self.seconds:.1f} s"


class Steps:
    """What a run has brought about so far, as seen in the warehouse's folder; each thing by its kind and number."""

    def __init__(self, warehouse: Path) -> None:
        self._warehouse = str(warehouse)
        self._seen = set(self._there())
        self._counts: Counter[str] = Counter()
        self.last_commit = ""

    def new(self) -> list[str]:
        """Steps since the last call."""
        found = []
        for key in self._there():
            if key not in self._seen:
                self._seen.add(key)
                self._counts[key[0]] += 1
                found.append(f"{key[0]} #{self._counts[key[0]]}")
                if key[0].startswith("commit"):
                    self.last_commit = f"{key[0].removeprefix('commit ')} {int(Path(key[1]).stem)}"
        return found

    def _there(self) -> list[tuple[str, str, int]]:
        """(Kind, path, time); of what is written once, no time."""
        inside = self._warehouse
        found = []
        for path in sorted(glob("[a-z]*/_delta_log/*[0-9].json", root_dir=inside)):
            found.append((f"commit {path.split('/')[0]}", path, 0))
        for pattern in _FILES:
            for path in glob(pattern, root_dir=inside):
                with contextlib.suppress(FileNotFoundError):
                    found.append((f"{path.split('/')[0]} {Path(path).name}", path, os.stat(f"{inside}/{path}").st_mtime_ns))
        for pattern in _FOLDERS:
            found += [(path.split("/")[0], path, 0) for path in glob(pattern, root_dir=inside)]
        return found


def listening(processes: Iterable[int]) -> set[str]:
    """Addresses on which processes listen."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = psutil.Process(process).net_connections("inet")
            found |= {at.laddr.ip for at in connections if at.status == psutil.CONN_LISTEN}
    return found


class Run:
    """A command in a process group of its own."""

    def __init__(self, command: list[str], warehouse: Path, log: Path, **options: object) -> None:
        self._mark, self._out, self._log = uuid.uuid4().hex, log.with_suffix(".out"), log
        self.steps = Steps(warehouse)
        environment = os.environ | {"PYTHONPATH": str(ROOT), MARK: self._mark}
        log.parent.mkdir(parents=True, exist_ok=True)
        self._start = time.monotonic()
        with self._out.open("w") as out, log.open("w") as err:
            self._process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True, **options)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def running(self) -> bool:
        return self._process.poll() is None

    def until(self, point: Point) -> bool:
        """Wait for a point; False where the run ends before it."""
        while self.running():
            new = self.steps.new()
            if point.step in new:
                time.sleep(point.seconds)
                return self.running()
            if point.step is None and self.seconds >= point.seconds:
                return True
            self._check_time()
            time.sleep(_EVERY)
        return False

    def until_logged(self, text: str) -> bool:
        """Wait for a text in the log; False if the run ends before it."""
        while self.running():
            if text in self._log.read_text():
                return True
            self._check_time()
            time.sleep(_EVERY)
        return False

    def timed_steps(self) -> list[tuple[str, float]]:
        """Let it run to its end; its steps, each with the second at which it was seen."""
        found = []
        while self.running():
            found += [(step, self.seconds) for step in self.steps.new()]
            self._check_time()
            time.sleep(_EVERY)
        return found

    def pause(self) -> None:
        """Stop the whole process group where it stands; it can be killed, and goes on with nothing."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def kill(self, *, alone: bool = False) -> list[int]:
        """Kill the whole process group, or the driver ``alone``, and wait for all that it had started to end.

        Returns
        -------
        Processes that were still there after half a minute; they are killed too.
        """
        if self._process.poll() is None:
            (os.kill if alone else os.killpg)(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return self.rest()

    def rest(self) -> list[int]:
        """Wait for all processes of an ended run to end; what is there after half a minute is killed and returned."""
        end = time.monotonic() + _GRACE
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return left

    def processes(self, **variables: str) -> list[int]:
        """Process ids of the run and of all that it started; of those with these variables in their environment."""
        wanted = [f"{name}={value}".encode() for name, value in (variables | {MARK: self._mark}).items()]
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if set(wanted) <= set((process / "environ").read_bytes().split(b"\0")):
                    found.append(int(process.name))
        return found

    def end(self) -> tuple[int, dict, str]:
        """Wait for its end: exit code, result line, and what was logged."""
        while self.running():
            self._check_time()
            time.sleep(0.05)
        lines = self._out.read_text().splitlines()
        return self._process.returncode, json.loads(lines[-1]) if lines else {}, self._log.read_text()

    def _check_time(self) -> None:
        if self.seconds > _LONGEST:
            self.kill()
            raise TimeoutError(f"still running after {_LONGEST} s; its log is {self._log}")
