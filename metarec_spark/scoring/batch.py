"""Score one Arrow batch of users: encode their histories, rank the items of each platform, map indices back to external ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql.pandas.types import from_arrow_schema
from scipy import sparse
from torch import Tensor

from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model import artifact
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import seen_local_indexes
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring.eligible import EligibleItems
from metarec_spark.scoring.new_items import with_new_items
from metarec_spark.scoring.timings import ADDITIONS, ENCODING, SEARCH, WHOLE, Timings
from metarec_spark.scoring.topn import ExactIndex
from metarec_spark.warehouse.storage import local_copy

_USERS = 4096
"""Users scored at a time: memory grows with their events, and with the sparse additions to their scores."""
_ITEM = pa.struct([("item_id", pa.string()), ("score", pa.float32())])
_ARROW = pa.schema([("user_id", pa.string()), ("domain", pa.string()), ("items", pa.list_(_ITEM)), ("kind", pa.string())])
SCHEMA = from_arrow_schema(_ARROW)
"""Columns of ``recommendations`` that :func:`score` returns."""


@dataclass(frozen=True)
class ScoringTask:
    """What an executor needs to know to score; small, sent with every Spark task."""

    model: str
    """Folder of the model."""
    top_n: int
    seen_allowed: frozenset[str]
    """Platforms whose lists may hold items that the user has seen."""
    new_items: str | None = None
    """Folder of the items that are newer than the model; None: there is none."""
    rules: str | None = None
    """Folder of the business rules on items; None: there is none."""
    min_score: dict[str, float] = field(default_factory=dict)
    """Domain → least score of an item in its lists."""


class LoadedModel:
    """A model in the memory of an executor process, with the eligible items and the search indexes of each domain."""

    def __init__(self, scorer: Scorer, item_ids: pa.Array, rules: Path | None) -> None:
        self.scorer = scorer
        self.item_ids = item_ids
        """External ids by item index."""
        self.eligible = cache(lambda domain: EligibleItems(scorer.catalogue.of_domain[domain], rules))
        """Items of a domain that a list may hold."""
        self.index = cache(lambda domain: ExactIndex(self.eligible(domain).rows(scorer.item_vectors(domain).numpy())))
        """Search index over their vectors."""
        self.popular = cache(lambda domain: ExactIndex(self.eligible(domain).rows(scorer.popularity(domain)[:, None])))
        """Search index over their training events, for users with vector [1]."""


@lru_cache(maxsize=2)
def loaded_model(folder: str, new_items: str | None = None, rules: str | None = None) -> LoadedModel:
    """Return a model, extended by new items and restricted by rules if there are any; each process loads it once."""
    torch.set_num_threads(1)
    model = artifact.load(folder)
    model, item_ids = with_new_items(model, new_items) if new_items else (model, model.item_ids().combine_chunks())
    return LoadedModel(Scorer(model), item_ids, local_copy(rules) if rules else None)


def warm_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return no row: a worker process that runs this has imported all that scoring needs, and Spark reuses it."""
    yield from ()


def score(batches: Iterable[pa.RecordBatch], task: ScoringTask, timings: Timings) -> Iterator[pa.RecordBatch]:
    """Return rows of ``recommendations`` without day and model, for (user_id, encoded sequence, seen_items, wanted, active).

    ``wanted`` are the positions of the domains in which the user gets a list, ``active`` of those where the user has events.
    """
    with timings.measure(WHOLE):
        for rows in _slices(batches):
            model = loaded_model(task.model, task.new_items, task.rules)
            contexts = contexts_of(rows)
            with timings.measure(ENCODING):
                hidden_BD = model.scorer.hidden(contexts)
            user, domain_of_pair = _pairs(rows["wanted"])
            active = np.zeros((rows.num_rows, len(model.scorer.artifact.domains)), bool)
            active[_pairs(rows["active"])] = True
            for domain in np.unique(domain_of_pair):
                users = user[domain_of_pair == domain]
                batch = UserBatch(rows, contexts, hidden_BD, users, active[users, domain])
                yield _lists(model, task, timings, int(domain), batch)


def _slices(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, _USERS):
            yield batch.slice(start, _USERS)


@dataclass(frozen=True)
class UserBatch:
    """The users of an Arrow batch who get a list in one domain; U of its B users."""

    rows: pa.RecordBatch
    """B rows as :func:`score` takes them."""
    contexts: PackedSequences
    """Encoded histories of all B users."""
    hidden_BD: Tensor
    """Last hidden states of all B users."""
    users: np.ndarray
    """[U] their positions in the batch."""
    active: np.ndarray
    """[U] whether they have events in the domain."""

    @property
    def has_events(self) -> np.ndarray:
        """[U] whether the model knows an item of their history."""
        return self.contexts.length.numpy()[self.users] > 0


def _lists(model: LoadedModel, task: ScoringTask, timings: Timings, domain: int, batch: UserBatch) -> pa.RecordBatch:
    """Return one domain's lists: by the ensemble, or by popularity for users without an event that the model knows."""
    scorer, eligible = model.scorer, model.eligible(domain)
    name = scorer.artifact.domains[domain]
    seen_BI = _seen(batch.rows, eligible.items, hide=name not in task.seen_allowed)
    index = np.full((len(batch.users), task.top_n), -1, np.int64)
    value = np.full((len(batch.users), task.top_n), -np.inf, np.float32)
    with_events, without = np.flatnonzero(batch.has_events), np.flatnonzero(~batch.has_events)
    if len(with_events):
        users = torch.from_numpy(batch.users[with_events])
        with timings.measure(ENCODING):
            contexts = batch.contexts.take(users)
            vectors = scorer.user_vectors(contexts, batch.hidden_BD[users], domain).numpy()
        with timings.measure(ADDITIONS):
            additions = eligible.columns(scorer.additions(contexts, batch.hidden_BD[users], domain))
        search_index = model.index(domain)
        with timings.measure(SEARCH):
            top = eligible.top_n(search_index, vectors, task.top_n, seen_BI[users.numpy()], additions)
        index[with_events], value[with_events] = np.where(top[1] >= task.min_score.get(name, -np.inf), top[0], -1), top[1]
    if len(without):
        ones, search_index = np.ones((len(without), 1), np.float32), model.popular(domain)
        with timings.measure(SEARCH):
            index[without], value[without] = eligible.top_n(search_index, ones, task.top_n, seen_BI[batch.users[without]])
    columns = [
        batch.rows["user_id"].take(pa.array(batch.users)),
        pa.array([name] * len(batch.users)),
        _list_column(model.item_ids, eligible.items, index, value),
        pa.array(np.where(~batch.has_events, "popularity", np.where(batch.active, "model", "cold"))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_ARROW)


def _list_column(item_ids: pa.Array, items: np.ndarray, index: np.ndarray, value: np.ndarray) -> pa.ListArray:
    """Return each user's (item_id, score) list from [U, N] positions among ``items``, -1 where a list has ended."""
    filled = index >= 0
    offsets = np.concatenate([[0], np.cumsum(filled.sum(1))]).astype(np.int32)
    ids = item_ids.take(pa.array(items[index[filled]]))
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([ids, pa.array(value[filled])], fields=list(_ITEM)))


def contexts_of(batch: pa.RecordBatch) -> PackedSequences:
    """Return the encoded sequences of a batch, packed."""
    arrays = [batch[name].flatten().to_numpy() for name in ARRAYS]
    return PackedSequences(*(torch.from_numpy(array.astype(np.int64)) for array in (*arrays, batch[LENGTH].to_numpy())))


def _seen(rows: pa.RecordBatch, items: np.ndarray, *, hide: bool) -> sparse.csr_matrix:
    """Return which items each user of a batch must not get, [B, I]: the seen ones, or none."""
    shape = rows.num_rows, len(items)
    if not hide:
        return sparse.csr_matrix(shape, dtype=np.float32)
    lists = rows["seen_items"]
    row, local = seen_local_indexes(items, lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy()))
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, local)), shape)


def _pairs(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, value) of each entry of a list column."""
    counts = np.diff(lists.offsets.to_numpy())
    return np.repeat(np.arange(len(lists)), counts), lists.flatten().to_numpy()
