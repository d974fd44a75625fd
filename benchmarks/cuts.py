"""Subsamples of a log: one domain keeps a share of its users, all else stays; written as the snapshots that candidates are trained on.

They are made in memory from a warehouse's tables, since an extract for each would take too long. They hold what the jobs hold out, count
and write, except that an item's content links are reduced to the strongest before its transitions are added; ``transfer.py --by-jobs``
sends a subsample through the jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyspark.sql import functions as F
from scipy import sparse

from metarec_spark import __version__, config
from metarec_spark import columns as c
from metarec_spark.config.sections import Adapt, Features, Model, Split, Train, Transitions
from metarec_spark.features.catalogue import ITEMS, SIGNALS, TOKENS, VECTORS
from metarec_spark.features.catalogue import TRANSITIONS as SUCCESSORS
from metarec_spark.features.encoding import ARRAYS, GAP_BUCKETS, LENGTH
from metarec_spark.model.ensemble.pair_ranker import ContentSimilarity, largest_entries, similarity_products
from metarec_spark.model.manifest import Manifest
from metarec_spark.model.packed import PackedSequences
from metarec_spark.runtime.session import session
from metarec_spark.training.snapshot import HALF, PAIR, SEQUENCES
from metarec_spark.transfer import user_sampling
from metarec_spark.transfer.meta_train import transition_counts
from metarec_spark.transfer.task_snapshot import TaskSnapshot
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

TRAIN, VALIDATION, TEST = 0, 1, 2
_DAY = 86_400


class Log:
    """The events of a warehouse in flat arrays, by user and in order of time."""

    def __init__(self, warehouse: Path, settings: Transitions, days: int | None = None) -> None:
        """``days``: length of the temporal test at the end of the log, and of the validation before it; None: leave one out."""
        self.warehouse, self.settings, self.features, self.days = warehouse, settings, Features(), days
        items = _table(warehouse, c.ITEMS, c.ITEM_IDX, c.ITEM_ID, c.DOMAIN).sort_by(c.ITEM_IDX)
        self.item_ids = items[c.ITEM_ID]
        self.domains = sorted(pc.unique(items[c.DOMAIN]).to_pylist())
        self.domain_of = pc.index_in(items[c.DOMAIN], pa.array(self.domains)).to_numpy().astype(np.int32)
        rows = _table(warehouse, c.USER_SEQUENCES, c.USER_ID, c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME).sort_by(c.USER_ID)
        self.user_ids = rows[c.USER_ID].to_pylist()
        length = pc.list_value_length(rows[c.ITEM_IDX]).to_numpy()
        self.users = len(length)
        self.user = np.repeat(np.arange(self.users), length)
        self.item = pc.list_flatten(rows[c.ITEM_IDX]).to_numpy().astype(np.int64)
        self.domain = self.domain_of[self.item]
        types = pc.list_flatten(rows[c.EVENT_TYPE])
        self.event_types = sorted(pc.unique(types).to_pylist())
        self.event_type = pc.index_in(types, pa.array(self.event_types)).to_numpy() + 1
        self.seconds = pc.list_flatten(rows[c.EVENT_TIME]).cast(pa.timestamp("s"), safe=False).cast("int64").to_numpy()
        self.part = self._leave_one_out() if days is None else self._temporal(days)
        self.is_target = self.part > TRAIN if days is None else self._first()
        """[events] bool: whether an event is held out to be predicted."""
        self.content_similarity: dict[str, ContentSimilarity] = {}
        content = _table(warehouse, c.ITEM_CONTENT, c.ITEM_IDX, "tokens", "weights").combine_chunks()
        item = np.repeat(content[c.ITEM_IDX].to_numpy(), pc.list_value_length(content["tokens"]).to_numpy())
        word = pc.list_flatten(content["tokens"]).combine_chunks().dictionary_encode()
        self.words = word.dictionary.to_pylist()
        self.tokens = pa.table(
            {c.ITEM_IDX: item, "token": word.indices.cast("int64"), "weight": pc.list_flatten(content["weights"])}
        )

    def _leave_one_out(self) -> np.ndarray:
        """Part of each event: of a user's events in a domain the newest is the test, the one before it the validation."""
        task = self.user * len(self.domains) + self.domain
        order = np.argsort(task, kind="stable")
        ordered, part = task[order], np.full(len(task), TRAIN)
        newest = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        part[order[newest]] = TEST
        before = newest[newest > 0] - 1
        part[order[before[ordered[before] == ordered[before + 1]]]] = VALIDATION
        return part

    def _temporal(self, days: int) -> np.ndarray:
        """Part of each event, by its day."""
        end = (self.seconds.max() // _DAY + 1) * _DAY
        return np.searchsorted([end - 2 * days * _DAY, end - days * _DAY], self.seconds, side="right")

    def _first(self) -> np.ndarray:
        """[events] bool: the first event of each user in a domain within the test days, and within the validation days."""
        task = (self.user * len(self.domains) + self.domain) * (TEST + 1) + self.part
        first = np.zeros(len(task), bool)
        first[np.unique(task, return_index=True)[1]] = True
        return first & (self.part > TRAIN)

    @cached_property
    def similarity(self) -> list[sparse.csr_matrix]:
        """For each domain, the scalar products of all items' tokens with those of its items, [I, I_d]; tokens as common as
        ``transitions.common_items`` allows."""
        size, token = len(self.domain_of), self.tokens["token"].to_numpy()
        spread = np.bincount(token)
        usable = (spread[token] >= 2) & (spread[token] <= self.settings.common_items)
        entries = self.tokens["weight"].to_numpy()[usable], (self.tokens[c.ITEM_IDX].to_numpy()[usable], token[usable])
        weight = sparse.csr_matrix(entries, (size, len(spread)), np.float32)
        of_domain = (np.flatnonzero(self.domain_of == domain) for domain in range(len(self.domains)))
        return [similarity_products(weight, items, self.settings.successors) for items in of_domain]

    def packed(self, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> dict[str, Any]:
        """Columns of a snapshot: of each sequence, events rows[start:end], the newest ``max_length`` of them."""
        most = self.features.max_length
        length = np.minimum(ends - starts, most)
        at = np.repeat(ends - np.cumsum(length), length) + np.arange(length.sum())
        event, first = rows[at], np.zeros(len(at), bool)
        first[(np.cumsum(length) - length)[length > 0]] = True
        since = np.maximum(np.diff(self.seconds[event], prepend=0), 0)
        gap = np.where(first, 0, np.minimum(GAP_BUCKETS - 1, 1 + np.floor(np.log2(1.0 + since))))
        values = dict(zip(ARRAYS, (self.item[event], self.domain[event], self.event_type[event], gap), strict=True))
        inside, columns = np.arange(most) < length[:, None], {}
        for name, flat in values.items():
            padded = np.zeros(inside.shape, np.int32)
            padded[inside] = flat
            columns[name] = padded
        return columns | {LENGTH: length.astype(np.int32)}


def _table(warehouse: Path, name: str, *columns: str) -> pa.Table:
    return DeltaTable(str(warehouse / name)).to_pyarrow_table(columns=list(columns))


@dataclass(frozen=True, eq=False)
class Cut:
    """A log in which one domain keeps a share of its users; the events of its other users there are removed."""

    log: Log
    target: int
    remaining: np.ndarray
    """[users] bool."""

    @classmethod
    def from_log(cls, log: Log, domain: str, share: float, seed: int) -> Cut:
        """Draw the users at random."""
        target = log.domains.index(domain)
        users = np.unique(log.user[log.domain == target])
        remaining = np.zeros(log.users, bool)
        remaining[np.random.default_rng(seed).choice(users, int(share * len(users)), replace=False)] = True
        return cls(log, target, remaining)

    @cached_property
    def known(self) -> np.ndarray:
        """[events] bool: whether an event is left in the log."""
        return (self.log.domain != self.target) | self.remaining[self.log.user]

    @cached_property
    def successors(self) -> Callable[[bool], pa.Table]:
        """See :meth:`_successors`; computed once per subsample."""
        return cache(self._successors)

    def _successors(self, source: bool) -> pa.Table:
        """Part ``transitions`` of a snapshot, from all that is known, or from the source alone; see
        :func:`metarec_spark.features.transitions.transitions`."""
        log, settings = self.log, self.log.settings
        known = log.domain != self.target if source else self.known
        rows = np.flatnonzero(known & (log.part == TRAIN))
        size, events = len(log.domain_of), np.bincount(log.item[rows], minlength=len(log.domain_of))
        forward = transition_counts(_contexts(log.packed(rows, *_bounds(log.user[rows]))), size, settings)
        count, parts = np.maximum(events, 1.0), []
        by_source = sparse.diags(count**-settings.source_damping)
        for domain, similarity in enumerate(log.similarity):
            items = np.flatnonzero(log.domain_of == domain)
            after, before = forward[:, items], forward.T.tocsr()[:, items]
            damped = by_source @ (after + settings.backward * before) @ sparse.diags(count[items] ** -settings.popularity_damping)
            heaviest = largest_entries(damped + settings.similarity * similarity, settings.successors).tocoo()
            row, local = heaviest.row, heaviest.col
            if not len(row):
                continue
            signals = (np.asarray(signal[row, local]).ravel().astype(np.float32) for signal in (after, before, similarity))
            names = (c.ITEM_IDX, "successor", *SIGNALS)
            parts.append(pa.table(dict(zip(names, (row, items[local], *signals), strict=True))))
        return pa.concat_tables(parts)

    def snapshot(self, folder: Path, events: str, train: Train, model: Model, adapt: Adapt) -> TaskSnapshot:
        """Write the snapshot of :attr:`metarec_spark.transfer.modes.Mode.events`; or, for a base model, of source."""
        log = self.log
        domains = [log.domains[self.target]] if events == "own" else log.domains
        included = self.known & self.remaining[log.user]
        if events == "own":
            included = included & (log.domain == self.target)
        elif events == "source":
            included = log.domain != self.target
        elif events in ("uniform", "weighted"):
            others = self._uniform if events == "uniform" else self._weighted
            trained = self.remaining.copy()
            trained[others(adapt.source_events, train.seed)] = True
            included = self.known & trained[log.user]
        elif events != "users":
            raise ValueError(f"unknown events {events!r}: use own, users, uniform, weighted or source")
        rows = np.flatnonzero(included & (log.part == TRAIN))
        counted = rows if events != "users" else np.flatnonzero(self.known & (log.part == TRAIN))
        starts, ends = _bounds(log.user[rows])
        long = ends - starts > 1
        own_domain = (lambda columns: columns | {c.DOMAIN: np.zeros_like(columns[c.DOMAIN])}) if events == "own" else dict
        shown = log.domain_of if events != "own" else np.where(log.domain_of == self.target, 0, -1).astype(np.int32)
        sequences = own_domain(log.packed(rows, starts[long], ends[long]))
        if events == "source" and train.method != "joint":
            sequences = _episodes(sequences, train.seed)
        parts = {
            SEQUENCES: sequences,
            ITEMS: {
                c.ITEM_IDX: np.arange(len(shown), dtype=np.int32),
                c.ITEM_ID: log.item_ids,
                c.DOMAIN: shown,
                "train_events": np.bincount(log.item[counted], minlength=len(shown)),
            },
            TOKENS: log.tokens,
            VECTORS: {c.ITEM_IDX: np.zeros(0, np.int32), "vector": pa.array([], pa.list_(pa.float32()))},
            SUCCESSORS: self.successors(events == "source"),
        }
        for name, part in ((c.VALIDATION, VALIDATION), (c.TEST, TEST)):
            parts[name] = self._pairs(part, included, own_domain, events, adapt.validation_pairs)
        for name, columns in parts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            table = columns if isinstance(columns, pa.Table) else pa.table({n: _array(v) for n, v in columns.items()})
            pq.write_table(table, folder / name / "1.parquet")
        split = Split(protocol="leave_one_out") if log.days is None else Split(protocol="temporal", test_days=log.days)
        manifest = Manifest(
            kind="base" if events == "source" else "adapted",
            serves=domains if events == "source" else [log.domains[self.target]],
            domains=domains,
            event_types=log.event_types,
            items=len(log.domain_of),
            max_length=log.features.max_length,
            gap_buckets=GAP_BUCKETS,
            ds=date(2014, 7, 23),
            code_version=__version__,
            table_versions={},
            sequences=len(sequences[LENGTH]),
            training_events=len(rows),
            model=model,
            transitions=log.settings,
            split=split,
            features=log.features,
            train=train,
        )
        all_domains = self.snapshot(folder.with_name("users"), "users", train, model, adapt) if events == "own" else None
        return TaskSnapshot(folder, manifest, log.domains[self.target], log.content_similarity, all_domains)

    def _uniform(self, events: int, seed: int) -> np.ndarray:
        """Users of other domains with at most so many events in all, drawn uniformly."""
        count = np.bincount(self.log.user[self.known], minlength=self.log.users)
        others = np.random.default_rng(seed).permutation(np.flatnonzero(~self.remaining))
        return others[np.cumsum(count[others]) <= events]

    def _weighted(self, events: int, seed: int) -> np.ndarray:
        """Users of other domains with at most so many events in all, drawn by importance weights, as the jobs draw them."""
        log, rows, ids = self.log, np.flatnonzero(self.known), pa.array(self.log.user_ids)
        starts, _ = _bounds(log.user[rows])
        offsets = pa.array(np.append(starts, len(rows)), pa.int32())
        lists = {
            c.ITEM_IDX: pa.array(log.item[rows]),
            c.EVENT_TIME: pa.array(log.seconds[rows] * 1_000_000, pa.timestamp("us", "UTC")),
            "active_domains": pa.array(log.domains).take(pa.array(log.domain[rows])),
        }
        known = {c.USER_ID: ids.take(pa.array(log.user[rows][starts]))}
        known |= {name: pa.ListArray.from_arrays(offsets, values) for name, values in lists.items()}
        spark = session(config.parse({"warehouse": file_uri(log.warehouse)}), "benchmark")
        try:
            with TemporaryDirectory() as folder:
                pq.write_table(pa.table(known), f"{folder}/users.parquet")
                users = spark.read.parquet(file_uri(Path(folder)))
                content = Warehouse(spark, file_uri(log.warehouse)).read(c.ITEM_CONTENT)
                weight = user_sampling.importance_weights(users, content, log.domains[self.target])
                drawn = user_sampling.sample_users(users.join(weight, c.USER_ID), events, F.col("weight"), seed)
                names = [row[c.USER_ID] for row in drawn.select(c.USER_ID).collect()]
        finally:
            spark.stop()
        return pc.index_in(pa.array(names, pa.string()), ids).to_numpy()

    def _pairs(self, part: int, included: np.ndarray, own_domain: Any, events: str, most: int) -> dict[str, Any]:
        """Held-out events, and the events before each; the target's are numbered alike for all kinds of candidates."""
        log = self.log
        inside = log.domain != self.target if events == "source" else self.remaining[log.user] & (log.domain == self.target)
        targets = np.flatnonzero(inside & log.is_target & (log.part == part))
        targets = np.random.default_rng(part).permutation(targets)
        targets = targets[np.argsort(log.domain[targets], kind="stable")]  # numbered by domain, as the jobs do
        count = np.bincount(log.domain[targets])
        number = np.arange(1, len(targets) + 1) - np.repeat(np.cumsum(count) - count, count)
        targets, number = targets[number <= most], number[number <= most]
        rows = np.flatnonzero(included & (log.part < part))
        starts = np.searchsorted(rows, np.searchsorted(log.user, log.user[targets]))
        columns = own_domain(log.packed(rows, starts, np.searchsorted(rows, targets)))
        domain = np.zeros(len(targets), np.int32) if events == "own" else log.domain[targets]
        return columns | {"target": log.item[targets], "target_domain": domain, PAIR: number}


def _bounds(user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each user's rows start and end."""
    starts = np.flatnonzero(np.append(True, user[1:] != user[:-1]))
    return starts, np.append(starts[1:], len(user))


def _episodes(columns: dict[str, Any], seed: int) -> dict[str, Any]:
    """The rows of :func:`metarec_spark.training.snapshot.episodes`; a sequence's half is drawn."""
    events = np.where(np.arange(columns[c.DOMAIN].shape[1]) < columns[LENGTH][:, None], columns[c.DOMAIN], -1)
    half, parts = np.random.default_rng(seed).integers(0, 2, len(events), np.int32), []
    for domain in range(events.max() + 1):
        inside = events == domain
        ends = inside.shape[1] - inside[:, ::-1].argmax(1)
        usable = inside.any(1) & (ends > 1)
        rows = {name: values[usable] for name, values in columns.items()}
        parts.append(rows | {LENGTH: ends[usable].astype(np.int32), HALF: half[usable]})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _contexts(columns: dict[str, Any]) -> PackedSequences:
    return PackedSequences.from_padded([columns[name] for name in ARRAYS], columns[LENGTH])


def _array(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]).cast(pa.list_(pa.int32()))
    return values
