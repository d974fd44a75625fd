"""Batches of packed sequences with about equally many events to predict, episodes, and held-out events, from a shard's rows."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from metarec_spark import columns as c
from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model.held_out import HeldOutEvents
from metarec_spark.model.packed import PackedSequences
from metarec_spark.training.reader import RowGroup, Shard, count_rows, read
from metarec_spark.training.snapshot import HALF, PAIR

Item = TypeVar("Item")


@dataclass(frozen=True)
class Episode:
    """A task of meta-training: users of one domain in a support half, to adapt to, and a query half, to predict.

    A half may be empty by chance.
    """

    domain: int
    support: PackedSequences
    query: PackedSequences

    @property
    def length(self) -> Tensor:
        """[B] int64 events of each sequence of both halves."""
        return torch.cat([self.support.length, self.query.length])


def batch_bounds(costs: np.ndarray, tokens: int) -> np.ndarray:
    """Where to cut rows into batches of cost ``tokens`` or less: as few batches as possible, and as equal as so few can be.

    Ranks wait for the rank with the largest batch.

    Parameters
    ----------
    costs
        [n] in the order of the rows.
    tokens
        Largest cost of a batch; a single row that costs more is a batch of its own.

    Returns
    -------
    [batches + 1] positions, from 0 to n.
    """
    ends = np.cumsum(costs)
    bounds = _filled(ends, tokens)
    low, high = 1, tokens
    while low < high:
        middle = (low + high) // 2
        smaller = _filled(ends, middle)
        if len(smaller) == len(bounds):
            bounds, high = smaller, middle
        else:
            low = middle + 1
    return bounds


def _filled(ends: np.ndarray, largest: int) -> np.ndarray:
    """Bounds of batches that are filled one after another up to a largest cost; ``ends`` are running sums of the costs."""
    bounds = [0]
    while bounds[-1] < len(ends):
        start = bounds[-1]
        before = ends[start - 1] if start else 0
        bounds.append(max(start + 1, int(np.searchsorted(ends, before + largest, side="right"))))
    return np.array(bounds)


def count_batches(shard: Shard, tokens: int) -> int:
    """Number of batches in one pass over the shard."""
    return sum(len(bounds) - 1 for group in read(shard, [c.DOMAIN, c.EVENT_TYPE, LENGTH]) for _, bounds in _cut(group, tokens))


def batches(shard: Shard, tokens: int, seed: int) -> Iterator[PackedSequences]:
    """Yield one pass over the shard as packed batches, in random order within a row group.

    A batch holds rows of one newest domain and of similar length: rows of a domain share its negatives, rows of a length the
    attention's padding.
    """
    for group, rows in _shuffled(shard, [*ARRAYS, LENGTH], tokens, seed):
        yield pack(group, rows)


def episodes(shard: Shard, tokens: int, seed: int, epoch: int) -> Iterator[Episode]:
    """Yield the batches of rows of :func:`metarec_spark.training.snapshot.episodes` as episodes.

    The halves swap from epoch to epoch, so that all users are predicted.
    """
    for group, rows in _shuffled(shard, [*ARRAYS, LENGTH, HALF], tokens, seed):
        is_query = (group[HALF][rows] + epoch) % 2 == 1
        domain = group[c.DOMAIN][rows[0], group[LENGTH][rows[0]] - 1]
        yield Episode(int(domain), pack(group, rows[~is_query]), pack(group, rows[is_query]))


def _shuffled(shard: Shard, fields: list[str], tokens: int, seed: int) -> Iterator[tuple[RowGroup, np.ndarray]]:
    """Yield the batches of one pass in random order: a row group, and the positions of a batch's rows in it."""
    random = np.random.default_rng(seed)
    for group in read(shard, fields, seed=seed % 2**32):
        cuts = [(order, *bounds) for order, all_bounds in _cut(group, tokens, random) for bounds in pairwise(all_bounds)]
        for number in random.permutation(len(cuts)):
            order, start, end = cuts[number]
            yield group, order[start:end]


def _cut(group: RowGroup, tokens: int, random: np.random.Generator | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of each newest domain by length, ties at random, and their batch bounds.

    The number of batches does not depend on ``random``. A row costs the events that are predicted in it, all except the first and
    those that are context alone, so that batches take equally long and no rank waits for another.
    """
    lengths = group[LENGTH]
    later = np.maximum(lengths - 1, 0)  # also the position of the newest event
    position = np.arange(group[c.EVENT_TYPE].shape[1])  # an episode's row ends before its arrays do
    context = (group[c.EVENT_TYPE] < 0) & (position > 0) & (position < lengths[:, None])
    predicted = later - context.sum(1)
    ties = np.zeros(len(lengths)) if random is None else random.random(len(lengths))
    newest = group[c.DOMAIN][np.arange(len(lengths)), later]
    for domain in np.unique(newest):
        rows = np.flatnonzero(newest == domain)
        order = rows[np.lexsort((ties[rows], lengths[rows]))]
        yield order, batch_bounds(predicted[order], tokens)


def pack(group: RowGroup, rows: np.ndarray) -> PackedSequences:
    """Some rows of a row group, packed."""
    return PackedSequences.from_padded([group[name][rows] for name in ARRAYS], group[LENGTH][rows])


def read_ahead(items: Iterator[Item], depth: int = 4) -> Iterator[Item]:
    """Yield the same items, produced by another thread while the caller works; at most ``depth`` wait."""
    waiting: queue.Queue[tuple[str, Item | BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(kind: str, value: Item | BaseException | None = None) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                return waiting.put((kind, value), timeout=0.1)

    def fill() -> None:
        try:
            for item in items:
                put("item", item)
                if closed.is_set():
                    return
            put("end")
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "error":
                raise value  # type: ignore[misc]
            if kind == "end":
                return
            yield value  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()


def read_held_out(shard: Shard, most: int | None = None, *, without_context: bool = False) -> list[HeldOutEvents]:
    """Read this rank's held-out events into memory, one entry a domain, in order of length.

    If there are fewer files than ranks, rank 0 reads all of them.

    Parameters
    ----------
    most
        About how many events to read, over all domains and ranks; None: all.
    without_context
        Whether to read events of users who have no earlier event, too.
    """
    total = count_rows(shard.folder)
    if len(list(shard.folder.glob("*.parquet"))) < shard.size or not total:
        if shard.rank or not total:
            return []
        shard = Shard(shard.folder, 0, 1)
    groups = list(read(shard, [*ARRAYS, LENGTH, "target", "target_domain", PAIR]))
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    rows = np.flatnonzero(columns[LENGTH] >= (0 if without_context else 1))
    if most is not None:
        rows = rows[:: max(1, -(-total // most))]
    held_out = []
    for domain in np.unique(columns["target_domain"][rows]):
        inside = rows[columns["target_domain"][rows] == domain]
        inside = inside[np.argsort(columns[LENGTH][inside], kind="stable")]
        target, pair = (columns[name][inside].astype(np.int64) for name in ("target", PAIR))
        held_out.append(HeldOutEvents(int(domain), pack(columns, inside), target, pair))
    return held_out
