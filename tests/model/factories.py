"""Tiny catalogues, models, contexts and model folders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from metarec_spark.config.sections import Features, Model, Split, Train, Transitions
from metarec_spark.model import artifact
from metarec_spark.model.catalogue import Catalogue, Successors, pack_tokens
from metarec_spark.model.encoder import NextItemModel, Shape
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.model.ensemble.stacking import Stacking
from metarec_spark.model.ensemble.unordered import UnorderedSignals, UnorderedWeights
from metarec_spark.model.manifest import DomainSettings, Manifest
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.repeats import RepeatParams
from metarec_spark.model.scorer import Scorer
from metarec_spark.model.transitions import TransitionParams

DOMAINS = ["books", "films"]
SHAPE = Shape(domains=2, event_types=2, gaps=32, max_length=6)
# Lends what ``forward`` holds, as it is.
PLAIN = {
    "backward": 0.0, "popularity_damping": 0.0, "source_damping": 0.0, "similarity": 0.0, "history": 2, "history_decay": 0.5,
    "across_domains": 1.0,
}  # fmt: skip
SMALL = {"dim": 8, "dropout": 0.0, "adapter": 2}
MANIFEST = Manifest(
    model_id="tiny",
    serves=DOMAINS,
    domains=DOMAINS,
    event_types=["view", "buy"],
    items=20,
    max_length=SHAPE.max_length,
    gap_buckets=SHAPE.gaps,
    ds=date(2024, 1, 10),
    code_version="0",
    table_versions={},
    model=Model(**SMALL),
    transitions=Transitions(**PLAIN),
    split=Split(protocol="leave_one_out"),
    features=Features(),
    train=Train(),
)


def catalogue(
    items: int = 20,
    domains: int = 2,
    tokens: list[tuple[int, int, float]] | None = None,
    transitions: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
) -> Catalogue:
    """Items dealt to the domains in turn, of which item 0 has no event; ``tokens`` are (item, hash, weight); ``transitions`` is
    a dense matrix of ``forward``, its transpose ``backward``; no two items are similar; ``vectors`` [I, W] are given."""
    triples = tokens if tokens is not None else [(i, 100 + i % 3, 1.0) for i in range(items)]
    item, hashes, weight = (
        np.array([row[n] for row in triples], kind) for n, kind in enumerate((np.int64, np.int64, np.float32))
    )
    packed, weights, known = pack_tokens(item, hashes, weight, items, 4)
    dense = transitions if transitions is not None else np.zeros((items, items))
    item, successor = np.nonzero(dense + dense.T)
    signals = dense[item, successor], dense[successor, item], np.zeros(len(item))
    return Catalogue(
        domain=(np.arange(items) % domains).astype(np.int32),
        events=np.arange(items, dtype=np.int64),
        tokens=packed,
        weights=weights,
        token_hashes=known,
        vectors=np.zeros((items, 0), np.float32) if vectors is None else vectors.astype(np.float32),
        successors=Successors.from_pairs(items, item, successor, *signals),
    )


def model(of: Catalogue | None = None, seed: int = 0, **settings: object) -> NextItemModel:
    """A model in evaluation mode, of width 8 and without dropout."""
    torch.manual_seed(seed)
    return NextItemModel(Model(**(SMALL | settings)), SHAPE, of or catalogue()).eval()


def padded(sequences: list[list[int]], width: int | None = None, domains: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Arrays of items, domains, types and gaps, [B, width], and lengths; domains are those of :func:`catalogue`."""
    width = width or max(map(len, sequences), default=0)
    arrays = [np.zeros((len(sequences), width), np.int32) for _ in range(4)]
    for row, sequence in enumerate(sequences):
        for place, item in enumerate(sequence):
            for array, value in zip(arrays, (item, item % domains, 1 + item % 2, place), strict=True):
                array[row, place] = value
    return arrays, np.array([len(sequence) for sequence in sequences])


def contexts(sequences: list[list[int]], width: int | None = None) -> PackedSequences:
    """The same, packed."""
    return PackedSequences.from_padded(*padded(sequences, width))


def saved(
    folder: Path,
    of: Catalogue | None = None,
    fusion: Fusion | None = None,
    pair_ranker: PairRanker | None = None,
    stacking: Stacking | None = None,
    repeats: RepeatParams | None = None,
    unordered: UnorderedWeights | None = None,
    signals: Sequence[UnorderedSignals] = (),
    **settings: object,
) -> Path:
    """A model folder with items i0, i1, …"""
    of = of or catalogue()
    made = model(of, **settings)
    fusion = fusion or Fusion(transitions=2.0, sharpness=3.0)
    found = DomainSettings(
        params=TransitionParams(**PLAIN),
        fusion=fusion,
        stacked=stacking is not None,
        repeats=repeats or RepeatParams(),
        unordered=unordered or UnorderedWeights(),
    )
    tuned = dict.fromkeys(DOMAINS, found)
    manifest = MANIFEST.model_copy(update={"items": of.size, "model": Model(**SMALL | settings), "tuned": tuned})
    ids = pa.chunked_array([[f"i{i}" for i in range(of.size)]])
    artifact.save(folder, manifest, made, of, ids, pair_ranker, stacking, signals)
    return folder


def as_recommended(scorer: Scorer, users: PackedSequences, hidden: torch.Tensor, domain: int) -> torch.Tensor:
    """h as recommend computes it: products of vectors, and sparse additions."""
    product = scorer.user_vectors(users, hidden, domain) @ scorer.item_vectors(domain).T
    return product + torch.from_numpy(scorer.additions(users, hidden, domain).toarray())
