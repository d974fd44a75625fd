"""Files beside the tables: models, checkpoints, snapshots and their manifests, on this machine or on any other file system.

Spark reads and writes by URI. Python reads local files as they are; remote ones are first copied to local disk. What Python
writes is a local draft first, which then takes its place in one step.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from metarec_spark.errors import ConfigError, DataError

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject
    from pyspark.sql import SparkSession

Location = str | Path
"""A path of this machine, or a URI: of its own file system (``file:``), or of another."""
_LONGEST_RUN = 2 * 86_400
"""Seconds after which a scratch folder belongs to no run that still goes on."""


def file_uri(path: Path) -> str:
    """``file:`` URI of a path, as Hadoop spells it: without escapes, whatever characters a folder's name has."""
    return f"file://{path.absolute()}"


def uri(location: Location) -> str:
    """A location as a URI, which Spark takes."""
    path = local_path(location)
    return file_uri(path) if path else str(location)


def local_path(location: Location) -> Path | None:
    """The path on the machine's own file system, mounts included; None if the location is on another file system."""
    scheme, colon, path = str(location).partition(":")
    if isinstance(location, Path) or not colon or "/" in scheme:
        return Path(location)
    return Path("/" + path.lstrip("/")) if scheme == "file" else None


def _files(location: Location) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system, and the path there."""
    path = local_path(location)
    if path:
        return fsspec.filesystem("file"), str(path)
    try:
        # No cached instance: its listings would be out of date, since Spark writes there too; and a forked process, as Horovod
        # starts them, would wait forever for the threads of an HDFS client that it inherits.
        return fsspec.core.url_to_fs(location, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{location}: Spark writes there, but Python cannot read the models from it: {error}. Install the package that "
            "fsspec wants on every machine, or set warehouse to a folder on file: or hdfs:"
        ) from None


def sibling(location: Location, name: str) -> Location:
    """Another file or folder in the same folder."""
    return f"{str(location).rpartition('/')[0]}/{name}"


def exists(location: Location) -> bool:
    """Whether a file or folder exists.

    Raises
    ------
    ConfigError
        If no installed package can read that kind of file system.
    """
    files, path = _files(location)
    return files.exists(path)


def list_names(folder: Location) -> list[str]:
    """Sorted names of the files and folders directly in a folder; empty if there is no such folder."""
    files, path = _files(folder)
    return (
        sorted(path_in_folder.rpartition("/")[2] for path_in_folder in files.ls(path, detail=False)) if files.exists(path) else []
    )


def remove(location: Location) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
    files, path = _files(location)
    if files.exists(path):
        files.rm(path, recursive=True)


def read_bytes(file: Location) -> bytes:
    """Read a file."""
    files, path = _files(file)
    return files.cat_file(path)


def read_json(file: Location) -> dict:
    """Read a JSON object."""
    return json.loads(read_bytes(file))


def local_copy(location: Location, only: Sequence[str] | None = None) -> Path:
    """A path on this machine to read a file or folder from: its own if it is local, otherwise that of a copy.

    Parameters
    ----------
    only
        Names of the files of a folder that are needed: others are not copied.

    Raises
    ------
    DataError
        If a remote location holds nothing.

    Notes
    -----
    All processes of a Spark executor share a copy; any other process has its own. A copy is made anew if a file changed. It takes
    as much disk as the files, and is removed when the executor or process ends.
    """
    path = local_path(location)
    if path:
        return path
    files, folder = _files(location)
    remote_files = {name.removeprefix(folder).lstrip("/"): info for name, info in files.find(folder, detail=True).items()}
    remote_files = {name: info for name, info in remote_files.items() if only is None or name in only}
    if not remote_files:
        raise DataError(f"{location}: there is nothing: was it removed? Run the job that writes it again")
    states = [{key: value for key, value in info.items() if key != "access_time"} for info in remote_files.values()]
    copy = _copies() / hashlib.sha256(repr((location, states)).encode()).hexdigest()[:16]
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=copy.parent))
        for name in remote_files:
            to = draft / (name or "file")  # without a name: the location is a file itself
            to.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(f"{folder}/{name}" if name else folder, str(to))
        try:
            draft.rename(copy)
        except OSError:  # another process of this executor was faster
            shutil.rmtree(draft)
    return copy / "file" if "" in remote_files else copy


@cache
def _copies() -> Path:
    """Folder for copies: in an executor, within the folder that Spark removes with it; elsewhere, one of this process."""
    blocks = Path(os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0])
    if blocks.name.startswith("blockmgr-") and blocks.is_dir():
        folder = blocks / "metarec"
        folder.mkdir(exist_ok=True)
        return folder
    folder = Path(tempfile.mkdtemp(prefix="metarec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def atomic_write(location: Location) -> Iterator[Path]:
    """Yield a path to write a file or a folder to, which then takes its place in one step: no reader sees a part of it.

    Creates the folder around it. On local disks the contents are written through before the name is, so that a power failure
    leaves the old file or the new one.
    """
    path = local_path(location)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        yield draft
        for part in [*(draft.rglob("*") if draft.is_dir() else ()), draft]:
            _sync(part)
        if draft.is_dir() and path.exists():
            shutil.rmtree(path)
        draft.replace(path)
        _sync(path.parent)
    else:
        with tempfile.TemporaryDirectory(prefix="draft-", dir=_copies()) as folder:
            draft = Path(folder) / "draft"
            yield draft
            _upload(draft, *_files(location))


def _sync(path: Path) -> None:
    """Have a file's contents, or a folder's names, on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _upload(local: Path, files: fsspec.AbstractFileSystem, path: str) -> None:
    """Bring a file or a folder to another file system, first under a name that nobody reads."""
    folder, _, name = path.rpartition("/")
    draft = f"{folder}/.{name}.draft"
    if files.exists(draft):
        files.rm(draft, recursive=True)
    for file in [local] if local.is_file() else sorted(file for file in local.rglob("*") if file.is_file()):
        files.put_file(str(file), draft if file == local else f"{draft}/{file.relative_to(local)}")
    if local.is_dir() and files.exists(path):
        files.rm(path, recursive=True)
    files.mv(draft, path, recursive=True, overwrite=True)


def write_json(file: Location, value: dict) -> None:
    """Write a JSON object in one step."""
    with atomic_write(file) as draft:
        draft.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def jvm(spark: SparkSession) -> Any:
    """The driver's JVM, whose classes are found by name."""
    return spark.sparkContext._jvm


def delta_log(spark: SparkSession, folder: str) -> tuple[JavaObject, JavaObject]:
    """A Delta table's log and its newest snapshot, of version -1 if there is no table; from the log itself, without a query."""
    opened = jvm(spark).org.apache.spark.sql.delta.DeltaLog.forTableWithSnapshot(spark._jsparkSession, folder)
    return opened._1(), opened._2()


def hadoop_path(spark: SparkSession, uri: str) -> tuple[JavaObject, JavaObject]:
    """A path and its file system, as Hadoop knows them."""
    path = jvm(spark).org.apache.hadoop.fs.Path(uri)
    return path, path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())


def copy(spark: SparkSession, source: str, target: str) -> None:
    """Copy a folder by its URI; what the target holds is replaced."""
    (old, from_files), (new, to_files) = hadoop_path(spark, source), hadoop_path(spark, target)
    to_files.delete(new, True)
    configuration = spark.sparkContext._jsc.hadoopConfiguration()
    jvm(spark).org.apache.hadoop.fs.FileUtil.copy(from_files, old, to_files, new, False, configuration)


@contextmanager
def scratch_folder(spark: SparkSession, parent: str) -> Iterator[str]:
    """Yield the URI of a new folder, which is removed at the end of the block, as are folders that killed runs left beside it."""
    path, files = hadoop_path(spark, parent)
    for old in files.listStatus(path) if files.exists(path) else ():
        if time.time() - old.getModificationTime() / 1000 > _LONGEST_RUN:
            files.delete(old.getPath(), True)
    folder = f"{parent}/{uuid.uuid4().hex}"  # a name of its own: executors cache what they have read
    try:
        yield folder
    finally:
        files.delete(hadoop_path(spark, folder)[0], True)


@contextmanager
def session_conf(spark: SparkSession, values: dict[str, str]) -> Iterator[None]:
    """Session settings for a block: DML commands take no options, so that their commit metadata goes this way."""
    for key, value in values.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key in values:
            spark.conf.unset(key)
