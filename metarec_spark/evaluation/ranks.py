"""Rank each held-out target among the items that a list of its user may hold, for the model and the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql.pandas.types import from_arrow_schema
from torch import Tensor

from metarec_spark import columns as c
from metarec_spark.evaluation.metrics import SEGMENTS
from metarec_spark.model import baselines
from metarec_spark.model.baselines import Baselines
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import Seen, block_rows, hide, local_indexes, ranks, seen_local_indexes, select
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring.batch import LoadedModel, contexts_of, loaded_model
from metarec_spark.scoring.eligible import capped_ranks
from metarec_spark.warehouse.storage import local_copy

_ARROW = pa.schema(
    [
        *[("split", pa.string()), ("domain", pa.string()), ("scorer", pa.string())],
        *[("rank", pa.int32()), ("model_rank", pa.int32()), ("candidates", pa.int32()), ("loss", pa.float64())],
        *[(name, pa.bool_()) for name in SEGMENTS],
        *[("user_id", pa.string()), ("target", pa.int32()), ("history", pa.list_(pa.int32()))],
        *[("score", pa.float32()), ("best", pa.float32())],
        *[("top", pa.list_(pa.int32())), ("top_scores", pa.list_(pa.float32()))],
    ]
)
SCHEMA = from_arrow_schema(_ARROW)
"""Columns that :func:`rank` returns: a boolean for each segment that the pair belongs to; none, if its target is excluded."""
_MOST_ROWS = 256
_HISTORY = 8


@dataclass(frozen=True)
class RankingTask:
    """What an executor needs to know to evaluate."""

    model: str
    """Folder of the model."""
    baselines: str | None
    """File of the fitted baselines; None: the model is ranked alone."""
    longest: int
    """Largest cutoff k of the metrics."""
    few_events: int
    """Users with at most so many training events on the platform belong to the segment few_events."""
    long_events: int
    """Users with at least so many belong to the segment long_user."""
    seen_allowed: frozenset[str] = frozenset()
    """Platforms whose lists may hold items that the user has seen."""
    rules: str | None = None
    """Folder of the business rules on items; None: there is none."""
    min_score: dict[str, float] = field(default_factory=dict)
    """Platform → least score of an item in the model's lists."""


@lru_cache(maxsize=2)
def _loaded_baselines(file: str) -> list[Baselines]:
    return baselines.load(local_copy(file))


def rank(batches: Iterable[pa.RecordBatch], task: RankingTask) -> Iterator[pa.RecordBatch]:
    """Return a row per (user, domain, split) pair and scorer: the target's rank and what the metrics need beside it.

    Items that a list of the user could not hold (excluded by rules, or seen if the lists leave seen items out) are no candidates,
    except the target. Ties count against the target. A target that the model does not know ranks last. Users without a known
    event are ranked by popularity, as ``recommend`` does.
    """
    model = loaded_model(task.model, rules=task.rules)
    fitted = _loaded_baselines(task.baselines) if task.baselines else []
    for batch in batches:
        domain = batch["target_position"].to_numpy()
        order = np.argsort(domain, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(domain[order])) + 1):
            if not len(rows):
                continue
            number = int(domain[rows[0]])
            size = block_rows(len(model.scorer.catalogue.of_domain[number]), _MOST_ROWS)
            for start in range(0, len(rows), size):
                block = batch.take(pa.array(rows[start : start + size]))
                yield from _rank_block(model, fitted[number] if fitted else None, block, number, task)


def _rank_block(
    model: LoadedModel, fitted: Baselines | None, batch: pa.RecordBatch, domain: int, task: RankingTask
) -> Iterator[pa.RecordBatch]:
    scorer, eligible, items = model.scorer, model.eligible(domain), model.eligible(domain).items
    hides_seen = scorer.artifact.domains[domain] not in task.seen_allowed
    pairs = _Pairs.from_batch(batch, items, scorer.catalogue.of_domain[domain], hides_seen=hides_seen)
    candidates = len(items) - np.bincount(pairs.seen[0], minlength=len(pairs.local))
    segments = _segments(batch, pairs, scorer.catalogue.events, task, hides_seen=hides_seen)
    contexts = contexts_of(batch)
    events = np.split(contexts.item.numpy().astype(np.int32), contexts.starts.numpy()[1:])
    history = [events_of_user[-_HISTORY:] for events_of_user in events]
    model_rank = None
    some = None if len(items) == len(scorer.catalogue.of_domain[domain]) else torch.from_numpy(eligible.local)
    for name, all_scores in _scores(scorer, fitted, contexts, domain):
        scores = hide(all_scores if some is None else all_scores.index_select(1, some), pairs.seen)
        of_target = scores[torch.arange(len(pairs.local)), torch.from_numpy(pairs.local)]
        has_loss = name in (c.MODEL, c.ENCODER)
        loss = torch.logsumexp(scores, 1) - of_target if has_loss else torch.zeros(len(of_target))
        top, top_scores = select(scores, min(task.longest, len(items)))
        rank = ranks(scores, pairs.local)
        if eligible.groups is not None:
            rank = capped_ranks(eligible.groups, scores.numpy(), pairs.local, rank, task.longest)
        if name == c.MODEL:
            by_model = contexts.length.numpy() > 0
            least = task.min_score.get(scorer.artifact.domains[domain], -np.inf)
            rank = np.where(by_model & (of_target.numpy() < least), np.maximum(candidates, task.longest + 1), rank)
        rank = np.where(pairs.known, rank, np.maximum(candidates, 1)).astype(np.int32)
        model_rank = rank if model_rank is None else model_rank
        yield pa.RecordBatch.from_arrays(
            [
                batch["split"],
                batch["target_domain"],
                pa.array([name] * len(rank)),
                pa.array(rank),
                pa.array(model_rank),
                pa.array(candidates.astype(np.int32)),
                pa.array(loss.numpy().astype(np.float64), mask=~(pairs.known & has_loss)),
                *[pa.array(segments[segment]) for segment in SEGMENTS],
                batch["user_id"],
                batch["target"].cast(pa.int32()),
                pa.array(history, pa.list_(pa.int32())),
                pa.array(of_target.numpy(), mask=~pairs.known),
                pa.array(top_scores[:, 0]),
                pa.array(list(items[top].astype(np.int32))),
                pa.array(list(top_scores)),
            ],
            schema=_ARROW,
        )


@dataclass(frozen=True)
class _Pairs:
    """Held-out pairs of one platform, as positions among its eligible items; B pairs."""

    local: np.ndarray
    """[B] of the targets; -1 if not among them."""
    known: np.ndarray
    """[B] whether the target is among them."""
    excluded: np.ndarray
    """[B] whether business rules exclude the target."""
    repeat: np.ndarray
    """[B] whether the user has an earlier event with the target."""
    seen: Seen
    """Items that are no candidates, by row and position."""

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, items: np.ndarray, all_items: np.ndarray, *, hides_seen: bool) -> _Pairs:
        target = batch["target"].to_numpy()
        local = local_indexes(items, target)
        excluded = (local < 0) & (local_indexes(all_items, target) >= 0)
        seen = seen_local_indexes(items, batch["seen"].flatten().to_numpy(), np.diff(batch["seen"].offsets.to_numpy()))
        none = np.empty(0, np.int64), np.empty(0, np.int64)
        repeat = batch["repeat"].to_numpy(zero_copy_only=False)
        return cls(local, local >= 0, excluded, repeat, seen if hides_seen else none)


def _segments(
    batch: pa.RecordBatch, pairs: _Pairs, item_events: np.ndarray, task: RankingTask, *, hides_seen: bool
) -> dict[str, np.ndarray]:
    """Return which segments each pair belongs to; ``all`` are the pairs whose target a list may hold."""
    count, target = batch["train_events"].to_numpy(), batch["target"].to_numpy()
    listable = ~pairs.excluded & ~(pairs.repeat & hides_seen)
    trained = np.where(pairs.known, item_events[np.where(pairs.known, target, 0)] > 0, False)
    return {
        "all": listable,
        "first_time": ~pairs.repeat & ~pairs.excluded,
        "repeat": pairs.repeat & ~pairs.excluded,
        "few_events": listable & (count > 0) & (count <= task.few_events),
        "long_user": listable & (count >= task.long_events),
        "cold_user": listable & (count == 0),
        "cold_item": listable & ~trained,
    }


def _scores(scorer: Scorer, fitted: Baselines | None, contexts: PackedSequences, domain: int) -> Iterator[tuple[str, Tensor]]:
    """Yield each scorer's name and scores of all items of a platform, [B, I], which the caller may overwrite.

    The model comes first, and alone without baselines.
    """
    popularity_BI = torch.from_numpy(scorer.popularity(domain)).expand(len(contexts.length), -1)
    encoder_BI = scorer.encoder_scores(scorer.hidden(contexts), domain)
    empty_B1 = (contexts.length == 0)[:, None]
    yield c.MODEL, torch.where(empty_B1, popularity_BI, scorer.ensemble_scores(encoder_BI, contexts, domain))
    if fitted is None:
        return
    yield c.ENCODER, torch.where(empty_B1, popularity_BI, encoder_BI)
    yield c.TRANSITIONS_TUNED, scorer.transition_scores(contexts, domain)
    yield c.TRANSITIONS, torch.from_numpy(scorer.untuned_transition_scores(contexts, domain).toarray())
    for name, scores_BI in fitted.scores(contexts, domain, scorer.catalogue.of_domain[domain]).items():
        yield name, torch.from_numpy(scores_BI)
