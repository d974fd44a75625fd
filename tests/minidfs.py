"""HDFS on this machine: a NameNode and a DataNode in one Java process, on the loopback address alone.

``python tests/minidfs.py`` fetches its jars, once; only tests use them.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark

from metarec_spark.runtime.cache import cache_folder
from metarec_spark.runtime.jars import ensure_jars
from metarec_spark.runtime.java import ensure_java

# Beside Spark's own Hadoop, whose version this is.
JARS = (
    (
        "org.apache.hadoop",
        "hadoop-client-minicluster",
        "3.4.1",
        "5b90be54a39d856f237a4530e25f62aea4b67c180c73b5cfb1aff35c502b2d29",
    ),
    ("junit", "junit", "4.13.2", "8e495b634469d64fb8acfa3495a065cbacc8a0fff55ce1e31007be4c16dc57d3"),
    ("org.hamcrest", "hamcrest-core", "1.3", "66fdef91e9739348df7a096aa384a5685f4e875584cce89386a7a47251c4d8e9"),
)
_JVM = ("-Xmx400m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@contextmanager
def hdfs(folder: Path) -> Iterator[str]:
    """The URI of an empty file system, which lies in ``folder`` and goes at the end of the block."""
    java_home, details, log = ensure_java(cache_folder()), folder / "details.json", folder / "log"
    jars = [*ensure_jars(java_home, JARS), Path(pyspark.__path__[0]) / "jars" / "*"]
    settings = {"hdfs.minidfs.basedir": folder / "data", "dfs.permissions.enabled": "false"}
    command = [java_home / "bin" / "java", *_JVM, "-cp", ":".join(map(str, jars)), "org.apache.hadoop.test.MiniDFSClusterManager"]
    command += ["-format", "-datanodes", "1", "-writeDetails", details]
    command += [part for name, value in settings.items() for part in ("-D", f"{name}={value}")]
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder) as running:
        try:
            started = time.monotonic()
            while not (details.exists() and details.read_text().endswith("}")):
                assert running.poll() is None and time.monotonic() - started < 120, (
                    f"HDFS did not start:\n{log.read_text()[-3000:]}"
                )
                time.sleep(0.2)
            yield f"hdfs://127.0.0.1:{json.loads(details.read_text())['namenode_port']}"
        finally:
            running.kill()


if __name__ == "__main__":
    ensure_jars(ensure_java(cache_folder()), JARS)
