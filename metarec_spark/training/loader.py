"""Petastorm's home: read a snapshot's shard, row group by row group, and cut it into batches of near-equal lengths.

Petastorm's thread pool loses rows silently; only its process and dummy pools are used, and the rows read are reconciled with
the snapshot's count by the caller.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from petastorm import make_batch_reader
from petastorm.errors import NoDataAvailableError

from metarec_spark.errors import TrainingError
from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model.transformer import Contexts

# Petastorm speaks pyarrow's old dialect, and says at every reader's end that its cache is clean.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
logging.getLogger("petastorm").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Shard:
    """One rank's share of a snapshot part."""

    folder: Path
    rank: int
    size: int
    pool: str
    """Petastorm's reader pool: dummy or process."""


def read(shard: Shard, fields: list[str], *, seed: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yield the shard's row groups as columns; fixed-size lists become [rows, length] arrays.

    Row groups come in file order, or shuffled by ``seed``. A process pool keeps neither order.

    Raises
    ------
    TrainingError
        Where there are fewer row groups than ranks.
    """
    try:
        reader = make_batch_reader(
            shard.folder.as_uri(),
            schema_fields=fields,
            reader_pool_type=shard.pool,
            workers_count=1,
            shuffle_row_groups=seed is not None,
            seed=seed,
            cur_shard=shard.rank,
            shard_count=shard.size,
        )
    except NoDataAvailableError:
        raise TrainingError(
            f"rank {shard.rank} of {shard.size}: {shard.folder} has fewer row groups than ranks; lower train.processes"
        ) from None
    try:
        for group in reader:
            columns = group._asdict()
            yield {name: np.stack(values) if values.dtype == object else values for name, values in columns.items()}
    finally:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints; standard output is the command's result alone
            reader.stop()
            reader.join()


def count_rows(folder: Path) -> int:
    """Rows of a snapshot part, from the files' footers."""
    return sum(pq.read_metadata(file).num_rows for file in sorted(folder.glob("*.parquet")))


def count_row_groups(folder: Path) -> int:
    """Row groups of a snapshot part; Petastorm shares them out where there is one a rank at least."""
    return sum(pq.read_metadata(file).num_row_groups for file in sorted(folder.glob("*.parquet")))


def cuts(lengths: np.ndarray, tokens: int) -> np.ndarray:
    """Where to cut rows, sorted by length, into batches of at most ``tokens`` events, padding included.

    The cuts depend on the multiset of lengths alone, so the number of a shard's batches is known before they are made.

    Parameters
    ----------
    lengths
        [n] ascending.
    tokens
        Most rows × longest row in a batch; a longer single row is a batch of its own.

    Returns
    -------
    [batches + 1] positions, from 0 to n.
    """
    found = [0]
    while found[-1] < len(lengths):
        start = found[-1]
        rows = np.arange(1, len(lengths) - start + 1)
        fits = rows * lengths[start:] <= tokens
        found.append(start + max(1, len(fits) if fits.all() else int(fits.argmin())))
    return np.array(found)


def count_batches(shard: Shard, tokens: int) -> int:
    """Batches of one pass over the shard."""
    return sum(len(cuts(np.sort(group[LENGTH]), tokens)) - 1 for group in read(shard, [LENGTH]))


def batches(shard: Shard, tokens: int, seed: int) -> Iterator[Contexts]:
    """Yield one pass over the shard: each row group's rows sorted by length (ties at random), cut, and shuffled as batches."""
    random = np.random.default_rng(seed)
    for group in read(shard, [*ARRAYS, LENGTH], seed=seed % 2**32):
        lengths = group[LENGTH]
        order = np.lexsort((random.random(len(lengths)), lengths))
        bounds = cuts(lengths[order], tokens)
        for batch in random.permutation(len(bounds) - 1):
            yield contexts(group, order[bounds[batch] : bounds[batch + 1]])


def contexts(columns: dict[str, np.ndarray], rows: np.ndarray) -> Contexts:
    """Tensors of some rows, cut to the longest of them."""
    length = columns[LENGTH][rows].astype(np.int64)
    longest = max(1, int(length.max(initial=1)))
    arrays = [torch.from_numpy(columns[name][rows, :longest].astype(np.int64)) for name in ARRAYS]
    return Contexts(*arrays, length=torch.from_numpy(length))
