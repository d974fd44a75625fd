"""Delta's jars: fetched once by Spark's own Ivy, checked, cached, and used without network from then on."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pyspark

from metarec_spark.errors import ConfigError
from metarec_spark.runtime.cache import cache_folder

# (group, artifact, version, sha256): all that Delta needs on top of Spark's own jars.
JARS = (
    ("io.delta", "delta-spark_4.0_2.13", "4.3.1", "29cf792052bcce08c58827953cdbcc29b8b21c52f9747a22e72eac2b64cf57e9"),
    ("io.delta", "delta-storage", "4.3.1", "577c12c7e371be4c041714fb48e88ad86e3c3512beea2bdaffbe7a4debf79718"),
)


def ensure_jars(java_home: Path, jars: Sequence[tuple[str, str, str, str]] = JARS) -> list[Path]:
    """Return the jars' paths, fetching those that the cache lacks.

    Raises
    ------
    ConfigError
        If a jar cannot be fetched, or is not the pinned one.
    """
    return [_ensure(java_home, *jar) for jar in jars]


def jar_path(artifact: str, version: str) -> Path:
    """Where a jar is cached."""
    return cache_folder() / "jars" / f"{artifact}-{version}.jar"


def _ensure(java_home: Path, group: str, artifact: str, version: str, sha256: str) -> Path:
    path = jar_path(artifact, version)
    folder = path.parent
    if not path.exists():
        ivy = next((Path(pyspark.__path__[0]) / "jars").glob("ivy-*.jar"))
        command = [java_home / "bin" / "java", "-cp", ivy, "org.apache.ivy.Main", "-cache", cache_folder() / "ivy"]
        command += ["-dependency", group, artifact, version, "-confs", "default", "-notransitive"]
        command += ["-retrieve", folder / "[artifact]-[revision].[ext]"]
        run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if run.returncode or not path.exists():
            raise ConfigError(
                f"jar {group}:{artifact}:{version} could not be fetched into {folder}; run once with network, or put the "
                f"file there. Ivy said: {(run.stdout + run.stderr)[-500:]}"
            )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise ConfigError(f"jar {path} has sha256 {digest}, expected {sha256}; delete it and run again")
    return path
