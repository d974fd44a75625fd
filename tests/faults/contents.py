"""What a warehouse holds, read without Spark: rows of tables, models, and what nothing names."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

from deltalake import DeltaTable

from metarec_spark.columns import ALL, RUNS
from metarec_spark.model import artifact

_SECONDS = ("seconds", "wall_seconds", "cpu_seconds")


def contents(warehouse: Path) -> dict[str, list[str]]:
    """Every row of every table as text, sorted; and the checksums of all models' files.

    Left out are when and how long something ran, where and when the log was written, the version of ``events`` that was read, which
    counts runs, and ``runs``.
    """
    names = [name for name in ALL if name != RUNS and (warehouse / name / "_delta_log").exists()]
    found = {name: sorted(map(_text, DeltaTable(warehouse / name).to_pyarrow_table().to_pylist())) for name in names}
    return found | {"model files": sorted(f"{name}: {sums}" for name, sums in models(warehouse).items())}


def models(warehouse: Path) -> dict[str, dict[str, str]]:
    """Checksums of the files of every model in table ``models``, and of its twin's.

    Raises
    ------
    DataError
        Where a file is missing or is not the one that was saved.
    """
    folders = {row["model_id"]: str(warehouse / row["path"]) for row in _rows(warehouse, "models")}
    return {
        name: {f"{part} {file}": value for part, place in parts for file, value in artifact.load(place).manifest.sha256.items()}
        for name, folder in folders.items()
        for parts in [(("serves", folder), ("measured", artifact.measured(folder)))]
    }


def _rows(warehouse: Path, name: str) -> list[dict]:
    return DeltaTable(warehouse / name).to_pyarrow_table().to_pylist() if (warehouse / name / "_delta_log").exists() else []


def _text(row: dict) -> str:
    for name in ("seconds", "read_at", "root", "modified"):
        row.pop(name, None)
    if "table_versions" in row:
        row["table_versions"] = sorted(pair for pair in row["table_versions"] if pair[0] != "events")
        row["metrics"] = {name: value for name, value in json.loads(row["metrics"]).items() if name not in _SECONDS}
        row["path"] = row["path"].rpartition("/")[2]
    return json.dumps(row, sort_keys=True, default=str)


def differences(expected: dict[str, list[str]], found: dict[str, list[str]]) -> list[str]:
    """A line for each table whose rows differ, with the first rows that only one has."""
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        one, other = expected.get(name, []), found.get(name, [])
        if one != other:
            missing, surplus = sorted(set(one) - set(other)), sorted(set(other) - set(one))
            said = f"{name}: {len(one)} rows expected, {len(other)} found; {len(missing)} missing {missing[:1]}"
            lines.append(f"{said}, {len(surplus)} surplus {surplus[:1]}")
    return lines


def leftovers(warehouse: Path) -> list[Path]:
    """Files that no commit of a table names, and those of whatever was on its way: no later run may read any of them."""
    found = [file for table in warehouse.glob("[a-z]*") if (table / "_delta_log").exists() for file in _uncommitted(table)]
    for scratch in ("_transitions", "_rules", "_new_items"):
        found += _files(warehouse / scratch)
    for model in warehouse.glob("_models/*"):
        if model.name.startswith(".") or not (model / "manifest.json").exists():
            found += _files(model)
    for work in warehouse.glob("_training/*"):
        # A snapshot is whole when the file that tells of it is there, and a candidate with its manifest.
        parts = [work / name for name in ("snapshot", "own", "target", "uniform", "weighted")]
        parts = [part for part in parts if not part.with_suffix(".json").exists()] + [work / "item_transitions"]
        parts += [part for part in [work / "refit" / "snapshot"] if not part.with_suffix(".json").exists()]
        models = [work / "twin", *work.glob("twins/*"), *work.glob("measured/*")]
        parts += [model for model in models if not (model / "manifest.json").exists()]
        found += [file for part in parts for file in _files(part)]
    found += [file for file in warehouse.glob("_*/**/.*.draft") if file.is_file()]
    return sorted(set(found))


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _uncommitted(table: Path) -> list[Path]:
    named = set()
    for commit in (table / "_delta_log").glob("*[0-9].json"):
        for line in commit.read_text().splitlines():
            named |= {unquote(action["path"]) for kind, action in json.loads(line).items() if kind in ("add", "remove", "cdc")}
    files = [file for file in table.rglob("*.parquet") if file.parent.name != "_delta_log"]
    return [file for file in files if str(file.relative_to(table)) not in named] + list((table / "_delta_log").glob(".*.tmp"))


def spoil(files: list[Path]) -> None:
    """Whoever reads one of them now fails."""
    for file in files:
        file.write_bytes(b"nothing that anybody can read")
