"""Java's archive of classes (class data sharing, JEP 350): a session that starts from it spends half the time on loading them.

``metarec setup`` lets Java write the archive at the end of a small extract. It belongs to one Java and one set of jars. Java
ignores an archive that does not fit, so nothing depends on it but time.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyspark

from metarec_spark.runtime.cache import cache_folder

_SECONDS = 1800
_QUIET = "-Xlog:cds=off -Xlog:cds+dynamic=off"


def archive_path(java_home: Path, jars: Sequence[Path]) -> Path:
    """Where the archive for this Java, this Spark and these jars lies."""
    java, spark = (java_home / "bin" / "java").resolve(), Path(pyspark.__path__[0]) / "jars"
    # Java refuses an archive of a jar whose time has changed, as that of a reinstalled Spark's has.
    parts = [(str(file), file.stat().st_mtime_ns) for file in (java, *sorted(spark.glob("*.jar")), *jars)]
    return cache_folder() / "classes" / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.jsa"


def reading(archive: Path) -> str:
    """Java's options to start from the archive; none if it is not there."""
    return f'"-XX:SharedArchiveFile={archive}" {_QUIET}' if archive.exists() else ""


def writing(archive: Path) -> str:
    """Java's options to write the archive at its end."""
    return f'"-XX:ArchiveClassesAtExit={archive}" {_QUIET}'


def ensure_archive(archive: Path, work: str) -> str | None:
    """Write the archive unless it is there.

    Parameters
    ----------
    work
        ``module:function`` that is called with the path of the archive, in a process of its own, and lets Java write it.

    Returns
    -------
    Why there is none, or None.
    """
    if archive.exists():
        return None
    archive.parent.mkdir(parents=True, exist_ok=True)
    module, function = work.split(":")
    draft = archive.with_name(f"{archive.name}.{os.getpid()}")
    code = f"import sys; from {module} import {function}; {function}(sys.argv[1])"
    try:
        ended = subprocess.run([sys.executable, "-c", code, draft], capture_output=True, text=True, timeout=_SECONDS)
        if ended.returncode or not draft.exists():
            return f"exit code {ended.returncode}: {(ended.stdout + ended.stderr)[-500:]}"
        draft.replace(archive)
    except subprocess.TimeoutExpired:
        return f"more than {_SECONDS} s"
    finally:
        draft.unlink(missing_ok=True)
    return None
