"""doctor: whether this machine can run the jobs, part by part, and what to do about a part that cannot."""

from __future__ import annotations

import glob
import hashlib
import os
import pwd
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarec_spark.config import Config
from metarec_spark.errors import MetarecError
from metarec_spark.job import Details, Result
from metarec_spark.runtime.cache import cache_folder
from metarec_spark.runtime.jars import JARS, jar_path
from metarec_spark.runtime.java import ensure_java, java_version
from metarec_spark.runtime.logs import plain
from metarec_spark.warehouse.storage import exists, local_path

_LEAST_FREE, _LEAST_SCRATCH = 2 << 30, 5 << 30
"""Bytes free for tables, and for Spark's scratch files."""
_PYTHON_SHARE = 0.5
"""Memory of Python's processes (scoring, training) beside the JVM, as a share of the JVM's."""
_DRIVER_MEMORY = "4g"
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True)
class Check:
    """State of one part of the machine."""

    part: str
    state: Literal["ok", "warning", "error"]
    finding: str
    do: str = ""
    """What to do; empty if nothing is to be done."""


@dataclass(frozen=True)
class DoctorDetails(Details):
    """What doctor found."""

    checks: list[Check]


def doctor(config: Config | None) -> Result:
    """Check the machine and, if a configuration is given, what it names. Exit code 2 if a job could not run."""
    checks = [check for part in _PARTS for check in _guarded(part, config)]
    shown = Table("part", "state", "found", "what to do", title="metarec doctor")
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    for check in checks:
        state = Text(check.state, style=colours[check.state])
        shown.add_row(Text(check.part), state, Text(plain(check.finding)), Text(plain(check.do)))
    Console(stderr=True, width=None if Console(stderr=True).is_terminal else 160).print(shown)
    broken = sum(check.state == "error" for check in checks)
    return Result(rows_in=len(checks), rows_out=broken, details=DoctorDetails(checks), exit_code=2 if broken else 0)


def _guarded(part: Callable[[Config | None], Iterator[Check]], config: Config | None) -> list[Check]:
    """A part's checks; what fails unexpectedly is an error of that part."""
    try:
        return list(part(config))
    except Exception as error:
        return [Check(part.__name__.strip("_"), "error", f"{type(error).__name__}: {error}", "report this")]


def _python(_: Config | None) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info[:2] == (3, 11)
    do = "" if fits else "run deploy/setup.sh: it takes Python 3.11"
    yield Check("Python", "ok" if fits else "error", f"{version}, {sys.executable}", do)
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
        yield Check("user", "ok", f"{name} ({os.geteuid()}), umask {_umask():03o}")
    except KeyError:
        do = "run as a user with a line in /etc/passwd: Hadoop needs a name"
        yield Check("user", "error", f"user id {os.geteuid()} has no name", do)


def _packages(_: Config | None) -> Iterator[Check]:
    wrong = []
    for line in metadata.requires("metarec-spark") or []:
        pin = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
        if pin is None:  # of an extra, which need not be installed
            continue
        try:
            installed = metadata.version(pin[1])
        except metadata.PackageNotFoundError:
            installed = "missing"
        if installed.partition("+")[0] != pin[2]:
            wrong.append(f"{pin[1]} {installed}, expected {pin[2]}")
    yield Check("packages", "error" if wrong else "ok", "; ".join(wrong) or "as pinned", "run deploy/setup.sh" if wrong else "")


def _java(_: Config | None) -> Iterator[Check]:
    try:
        home = ensure_java(cache_folder())
        yield Check("Java", "ok", f"{java_version(home)}, {home}")
    except MetarecError as error:
        yield Check("Java", "error", "no Java 17 or newer", str(error))
    for _group, artifact, version, sha256 in JARS:
        path = jar_path(artifact, version)
        if not path.exists():
            yield Check(f"jar {artifact}", "error", f"{path} is missing", "run `metarec setup` once, with network")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            yield Check(f"jar {artifact}", "error", f"{path} is not the pinned one", "delete it and run `metarec setup`")
        else:
            yield Check(f"jar {artifact}", "ok", version)


def _horovod(config: Config | None) -> Iterator[Check]:
    from metarec_spark.training.distributed import built_with_gloo

    needed = config is None or config.train.processes > 1
    try:
        built, problem = built_with_gloo(), "built without Gloo"
    except Exception as error:
        built, problem = False, f"cannot be imported: {error}"
    do = "run deploy/setup.sh: it builds Horovod with Gloo; train.processes = 1 needs none"
    state: Literal["ok", "warning", "error"] = "ok" if built else "error" if needed else "warning"
    yield Check("Horovod", state, "built with Gloo" if built else problem, "" if built else do)


def _memory(config: Config | None) -> Iterator[Check]:
    driver = config.spark.conf.get("spark.driver.memory", _DRIVER_MEMORY) if config else _DRIVER_MEMORY
    needed, free = _bytes(driver) * (1 + _PYTHON_SHARE), _free_memory()
    fits = needed <= free
    do = f'set [spark.conf] "spark.driver.memory" to {max(1, int(free / (1 + _PYTHON_SHARE)) >> 30)}g or less'
    sizes = f"{free / 2**30:.1f} GB available; Java may take {driver}, Python about half as much beside it"
    yield Check("memory", "ok" if fits else "warning", sizes, "" if fits else do)


def _disks(config: Config | None) -> Iterator[Check]:
    scratch = Path(os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0] or tempfile.gettempdir())
    yield _free("scratch", scratch, _LEAST_SCRATCH, "set TMPDIR or SPARK_LOCAL_DIRS to a larger disk")
    yield _free("cache", _existing(cache_folder()), 1 << 20, "set XDG_CACHE_HOME to a folder that this user may write")
    if config and (folder := local_path(config.warehouse)):
        do = "set warehouse to a folder that this user may write, on a larger disk"
        yield _free("warehouse", _existing(folder), _LEAST_FREE, do)
        if folder.exists() and folder.stat().st_mode & stat.S_IWOTH:
            do = f"chmod o-w {folder}; see docs/security.md"
            yield Check("warehouse", "warning", f"{folder} may be written by everybody", do)
    elif config:
        exists(config.warehouse)  # or says which package is missing
        yield Check("warehouse", "ok", f"{config.warehouse} answers")


def _sources(config: Config | None) -> Iterator[Check]:
    for source in (*config.sources, *config.items) if config else ():
        path = local_path(source.path)
        if path and "{" not in str(path):
            files = [path] if path.exists() else list(map(Path, glob.glob(str(path))))
            readable = bool(files) and all(os.access(part, os.R_OK) for part in files)
            do = "" if readable else "correct the path, or let this user read it"
            yield Check("source", "ok" if readable else "error", f"{path}{'' if readable else ' cannot be read'}", do)


_PARTS = (_python, _packages, _java, _horovod, _memory, _disks, _sources)


def _free(part: str, folder: Path, least: int, do: str) -> Check:
    free, writable = shutil.disk_usage(folder).free, os.access(folder, os.W_OK)
    state = f"{folder}: {free / 2**30:.1f} GB free" + ("" if writable else ", not writable")
    if writable and free >= least:
        return Check(part, "ok", state)
    return Check(part, "warning" if writable else "error", state, do)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(part for part in (folder, *folder.parents) if part.exists())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _bytes(text: str) -> float:
    size = re.fullmatch(r"(\d+)\s*([kmgt]?)b?", text.strip().lower())
    return int(size[1]) * _UNITS.get(size[2], 1) if size else 0


def _free_memory() -> int:
    """Bytes that are available to this process: the machine's, or what its container may still take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free
