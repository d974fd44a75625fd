"""Score one Arrow batch of users: encode, rank each domain, map back to external ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from scipy import sparse

from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model import artifact
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import seen_places
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring.eligible import EligibleItems
from metarec_spark.scoring.new_items import joined
from metarec_spark.scoring.timings import ADDITIONS, ENCODING, SEARCH, WHOLE, Timings
from metarec_spark.scoring.topn import ExactIndex
from metarec_spark.warehouse.storage import local_copy

_USERS = 4096
"""Who are scored at a time: memory grows with their events, and with what is added to their scores."""
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
    new_items: str | None = None
    """Folder of the items that came after the model; None: there is none."""
    rules: str | None = None
    """Folder of the rules on items; None: there is none."""
    min_score: dict[str, float] = field(default_factory=dict)
    """Domain = least score of an item in its lists."""


class LoadedModel:
    """A model as a process that makes lists holds it."""

    def __init__(self, scorer: Scorer, item_ids: pa.Array, rules: Path | None) -> None:
        self.scorer = scorer
        self.item_ids = item_ids
        """External ids by item index."""
        self.offer = cache(lambda domain: EligibleItems(scorer.catalogue.of_domain[domain], rules))
        """What a domain's lists are made of."""
        self.index = cache(lambda domain: ExactIndex(self.offer(domain).rows_of_all(scorer.item_vectors(domain).numpy())))
        """Of its items by their vectors."""
        self.popular = cache(lambda domain: ExactIndex(self.offer(domain).rows_of_all(scorer.popularity(domain)[:, None])))
        """Of its items by their training events, for users with vector [1]."""


@lru_cache(maxsize=2)
def loaded_model(folder: str, new_items: str | None = None, rules: str | None = None) -> LoadedModel:
    """A model, with newcomers and rules where there are any; loaded once per process."""
    torch.set_num_threads(1)
    model = artifact.load(folder)
    model, item_ids = joined(model, new_items) if new_items else (model, model.item_ids().combine_chunks())
    return LoadedModel(Scorer(model), item_ids, local_copy(rules) if rules else None)


def warm_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Nothing: a process that is asked for it has imported what lists are made with, and is kept for the tasks to come."""
    yield from ()


def score(batches: Iterator[pa.RecordBatch], task: Task, timings: Timings) -> Iterator[pa.RecordBatch]:
    """Rows of ``recommendations`` without day and model, for (user_id, encoded sequence, seen_items, wanted, active).

    ``wanted`` are the positions of the domains that are due, ``active`` of those in which the user has events.
    """
    with timings.of(WHOLE):
        for batch in _parts(batches):
            held = loaded_model(task.model, task.new_items, task.rules)
            contexts = contexts_of(batch)
            with timings.of(ENCODING):
                hidden = held.scorer.hidden(contexts)
            pair_user, pair_domain = _pairs(batch["wanted"])
            active = np.zeros((batch.num_rows, len(held.scorer.bundle.domains)), bool)
            active[_pairs(batch["active"])] = True
            for domain in np.unique(pair_domain):
                users = pair_user[pair_domain == domain]
                yield _lists(batch, held, task, timings, int(domain), users, contexts, hidden, active[users, domain])


def _parts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, _USERS):
            yield batch.slice(start, _USERS)


def _lists(batch, held, task, timings, domain, users, contexts, hidden, active) -> pa.RecordBatch:
    scorer, offer = held.scorer, held.offer(domain)
    seen, least = _seen(batch, task, offer.items), task.min_score.get(scorer.bundle.domains[domain], -np.inf)
    known = contexts.length.numpy()[users] > 0
    index = np.full((len(users), task.top_n), -1, np.int64)
    value = np.full((len(users), task.top_n), -np.inf, np.float32)
    for by_model in (True, False):
        rows = np.flatnonzero(known == by_model)
        if not len(rows):
            continue
        due = users[rows]
        if by_model:
            at = torch.from_numpy(due)
            with timings.of(ENCODING):
                vectors = scorer.user_vectors(hidden[at], domain).numpy()
            with timings.of(ADDITIONS):
                additions = offer.of_all(scorer.additions(contexts.take(at), hidden[at], domain))
            items = held.index(domain)
            with timings.of(SEARCH):
                found, scores = offer.best(items, vectors, task.top_n, seen[due], additions)
            index[rows], value[rows] = np.where(scores >= least, found, -1), scores
        else:
            ones = np.ones((len(rows), 1), np.float32)
            items = held.popular(domain)
            with timings.of(SEARCH):
                index[rows], value[rows] = offer.best(items, ones, task.top_n, seen[due])
    filled = index >= 0
    offsets = np.concatenate([[0], np.cumsum(filled.sum(1))]).astype(np.int32)
    ids = held.item_ids.take(pa.array(offer.items[index[filled]]))
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


def contexts_of(batch: pa.RecordBatch) -> PackedSequences:
    """The encoded sequences in a batch, packed."""
    arrays = [batch[name].flatten().to_numpy() for name in ARRAYS]
    return PackedSequences(*(torch.from_numpy(array.astype(np.int64)) for array in (*arrays, batch[LENGTH].to_numpy())))


def _seen(batch: pa.RecordBatch, task: Task, items: np.ndarray) -> sparse.csr_matrix:
    """What each user of a batch is not to get, [users, I_d]."""
    shape = batch.num_rows, len(items)
    if not task.exclude_seen:
        return sparse.csr_matrix(shape, dtype=np.float32)
    lists = batch["seen_items"]
    row, place = seen_places(items, lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy()))
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, place)), shape)


def _pairs(wanted: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.diff(wanted.offsets.to_numpy())
    return np.repeat(np.arange(len(wanted)), counts), wanted.flatten().to_numpy()
