"""What lies beside the tables: models, checkpoints, snapshots and their manifests, on this machine or on any file system.

Spark reads and writes by URI. What Python reads by itself, it reads as files of this machine: those of the machine's own file
system where they lie, others as copies. What it writes is made here, and then put in its place whole.
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
"""Seconds after which no run uses its scratch folder any more."""


def file_uri(path: Path) -> str:
    """``file:`` URI of a path, as Hadoop spells it: no character is escaped, whatever a folder is called."""
    return f"file://{path.absolute()}"


def uri(place: Location) -> str:
    """The place as Spark takes it."""
    path = local_path(place)
    return file_uri(path) if path else str(place)


def local_path(place: Location) -> Path | None:
    """The path on the machine's own file system, mounts included; None where the place is on another."""
    scheme, colon, path = str(place).partition(":")
    if isinstance(place, Path) or not colon or "/" in scheme:
        return Path(place)
    return Path("/" + path.lstrip("/")) if scheme == "file" else None


def _files(place: Location) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system, and the path there."""
    path = local_path(place)
    if path:
        return fsspec.filesystem("file"), str(path)
    try:
        # Nothing is kept: Spark writes there too; and a process that is forked, as Horovod does, waits forever for the threads of
        # an HDFS client that it inherits.
        return fsspec.core.url_to_fs(place, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{place}: Spark writes there, but Python cannot read the models from it: {error}. Install the package that fsspec "
            "wants on every machine, or set warehouse to a folder on file: or hdfs:"
        ) from None


def sibling(place: Location, name: str) -> Location:
    """Another place in the same folder."""
    return f"{str(place).rpartition('/')[0]}/{name}"


def exists(place: Location) -> bool:
    """Whether there is such a file or folder.

    Raises
    ------
    ConfigError
        Where nothing here can read that kind of file system.
    """
    files, path = _files(place)
    return files.exists(path)


def list_names(folder: Location) -> list[str]:
    """Of what lies directly in a folder, sorted; nothing where there is no such folder."""
    files, path = _files(folder)
    return sorted(found.rpartition("/")[2] for found in files.ls(path, detail=False)) if files.exists(path) else []


def remove(place: Location) -> None:
    """Remove a file, or a folder with all that is in it, where it is there."""
    files, path = _files(place)
    if files.exists(path):
        files.rm(path, recursive=True)


def read_bytes(file: Location) -> bytes:
    """A file's bytes, as they are now."""
    files, path = _files(file)
    return files.cat_file(path)


def read_json(file: Location) -> dict:
    """Read a JSON object."""
    return json.loads(read_bytes(file))


def local_copy(place: Location, only: Sequence[str] | None = None) -> Path:
    """The file or folder as a path of this machine: its own where it lies here, otherwise a copy to read.

    Parameters
    ----------
    only
        Names of the files of a folder that are needed: others are not copied.

    Raises
    ------
    DataError
        Where a place elsewhere holds nothing.

    Notes
    -----
    A copy is made once by all processes of a Spark executor, and once by any other process, as long as nothing changes there; it
    takes as much disk as the files, and goes when the executor or process ends.
    """
    path = local_path(place)
    if path:
        return path
    files, folder = _files(place)
    found = {name.removeprefix(folder).lstrip("/"): info for name, info in files.find(folder, detail=True).items()}
    found = {name: info for name, info in found.items() if only is None or name in only}
    if not found:
        raise DataError(f"{place}: nothing lies there: was it removed? Run the job that writes it again")
    states = [{key: said for key, said in info.items() if key != "access_time"} for info in found.values()]
    copy = _copies() / hashlib.sha256(repr((place, states)).encode()).hexdigest()[:16]
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=copy.parent))
        for name in found:
            to = draft / (name or "file")  # without a name: the place is a file itself
            to.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(f"{folder}/{name}" if name else folder, str(to))
        try:
            draft.rename(copy)
        except OSError:  # another process of this executor was faster
            shutil.rmtree(draft)
    return copy / "file" if "" in found else copy


@cache
def _copies() -> Path:
    """Folder for copies: within the one that Spark removes with the executor; outside of executors, one of this process."""
    of_executor = Path(os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0])
    if of_executor.name.startswith("blockmgr-") and of_executor.is_dir():
        folder = of_executor / "metarec"
        folder.mkdir(exist_ok=True)
        return folder
    folder = Path(tempfile.mkdtemp(prefix="metarec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def atomic_write(place: Location) -> Iterator[Path]:
    """A draft to write, a file or a folder, which then takes the place: no reader ever sees a part of it.

    Makes the folder that the place is in.
    """
    path = local_path(place)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        yield draft
        if draft.is_dir() and path.exists():
            shutil.rmtree(path)
        draft.replace(path)
    else:
        with tempfile.TemporaryDirectory(prefix="draft-", dir=_copies()) as folder:
            draft = Path(folder) / "draft"
            yield draft
            _put(draft, *_files(place))


def _put(made: Path, files: fsspec.AbstractFileSystem, path: str) -> None:
    """Bring a file or a folder to another file system, first under a name that nobody reads."""
    folder, _, name = path.rpartition("/")
    draft = f"{folder}/.{name}.draft"
    if files.exists(draft):
        files.rm(draft, recursive=True)
    for file in [made] if made.is_file() else sorted(file for file in made.rglob("*") if file.is_file()):
        files.put_file(str(file), draft if file == made else f"{draft}/{file.relative_to(made)}")
    if made.is_dir() and files.exists(path):
        files.rm(path, recursive=True)
    files.mv(draft, path, recursive=True, overwrite=True)


def write_json(file: Location, value: dict) -> None:
    """Write a JSON object whole."""
    with atomic_write(file) as draft:
        draft.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def jvm(spark: SparkSession) -> Any:
    """The driver's JVM, whose classes are found by name."""
    return spark.sparkContext._jvm


def hadoop_path(spark: SparkSession, uri: str) -> tuple[JavaObject, JavaObject]:
    """A path and its file system, as Hadoop knows them."""
    path = jvm(spark).org.apache.hadoop.fs.Path(uri)
    return path, path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())


@contextmanager
def scratch_folder(spark: SparkSession, parent: str) -> Iterator[str]:
    """The URI of a new folder, which goes at the end of the block; so do those that killed runs left in the parent."""
    path, files = hadoop_path(spark, parent)
    for left in files.listStatus(path) if files.exists(path) else ():
        if time.time() - left.getModificationTime() / 1000 > _LONGEST_RUN:
            files.delete(left.getPath(), True)
    folder = f"{parent}/{uuid.uuid4().hex}"  # a name of its own: executors keep what they have read
    try:
        yield folder
    finally:
        files.delete(hadoop_path(spark, folder)[0], True)
