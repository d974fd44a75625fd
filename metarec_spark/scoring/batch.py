"""Score one Arrow batch of users: encode, rank each domain, map back to external ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model import bundle
from metarec_spark.model.scorer import Scorer
from metarec_spark.model.transformer import Contexts
from metarec_spark.scoring.newcomers import joined
from metarec_spark.scoring.ranking import places
from metarec_spark.scoring.topn import top_n

SCHEMA = "user_id string, domain string, items array<struct<item_id: string, score: float>>, kind string"
_ITEMS = pa.list_(pa.struct([("item_id", pa.string()), ("score", pa.float32())]))
_ARROW = pa.schema([("user_id", pa.string()), ("domain", pa.string()), ("items", _ITEMS), ("kind", pa.string())])


@dataclass(frozen=True)
class Task:
    """What an executor needs to know to score; small, sent with every task."""

    model: str
    """Folder of the model."""
    top_n: int
    exclude_seen: bool
    newcomers: str | None = None
    """Folder of the items that came after the model; None: there is none."""


@lru_cache(maxsize=2)
def scorer_of(folder: str, newcomers: str | None = None) -> tuple[Scorer, pa.Array]:
    """Scorer of a model, and of newcomers where there are any, and their external ids; loaded once per process."""
    torch.set_num_threads(1)
    own = bundle.load(Path(folder))
    if newcomers is None:
        return Scorer(own), own.item_ids().combine_chunks()
    both, item_ids = joined(own, Path(newcomers))
    return Scorer(both), item_ids


def score(batches: Iterator[pa.RecordBatch], task: Task) -> Iterator[pa.RecordBatch]:
    """Rows of ``recommendations`` without day and model, for (user_id, encoded sequence, seen_items, wanted, active).

    ``wanted`` are the positions of the domains that are due, ``active`` of those in which the user has events.
    """
    scorer, item_ids = scorer_of(task.model, task.newcomers)
    for batch in batches:
        if not batch.num_rows:
            continue
        contexts = contexts_of(batch)
        hidden = scorer.hidden(contexts)
        seen = ragged(batch["seen_items"]) if task.exclude_seen else [np.empty(0, np.int64)] * batch.num_rows
        pair_user, pair_domain = _pairs(batch["wanted"])
        active = np.zeros((batch.num_rows, len(scorer.bundle.domains)), bool)
        active[_pairs(batch["active"])] = True
        for domain in np.unique(pair_domain):
            users = pair_user[pair_domain == domain]
            yield _lists(batch, scorer, item_ids, task, int(domain), users, contexts, hidden, seen, active[users, domain])


def _lists(batch, scorer, item_ids, task, domain, users, contexts, hidden, seen, active) -> pa.RecordBatch:
    items = scorer.catalogue.of_domain[domain]
    known = contexts.length.numpy()[users] > 0
    index = np.full((len(users), task.top_n), -1, np.int64)
    value = np.full((len(users), task.top_n), -np.inf, np.float32)
    for by_model in (True, False):
        rows = np.flatnonzero(known == by_model)
        if not len(rows):
            continue
        hide = [place[place >= 0] for place in (places(items, seen[user]) for user in users[rows])]
        if by_model:
            due = torch.from_numpy(users[rows])
            users_d = scorer.user_vectors(hidden[due], domain).numpy()
            additions = scorer.additions(contexts.take(due), hidden[due], domain)
            found = top_n(users_d, scorer.item_vectors(domain).numpy(), hide, task.top_n, additions)
        else:
            found = top_n(np.ones((len(rows), 1), np.float32), scorer.popularity(domain)[:, None], hide, task.top_n)
        index[rows], value[rows] = found
    filled = index >= 0
    offsets = np.concatenate([[0], np.cumsum(filled.sum(1))]).astype(np.int32)
    ids = item_ids.take(pa.array(items[index[filled]]))
    lists = pa.ListArray.from_arrays(
        offsets, pa.StructArray.from_arrays([ids, pa.array(value[filled])], fields=list(_ITEMS.value_type))
    )
    return pa.RecordBatch.from_arrays(
        [
            batch["user_id"].take(pa.array(users)),
            pa.array([scorer.bundle.domains[domain]] * len(users)),
            lists,
            pa.array(np.where(~known, "popularity", np.where(active, "model", "cold"))),
        ],
        schema=_ARROW,
    )


def contexts_of(batch: pa.RecordBatch) -> Contexts:
    """The encoded sequences in a batch, packed."""
    arrays = [batch[name].flatten().to_numpy().reshape(batch.num_rows, -1) for name in ARRAYS]
    return Contexts.packed(arrays, batch[LENGTH].to_numpy())


def ragged(lists: pa.ListArray) -> list[np.ndarray]:
    """A list column as one int array a row."""
    counts = np.diff(lists.offsets.to_numpy())
    return np.split(lists.flatten().to_numpy(), np.cumsum(counts)[:-1])


def _pairs(wanted: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.diff(wanted.offsets.to_numpy())
    return np.repeat(np.arange(len(wanted)), counts), wanted.flatten().to_numpy()
