"""The Spark session: the one that spark-submit started, or a local one with Delta's jars, sized by its inputs."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from metarec_spark.config import Config
from metarec_spark.errors import ConfigError
from metarec_spark.runtime import class_archive
from metarec_spark.runtime.cache import cache_folder
from metarec_spark.runtime.isolation import ISOLATED, isolated_environment
from metarec_spark.runtime.jars import ensure_jars
from metarec_spark.runtime.java import ensure_java, without_vectors
from metarec_spark.runtime.sizing import sized_settings

_LONGEST_END = 5.0
"""Seconds from the last answer of a JVM that ends to its end."""

# What every session needs for the tables to mean the same everywhere, and for Python to take them in bounded pieces.
REQUIRED = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # every reader knows them, unlike Spark's default
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxBytesPerBatch": "64m",
}

# Defaults of a local session; [spark.conf] overrides them.
LOCAL = {
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
    "spark.driver.memory": "4g",
}
_QUIET = """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
logger.shell.name = org.apache.spark.api.python.PythonGatewayServer
logger.shell.level = error
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
"""
"""Log4j's configuration: Spark's warnings at its start are no news to anybody."""


def session(config: Config, app: str) -> SparkSession:
    """Return the active session, with what the product requires set; start one if there is none.

    Under spark-submit, jars, master and memory are the submitter's; see deploy/spark-defaults.conf.

    Raises
    ------
    ConfigError
        If Java or a jar is missing, Java does not start, or the machine has no name for this process's user id.
    """
    builder = SparkSession.builder.appName(app)
    for key, value in REQUIRED.items():
        builder = builder.config(key, value)
    if SparkContext._active_spark_context is not None:
        return builder.getOrCreate()
    _check_user()
    builder = builder.config("spark.hadoop.fs.permissions.umask-mode", f"{_umask():03o}")
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit hands its driver a gateway
        spark = builder.getOrCreate()
    else:
        with _launch(_local_settings(config)):
            spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def end_session() -> None:
    """Stop the session that this process started, and wait until its Java has ended."""
    context = SparkContext._active_spark_context
    gateway = SparkContext._gateway
    if context and gateway:
        context.stop()
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()


def java_end(error: BaseException) -> str | None:
    """How the driver's JVM ended, if the error is that it did; None if it lives.

    The error may be a later one, raised while a call to the JVM was cleaned up after.
    """
    lost = (Py4JError, ConnectionError)
    if not any(isinstance(e, lost) and not isinstance(e, Py4JJavaError) for e in _chain(error)) or SparkContext._gateway is None:
        return None
    process = SparkContext._gateway.proc
    if process is None:  # spark-submit's own, of which this process knows no more
        return "does not answer any more"
    try:
        code = process.wait(_LONGEST_END)
    except subprocess.TimeoutExpired:
        return None
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _check_user() -> None:
    """Hadoop, in the JVM, refuses to start for a user id without a name."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ConfigError(
            f"user id {os.geteuid()} has no name on this machine, and Hadoop, which Spark uses, does not start without one. Run "
            "as a user with a line in /etc/passwd (docker run --user NAME, runAsUser of such a user), or add one for this id"
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _local_settings(config: Config) -> dict[str, str]:
    java_home = ensure_java(cache_folder())
    jars = [str(jar) for jar in ensure_jars(java_home)]
    # On the driver's class path too: Java archives no classes of jars that are added later.
    own = {
        "spark.master": config.spark.master,
        "spark.jars": ",".join(jars),
        "spark.driver.extraClassPath": os.pathsep.join(jars),
    }
    return {**LOCAL, **sized_settings(config), **REQUIRED, **ISOLATED, **own, **config.spark.conf}


@contextmanager
def _launch(settings: dict[str, str]) -> Iterator[None]:
    """Let the block start a JVM with these settings. They go into a file that nobody else can read, since every user of a machine
    sees command lines."""
    folder = Path(tempfile.mkdtemp(prefix="metarec-conf-"))  # of mode 0700
    before = dict(os.environ)
    scratch = before.get("SPARK_LOCAL_DIRS") or settings.get("spark.local.dir") or tempfile.gettempdir()
    java = java_home = Path(before["JAVA_HOME"])
    with suppress(OSError):  # a cache that cannot be written costs a line of Java's on standard error
        java = without_vectors(java_home / "bin" / "java", cache_folder() / "spark-java")
    class_path = [Path(jar) for jar in settings["spark.driver.extraClassPath"].split(os.pathsep)]
    archive = class_archive.archive_path(java_home, class_path)
    changed = {"PYSPARK_PYTHON": sys.executable} | isolated_environment()
    changed |= {"JAVA_HOME": str(java), "SPARK_LOCAL_DIRS": _scratch(scratch)}
    try:
        quiet, file = folder / "log4j2.properties", folder / "spark.properties"
        quiet.write_text(_QUIET, encoding="utf-8")
        own = f"-Dlog4j2.configurationFile={quiet.as_uri()} {class_archive.reading(archive)}"
        options = f"{own} {settings.get('spark.driver.extraJavaOptions', '')}"
        settings = settings | {"spark.driver.extraJavaOptions": options.strip()}
        file.write_text("".join(f"{_key(name)} {_value(text)}\n" for name, text in settings.items()), encoding="utf-8")
        arguments = f"--load-spark-defaults --properties-file {shlex.quote(str(file))}"
        changed["PYSPARK_SUBMIT_ARGS"] = f"{arguments} {before.get('PYSPARK_SUBMIT_ARGS', 'pyspark-shell')}"
        if settings["spark.master"].startswith("local"):
            changed.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        os.environ.update(changed)
        yield
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise ConfigError(
            "Java, which runs Spark, ended when it was started; its own lines stand above. Check [spark.conf], and that "
            "spark.driver.memory (4g unless it is set there) is less than this machine's free memory"
        ) from None
    finally:
        for name in changed:
            os.environ.pop(name, None)
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def _key(name: str) -> str:
    """A key of a properties file."""
    return re.sub(r"([\\ \t:=#!])", r"\\\1", name)


def _value(text: str) -> str:
    """A value of a properties file."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return re.sub(r"^([ \t\f])", r"\\\1", text)


def _scratch(folders: str) -> str:
    """In each of these folders, one of this user's own: Spark's scratch files hold rows of the tables."""
    own = []
    for parent in folders.split(","):
        folder = Path(parent) / f"metarec-{os.geteuid()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        private = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077
        own.append(str(folder) if private else tempfile.mkdtemp(prefix="metarec-", dir=parent))
    return ",".join(own)
