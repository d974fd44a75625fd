"""Tiny snapshots: Parquet files in the shapes that ranks read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from model.factories import MANIFEST, SHAPE, SMALL

from metarec_spark.config.sections import Model, Train
from metarec_spark.model.manifest import DomainSettings
from metarec_spark.training import snapshot
from metarec_spark.training.reader import Shard
from metarec_spark.training.spec import TrainSpec

ITEMS = 20


def walks(users: int = 30, length: int = 6) -> list[list[int]]:
    """Users who walk on by one item an event, each from another start; nobody has more than ``length`` events."""
    return [[(start + step) % ITEMS for step in range(2 + start % (length - 1))] for start in range(users)]


def rows(sequences: list[list[int]], **more: list[int]) -> pa.Table:
    """Encoded sequences of items, whose domains alternate."""
    width = SHAPE.max_length

    def padded(of):
        return pa.array(
            [[of(item) for item in sequence] + [0] * (width - len(sequence)) for sequence in sequences], pa.list_(pa.int32())
        )

    arrays = {
        "item_idx": padded(lambda i: i),
        "domain": padded(lambda i: i % 2),
        "event_type": padded(lambda i: 1),
        "gap": padded(lambda i: 3),
    }
    counts = {"length": [len(sequence) for sequence in sequences], **more}
    return pa.table(arrays | {name: pa.array(values, pa.int32()) for name, values in counts.items()})


def written(folder: Path, table: pa.Table, files: int = 4) -> Path:
    """Write rows to so many files, of one row group each."""
    folder.mkdir(parents=True)
    for file, part in enumerate(np.array_split(np.arange(table.num_rows), files)):
        pq.write_table(table.take(pa.array(part)), folder / f"part-{file}.parquet")
    return folder


def shard(folder: Path, rank: int = 0, size: int = 1) -> Shard:
    return Shard(folder, rank, size)


def settings(**fields: object) -> Train:
    """A short training without early stopping and stacking."""
    short = {"epochs": 3, "batch_tokens": 64, "learning_rate": 0.02, "precision": "float32", "stacking_pairs": 0}
    return Train(**(short | fields))


def spec(
    folder: Path,
    train: Train,
    *,
    sequences: list[list[int]] | None = None,
    files: int = 4,
    model: dict | None = None,
    given: Sequence[list[float]] = (),
    inherited: dict[str, DomainSettings] | None = None,
) -> Path:
    """A whole snapshot, and the file that ranks start from; ``given`` are the content vectors of the first items."""
    sequences = sequences or walks()
    at = folder / "snapshot"
    written(at / snapshot.SEQUENCES, rows(sequences, half=[user % 2 for user in range(len(sequences))]), files)
    contexts = [sequence[:-1] for sequence in sequences]
    targets = [sequence[-1] for sequence in sequences]
    written(
        at / "validation",
        rows(contexts, target=targets, target_domain=[t % 2 for t in targets], pair=list(range(len(targets)))),
        files,
    )
    items = {"item_idx": range(ITEMS), "item_id": [f"i{i}" for i in range(ITEMS)], "domain": [i % 2 for i in range(ITEMS)]}
    written(
        at / snapshot.ITEMS,
        pa.table({name: pa.array(values) for name, values in items.items()}).append_column("train_events", pa.array([1] * ITEMS)),
        1,
    )
    tokens = {"item_idx": range(ITEMS), "token": [i % 3 for i in range(ITEMS)], "weight": pa.array([1.0] * ITEMS, pa.float32())}
    written(at / snapshot.TOKENS, pa.table({name: pa.array(values) for name, values in tokens.items()}), 1)
    vectors = {"item_idx": pa.array(range(len(given)), pa.int32()), "vector": pa.array(given, pa.list_(pa.float32()))}
    written(at / snapshot.VECTORS, pa.table({name: pa.array(values) for name, values in vectors.items()}), 1)
    pairs = {
        "item_idx": range(ITEMS),
        "successor": [(i + 1) % ITEMS for i in range(ITEMS)],
        **{
            signal: pa.array([weight] * ITEMS, pa.float32())
            for signal, weight in (("forward", 1.0), ("backward", 0.5), ("similarity", 0.0))
        },
    }
    written(at / snapshot.TRANSITIONS, pa.table({name: pa.array(values) for name, values in pairs.items()}), 1)
    manifest = MANIFEST.model_copy(
        update={
            "vector_widths": sorted({len(vector) for vector in given} - {0}),
            "model": Model(**SMALL | (model or {})),
            "train": train,
            "inherited": inherited or {},
            "sequences": len(sequences),
        }
    )
    file = folder / "spec.json"
    TrainSpec(snapshot=str(at), model=str(folder / "model"), manifest=manifest, threads=2).write(file)
    return file


def changed(file: Path, **fields: object) -> Path:
    """The spec file with other values of some fields; those of the manifest are given as ``manifest``, a dictionary."""
    spec = TrainSpec.read(file)
    manifest = spec.manifest.model_copy(update=fields.pop("manifest", {}))
    spec.model_copy(update=fields | {"manifest": manifest}).write(file)
    return file
