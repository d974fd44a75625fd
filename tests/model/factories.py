"""Tiny catalogues, models, contexts and model folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from scipy import sparse

from metarec_spark.sections import Model
from metarec_spark.model import bundle
from metarec_spark.model.catalogue import Catalogue, pack_tokens
from metarec_spark.model.transformer import Contexts, NextItemModel, Shape

DOMAINS = ["books", "films"]
SHAPE = Shape(domains=2, event_types=2, gaps=32, max_length=6)
MANIFEST = {
    "model_id": "tiny",
    "domains": DOMAINS,
    "event_types": ["view", "buy"],
    "gap_buckets": SHAPE.gaps,
    "max_length": SHAPE.max_length,
    "items": 20,
    "transitions": {"history": 2, "history_decay": 0.5},
    "model": {"dim": 8, "dropout": 0.0},
}


def catalogue(
    items: int = 20, domains: int = 2, tokens: list[tuple[int, int, float]] | None = None, transitions: np.ndarray | None = None
) -> Catalogue:
    """Items dealt to the domains in turn; ``tokens`` are (item, hash, weight); ``transitions`` is a dense matrix."""
    triples = tokens if tokens is not None else [(i, 100 + i % 3, 1.0) for i in range(items)]
    item, hashes, weight = (
        np.array([row[n] for row in triples], kind) for n, kind in enumerate((np.int64, np.int64, np.float32))
    )
    packed, weights, known = pack_tokens(item, hashes, weight, items, 4)
    dense = transitions if transitions is not None else np.zeros((items, items))
    return Catalogue(
        domain=(np.arange(items) % domains).astype(np.int32),
        events=np.arange(items, dtype=np.int64),
        tokens=packed,
        weights=weights,
        token_hashes=known,
        transitions=sparse.csr_matrix(dense.astype(np.float32)),
    )


def model(of: Catalogue | None = None, seed: int = 0, **settings: object) -> NextItemModel:
    """A model in evaluation mode, of width 8 and without dropout."""
    torch.manual_seed(seed)
    return NextItemModel(Model(**({"dim": 8, "dropout": 0.0} | settings)), SHAPE, of or catalogue()).eval()


def contexts(sequences: list[list[int]], width: int | None = None, domains: int = 2) -> Contexts:
    """Sequences of items, whose domains are those of :func:`catalogue`; types and gaps follow from item and place."""
    width = width or max(map(len, sequences))
    item = torch.zeros(len(sequences), width, dtype=torch.int64)
    event_type, gap = item.clone(), item.clone()
    for row, sequence in enumerate(sequences):
        for place, value in enumerate(sequence):
            item[row, place], event_type[row, place], gap[row, place] = value, 1 + value % 2, place
    counts = torch.arange(width) < torch.tensor([len(sequence) for sequence in sequences])[:, None]
    return Contexts(
        item, torch.where(counts, item % domains, 0), event_type, gap, torch.tensor([len(sequence) for sequence in sequences])
    )


def saved(folder: Path, of: Catalogue | None = None, **settings: object) -> Path:
    """A model folder with items i0, i1, …"""
    of = of or catalogue()
    made = model(of, **settings)
    manifest = {**MANIFEST, "items": of.size, "model": {"dim": 8, "dropout": 0.0} | settings}
    bundle.save(folder, manifest, made, of, pa.chunked_array([[f"i{i}" for i in range(of.size)]]))
    return folder
