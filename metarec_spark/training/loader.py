"""Petastorm's home: read a snapshot's shard, row group by row group, and pack it into batches of so many events to predict.

Petastorm's thread pool loses rows silently; only its process and dummy pools are used, and the rows read are reconciled with
the snapshot's count by the caller.
"""

from __future__ import annotations

import contextlib
import io
import logging
import queue
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from petastorm import make_batch_reader
from torch import Tensor

from metarec_spark import columns as c
from metarec_spark.errors import TrainingError
from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model.packed import PackedSequences
from metarec_spark.training.snapshot import HALF, count_rows
from metarec_spark.warehouse.storage import Location, file_uri, list_names, local_copy, local_path

# Petastorm speaks pyarrow's old dialect, and says at every reader's end that its cache is clean.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
logging.getLogger("petastorm").setLevel(logging.ERROR)

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Shard:
    """One rank's share of a snapshot part."""

    folder: Path
    rank: int
    size: int
    pool: str
    """Petastorm's reader pool: dummy or process."""

    @classmethod
    def of(cls, part: Location, rank: int, size: int, pool: str) -> Shard:
        """A rank's share of a snapshot part, wherever that lies.

        On another file system than the machine's own, the rank copies the files of its share alone. That takes the disk of the
        share; memory holds a row group at a time.

        Raises
        ------
        TrainingError
            Where there are fewer files than ranks.
        """
        if local_path(part):
            return cls(local_copy(part), rank, size, pool)
        mine = [name for name in list_names(part) if name.endswith(".parquet")][rank::size]
        if not mine:
            raise _too_few(part, rank, size)
        return cls(local_copy(part, mine), 0, 1, pool)

    @property
    def files(self) -> list[Path]:
        """Every ``size``-th, in their order."""
        return sorted(self.folder.glob("*.parquet"))[self.rank :: self.size]


def _too_few(part: Location, rank: int, size: int) -> TrainingError:
    return TrainingError(f"rank {rank} of {size}: {part} has fewer files than ranks; lower train.processes")


def read(shard: Shard, fields: list[str], *, seed: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yield the shard's row groups as columns; fixed-size lists become [rows, length] arrays.

    Row groups come in file order, or shuffled by ``seed``. A process pool keeps neither order.

    Raises
    ------
    TrainingError
        Where there are fewer files than ranks.
    """
    if not shard.files:
        raise _too_few(shard.folder, shard.rank, shard.size)
    # The files of the share alone: Petastorm's own sharding would shuffle otherwise where the others are not there.
    reader = make_batch_reader(
        [file_uri(file) for file in shard.files],
        schema_fields=fields,
        reader_pool_type=shard.pool,
        workers_count=1,
        shuffle_row_groups=seed is not None,
        seed=seed,
        cur_shard=0,
        shard_count=1,
    )
    try:
        for group in reader:
            columns = group._asdict()
            yield {name: np.stack(values) if values.dtype == object else values for name, values in columns.items()}
    finally:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints; standard output is the command's result alone
            reader.stop()
            reader.join()


def cuts(costs: np.ndarray, tokens: int) -> np.ndarray:
    """Where to cut rows into batches that cost at most ``tokens``: as few as can be, and as even as so few can be, since ranks
    wait for the one with the largest.

    Parameters
    ----------
    costs
        [n] in the order of the rows.
    tokens
        Most that a batch costs; a single row that costs more is a batch of its own.

    Returns
    -------
    [batches + 1] positions, from 0 to n.
    """
    ends = np.cumsum(costs)
    found = _filled(ends, tokens)
    low, high = 1, tokens
    while low < high:
        middle = (low + high) // 2
        closer = _filled(ends, middle)
        if len(closer) == len(found):
            found, high = closer, middle
        else:
            low = middle + 1
    return found


def _filled(ends: np.ndarray, most: int) -> np.ndarray:
    """Cuts that fill one batch after the other; ``ends`` are the costs' running sums."""
    found = [0]
    while found[-1] < len(ends):
        start = found[-1]
        before = ends[start - 1] if start else 0
        found.append(max(start + 1, int(np.searchsorted(ends, before + most, side="right"))))
    return np.array(found)


def count_batches(shard: Shard, tokens: int) -> int:
    """Batches of one pass over the shard."""
    fields = [c.DOMAIN, LENGTH]
    return sum(len(bounds) - 1 for group in read(shard, fields) for _, bounds in _packs(group, tokens))


def batches(shard: Shard, tokens: int, seed: int) -> Iterator[PackedSequences]:
    """Yield one pass over the shard, packed: a row group's rows by the domain of their newest event and by length, ties at
    random; cut; and shuffled as batches. Rows of a domain share its candidates, rows of a length the attention's padding."""
    for group, rows in _shuffled(shard, [*ARRAYS, LENGTH], tokens, seed):
        yield contexts(group, rows)


@dataclass(frozen=True)
class Episode:
    """Users of one domain, the task, in two halves: what is adapted to, and what is asked then. Chance may leave one empty."""

    domain: int
    support: PackedSequences
    query: PackedSequences

    @property
    def length(self) -> Tensor:
        """[B] int64 events of each sequence of both halves."""
        return torch.cat([self.support.length, self.query.length])


def episodes(shard: Shard, tokens: int, seed: int, epoch: int) -> Iterator[Episode]:
    """The same batches, of the rows of :func:`metarec_spark.training.snapshot.episodes`, as episodes.

    The snapshot's halves change places from epoch to epoch, so that all users are asked.
    """
    for group, rows in _shuffled(shard, [*ARRAYS, LENGTH, HALF], tokens, seed):
        asked = (group[HALF][rows] + epoch) % 2 == 1
        task = group[c.DOMAIN][rows[0], group[LENGTH][rows[0]] - 1]
        yield Episode(int(task), contexts(group, rows[~asked]), contexts(group, rows[asked]))


def _shuffled(shard: Shard, fields: list[str], tokens: int, seed: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """The batches of one pass in random order, each as a row group and the places of its rows."""
    random = np.random.default_rng(seed)
    for group in read(shard, fields, seed=seed % 2**32):
        packs = [(order, *bounds) for order, cut in _packs(group, tokens, random) for bounds in pairwise(cut)]
        for pack in random.permutation(len(packs)):
            order, start, end = packs[pack]
            yield group, order[start:end]


def _packs(
    group: dict[str, np.ndarray], tokens: int, random: np.random.Generator | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each domain, its rows by length and where to cut them; how many there are does not depend on ``random``.

    A row costs the events that are predicted in it, all but its first: batches take equally long, and no rank waits for another.
    """
    lengths = group[LENGTH]
    predicted = np.maximum(lengths - 1, 0)  # which is also where the newest event stands
    ties = np.zeros(len(lengths)) if random is None else random.random(len(lengths))
    newest = group[c.DOMAIN][np.arange(len(lengths)), predicted]
    for domain in np.unique(newest):
        rows = np.flatnonzero(newest == domain)
        order = rows[np.lexsort((ties[rows], lengths[rows]))]
        yield order, cuts(predicted[order], tokens)


def contexts(columns: dict[str, np.ndarray], rows: np.ndarray) -> PackedSequences:
    """Some rows, packed."""
    return PackedSequences.packed([columns[name][rows] for name in ARRAYS], columns[LENGTH][rows])


def ahead(items: Iterator[Batch], depth: int = 4) -> Iterator[Batch]:
    """The same items, made by another thread while the caller works; at most ``depth`` wait."""
    waiting: queue.Queue = queue.Queue(depth)
    left = threading.Event()

    def put(item: tuple[str, object]) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                return waiting.put(item, timeout=0.1)

    def fill() -> None:
        try:
            for item in items:
                put(("item", item))
                if left.is_set():
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        left.set()
        thread.join()


@dataclass(frozen=True)
class HeldOutEvents:
    """Held-out events of one domain: contexts and the item that followed each."""

    domain: int
    contexts: PackedSequences
    target: np.ndarray
    """[B] int64."""
    pair: np.ndarray
    """[B] int64: the snapshot's number of each."""

    def take(self, rows: np.ndarray) -> HeldOutEvents:
        """Some of them, by their places."""
        return HeldOutEvents(self.domain, self.contexts.take(torch.from_numpy(rows)), self.target[rows], self.pair[rows])


def held_out(shard: Shard, most: int | None = None, *, empty: bool = False) -> list[HeldOutEvents]:
    """This rank's held-out pairs by domain, in memory: with ``most``, about so many over all domains and ranks; with ``empty``,
    also those without any context.

    Where there are fewer files than ranks, rank 0 reads them all.
    """
    total = count_rows(shard.folder)
    if len(list(shard.folder.glob("*.parquet"))) < shard.size or not total:
        if shard.rank or not total:
            return []
        shard = Shard(shard.folder, 0, 1, shard.pool)
    groups = list(read(shard, [*ARRAYS, LENGTH, "target", "target_domain", "pair"]))
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    rows = np.flatnonzero(columns[LENGTH] >= (0 if empty else 1))
    if most is not None:
        rows = rows[:: max(1, -(-total // most))]
    found = []
    for domain in np.unique(columns["target_domain"][rows]):
        mine = rows[columns["target_domain"][rows] == domain]
        mine = mine[np.argsort(columns[LENGTH][mine], kind="stable")]
        target, pair = (columns[name][mine].astype(np.int64) for name in ("target", "pair"))
        found.append(HeldOutEvents(int(domain), contexts(columns, mine), target, pair))
    return found
