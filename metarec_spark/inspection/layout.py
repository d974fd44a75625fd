"""Find the logs and catalogues below a path: files of one role become one source, by the shortest path that names them alone."""

from __future__ import annotations

import os.path
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import SparkSession

from metarec_spark import columns as c
from metarec_spark.config.inputs import Format
from metarec_spark.errors import DataError
from metarec_spark.inspection.guesses import guess_columns
from metarec_spark.inspection.samples import Sample, delta_sample, samples
from metarec_spark.sources.files import SourceFile, list_files
from metarec_spark.warehouse.storage import hadoop_path

Role = Literal["log", "catalogue", "unknown"]
_LOG = (c.EVENT_TIME, c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE, c.VALUE)
_CATALOGUE = (c.ITEM_ID, c.TITLE, c.ATTRIBUTES, c.CONTENT, c.DOMAIN)
_LOOKED_AT = 3
"""Files of a folder that are looked at: the first, the middle one and the last."""


@dataclass(frozen=True)
class FileSet:
    """Files that are one source of a configuration."""

    path: str
    format: Format
    role: Role
    files: int
    bytes: int
    columns: dict[str, str]
    """Our name → the files' name."""
    sample: Sample
    """Values of all files that were looked at."""


def find_sources(spark: SparkSession, path: str) -> list[FileSet]:
    """Return the sources below a path.

    Raises
    ------
    DataError
        If nothing is there, or a file cannot be read.
    """
    if _is_delta(spark, path):
        return [_file_set(path, "delta", [], delta_sample(spark, path))]
    files = list_files(spark, path)
    if not files:
        raise DataError(f"{path}: no file is there; check the path")
    root = _common_folder(files)
    tables = _delta_tables(spark, root, files)
    file_sets: list[FileSet] = []
    for table in tables:
        file_sets.append(
            _file_set(table, "delta", [file for file in files if file.path.startswith(f"{table}/")], delta_sample(spark, table))
        )
    plain = [file for file in files if not any(file.path.startswith(f"{table}/") for table in tables)]
    return file_sets + _file_sources(spark, path, root, plain)


def _file_sources(spark: SparkSession, path: str, root: str, files: Sequence[SourceFile]) -> list[FileSet]:
    by_folder: dict[tuple[str, str], list[SourceFile]] = defaultdict(list)
    for file in files:
        by_folder[os.path.dirname(file.path), _stem(file.path)].append(file)
    looked_at = [of_folder[i] for of_folder in by_folder.values() for i in _spread(len(of_folder))]
    begun = dict(zip(looked_at, samples(spark, looked_at), strict=True))
    groups: dict[tuple[Format, Role, str], list[SourceFile]] = defaultdict(list)
    seen: dict[tuple[Format, Role, str], list[Sample]] = defaultdict(list)
    for of_folder in by_folder.values():
        ours = [sample for file in of_folder if (sample := begun.get(file))]
        if not ours:
            continue  # empty files
        merged = _merged(ours)
        role, columns = _role(merged)
        # Files of one role whose columns mean the same by the same names are one source.
        key = merged.format, role, repr(sorted(columns.items())) if role != "unknown" else _stem(of_folder[0].path)
        groups[key] += of_folder
        seen[key] += ours
    file_sets: list[FileSet] = []
    for key, group in groups.items():
        whole = path if len(groups) == 1 else _name_of(group, [file for file in files if file not in group], root)
        file_sets.append(_file_set(whole, key[0], group, _merged(seen[key])))
    return sorted(file_sets, key=lambda one: (one.role, one.path))


def _file_set(path: str, form: Format, files: Sequence[SourceFile], sample: Sample) -> FileSet:
    role, columns = _role(sample)
    return FileSet(path, form, role, len(files), sum(file.size for file in files), columns, sample)


def _role(sample: Sample) -> tuple[Role, dict[str, str]]:
    """Return what files are for, and which of their columns is which."""
    as_log = guess_columns(sample.names, sample.values, _LOG)
    if {c.USER_ID, c.ITEM_ID, c.EVENT_TIME} <= as_log.keys():
        return "log", as_log
    as_catalogue = guess_columns(sample.names, sample.values, _CATALOGUE)
    if c.ITEM_ID not in as_catalogue:
        ids = [name for name in sample.names if name.casefold() == "id"]
        as_catalogue |= {c.ITEM_ID: ids[0]} if ids else {}
    if c.ITEM_ID in as_catalogue and as_catalogue.keys() & {c.TITLE, c.ATTRIBUTES, c.CONTENT} and c.USER_ID not in as_log:
        return "catalogue", as_catalogue
    return "unknown", as_log


def _merged(parts: Sequence[Sample]) -> Sample:
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    values = {name: [value for part in parts for value in part.values.get(name, [])] for name in names}
    folders = tuple(dict.fromkeys(name for part in parts for name in part.folders))
    return Sample(parts[0].format, names, values, folders)


def _spread(count: int) -> Iterator[int]:
    yield from sorted({0, count // 2, count - 1} if count >= _LOOKED_AT else range(count))


def _stem(path: str) -> str:
    """Return the letters of a file's name and its ending: part-0001.csv and part-0002.csv are of one kind."""
    name, _, ending = os.path.basename(path).partition(".")
    return f"{''.join(sign for sign in name if sign.isalpha())}.{ending.rpartition('.')[2]}"


def _common_folder(files: Sequence[SourceFile]) -> str:
    return os.path.dirname(files[0].path) if len(files) == 1 else os.path.commonpath([file.path for file in files])


def _name_of(group: Sequence[SourceFile], others: Sequence[SourceFile], root: str) -> str:
    """Return a path or glob that names these files and none of the others."""
    if len(group) == 1:
        return group[0].path
    folder = _common_folder(group)
    if folder != root and not any(file.path.startswith(f"{folder}/") for file in others):
        return folder
    names = [file.path.removeprefix(f"{folder}/") for file in group]
    prefix, ending = os.path.commonprefix(names), os.path.commonprefix([name[::-1] for name in names])[::-1]
    taken = [file.path.removeprefix(f"{folder}/") for file in others if file.path.startswith(f"{folder}/")]
    if any(name.startswith(prefix) and name.endswith(ending) for name in taken) or any("/" in name for name in names):
        raise DataError(
            f"{folder}: files of several kinds lie side by side, such as {group[0].path} and {others[0].path}, and no path names "
            "those of one kind alone; name each kind's files or folder, or move them apart"
        )
    return f"{folder}/{prefix}*{ending}"


def _is_delta(spark: SparkSession, path: str) -> bool:
    location, files = hadoop_path(spark, f"{path.rstrip('/')}/_delta_log")
    return not any(sign in path for sign in "*?[{") and bool(files.exists(location))


def _delta_tables(spark: SparkSession, root: str, files: Sequence[SourceFile]) -> list[str]:
    """Return the folders directly below the root that are Delta tables."""
    folders = {file.path.removeprefix(f"{root}/").split("/")[0] for file in files if "/" in file.path.removeprefix(f"{root}/")}
    return [f"{root}/{folder}" for folder in sorted(folders) if _is_delta(spark, f"{root}/{folder}")]
