"""Processes of a standalone cluster on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

import psutil


def kill_an_executor(cluster: list[int], running: subprocess.Popen) -> None:
    """One whose Python processes are at work."""
    least: dict[int, float] = {}
    while True:
        assert running.poll() is None, "it ended before"
        for executor in [process for worker in cluster for process in psutil.Process(worker).children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = [process.cpu_times() for process in executor.children(recursive=True)]
                seconds = sum(of.user + of.system for of in times)
                least[executor.pid] = min(seconds, least.get(executor.pid, seconds))
                if seconds > least[executor.pid]:
                    executor.kill()
                    return
        time.sleep(0.05)


def free_ports() -> tuple[int, int, int]:
    """Three ports of the loopback address that nothing listens on; the one after the last is free as well."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            found = []
            for _ in range(3):
                found.append(stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])
            stack.enter_context(socket.create_server(("127.0.0.1", found[-1] + 1)))
            return found[0], found[1], found[2]


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name ``folder`` or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            said = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in said or str(folder) in os.readlink(process / "cwd"):
                found.append(said)
    return found
