"""Held-out pairs as the ranking loop reads them, and a model with baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from model.factories import padded
from scipy import sparse

from metarec_spark.model import artifact, baselines
from metarec_spark.model.baselines import Baselines


def batch_of(*pairs: dict) -> pa.RecordBatch:
    """Pairs given by context, target, seen, repeat and train_events; all of domain 0, the even items."""
    defaults = {"context": [2, 4], "target": 6, "seen": [], "repeat": False, "train_events": 3}
    pairs = [defaults | pair for pair in pairs]
    made, length = padded([pair["context"] for pair in pairs])
    arrays = {
        name: [row[:of].tolist() for row, of in zip(array, length, strict=True)]
        for name, array in zip(("item_idx", "domain", "event_type", "gap"), made, strict=True)
    }
    ints = {"target": "target", "train_events": "train_events"}
    columns = {name: pa.array(values, pa.list_(pa.int32())) for name, values in arrays.items()}
    columns |= {name: pa.array([pair[key] for pair in pairs], pa.int32()) for name, key in ints.items()}
    columns |= {
        "user_id": pa.array([f"u{n}" for n in range(len(pairs))]),
        "length": pa.array(length, pa.int32()),
        "seen": pa.array([pair["seen"] for pair in pairs], pa.list_(pa.int32())),
        "repeat": pa.array([pair["repeat"] for pair in pairs]),
    }
    count = len(pairs)
    columns |= {
        "split": pa.array(["test"] * count),
        "target_domain": pa.array(["books"] * count),
        "target_position": pa.array([0] * count, pa.int32()),
    }
    return pa.RecordBatch.from_pydict(columns)


def with_baselines(folder: Path) -> Path:
    """The model's folder, with baselines of users drawn at random beside the model."""
    items = artifact.load(folder).catalogue
    users = sparse.csr_matrix((np.random.default_rng(0).random((30, 10)) < 0.3).astype(np.float32))
    baselines.save([Baselines.fit(users, items.events[of]) for of in items.of_domain], folder / "baselines")
    return folder
