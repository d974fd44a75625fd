"""Rank each held-out target against the whole catalogue of its domain, for the model and the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from metarec_spark import columns as c
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import block_rows, hide, places, ranks, seen_places, select
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring.batch import contexts_of, loaded_model

SCHEMA = (
    "split string, domain string, scorer string, rank int, candidates int, loss double, "
    "few_events boolean, long_user boolean, cold_user boolean, cold_item boolean, "
    "user_id string, target int, history array<int>, score float, best float, top array<int>, top_scores array<float>"
)
_ARROW = pa.schema(
    [
        *[("split", pa.string()), ("domain", pa.string()), ("scorer", pa.string())],
        *[("rank", pa.int32()), ("candidates", pa.int32()), ("loss", pa.float64())],
        *[(name, pa.bool_()) for name in ("few_events", "long_user", "cold_user", "cold_item")],
        *[("user_id", pa.string()), ("target", pa.int32()), ("history", pa.list_(pa.int32()))],
        *[("score", pa.float32()), ("best", pa.float32())],
        *[("top", pa.list_(pa.int32())), ("top_scores", pa.list_(pa.float32()))],
    ]
)
_MOST_ROWS = 256
_HISTORY = 8


@dataclass(frozen=True)
class Task:
    """What an executor needs to know to evaluate."""

    model: str
    """Folder of the model."""
    longest: int
    """Largest cutoff k."""
    few_events: int
    """Users with at most so many training events in the domain are in segment few_events."""
    long_events: int
    """Users with at least so many are in segment long_user."""


def rank(batches: Iterator[pa.RecordBatch], task: Task) -> Iterator[pa.RecordBatch]:
    """One row per (user, domain, split) pair and scorer: the target's rank and what metrics need beside it.

    Items that the user has seen are left out, except the target. Ties count against the target. A target that the model's
    vocabulary lacks ranks last. A user without a usable context is ranked by popularity, as ``recommend`` does.
    """
    scorer = loaded_model(task.model).scorer
    for batch in batches:
        domain = batch["target_position"].to_numpy()
        order = np.argsort(domain, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(domain[order])) + 1):
            if not len(rows):
                continue
            of = int(domain[rows[0]])
            size = block_rows(len(scorer.catalogue.of_domain[of]), _MOST_ROWS)
            for start in range(0, len(rows), size):
                yield from _rank_block(scorer, batch.take(pa.array(rows[start : start + size])), of, task)


def _rank_block(scorer: Scorer, batch: pa.RecordBatch, domain: int, task: Task) -> Iterator[pa.RecordBatch]:
    items = scorer.catalogue.of_domain[domain]
    target = batch["target"].to_numpy()
    place = places(items, target)
    known = place >= 0
    seen = seen_places(items, batch["seen"].flatten().to_numpy(), np.diff(batch["seen"].offsets.to_numpy()))
    candidates = len(items) - np.bincount(seen[0], minlength=len(target))
    train_events = batch["train_events"].to_numpy()
    cold_item = np.where(known, scorer.catalogue.events[items[place]] == 0, True)
    contexts = contexts_of(batch)
    history = [items_of[-_HISTORY:] for items_of in np.split(contexts.item.numpy().astype(np.int32), contexts.starts.numpy()[1:])]
    for name, scores in _scores(scorer, contexts, domain).items():
        hide(scores, seen)
        of_target = scores[torch.arange(len(target)), torch.from_numpy(place)]
        loss = (torch.logsumexp(scores, 1) - of_target).numpy().astype(np.float64)
        comparable = known if name in (c.MODEL, c.ENCODER) else np.zeros_like(known)
        top, top_scores = select(scores, min(task.longest, len(items)))
        yield pa.RecordBatch.from_arrays(
            [
                batch["split"],
                batch["target_domain"],
                pa.array([name] * len(target)),
                pa.array(np.where(known, ranks(scores, place), candidates).astype(np.int32)),
                pa.array(candidates.astype(np.int32)),
                pa.array(loss, mask=~comparable),
                pa.array((train_events > 0) & (train_events <= task.few_events)),
                pa.array(train_events >= task.long_events),
                pa.array(train_events == 0),
                pa.array(cold_item),
                batch["user_id"],
                batch["target"].cast(pa.int32()),
                pa.array(history, pa.list_(pa.int32())),
                pa.array(of_target.numpy(), mask=~known),
                pa.array(top_scores[:, 0]),
                pa.array(list(items[top].astype(np.int32))),
                pa.array(list(top_scores)),
            ],
            schema=_ARROW,
        )


def _scores(scorer: Scorer, contexts: PackedSequences, domain: int) -> dict[str, torch.Tensor]:
    popularity = torch.from_numpy(scorer.popularity(domain)).expand(len(contexts.length), -1)
    base = scorer.base(scorer.hidden(contexts), domain)
    empty = (contexts.length == 0)[:, None]
    return {
        c.MODEL: torch.where(empty, popularity, scorer.fused(base, contexts, domain)),
        c.ENCODER: torch.where(empty, popularity, base),
        c.TRANSITIONS_TUNED: scorer.transfer(contexts, domain),
        c.TRANSITIONS: torch.from_numpy(scorer.transitions(contexts, domain).toarray()),
        c.POPULARITY: popularity.clone(),
    }
