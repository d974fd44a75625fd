"""Petastorm's home: read one rank's share of a snapshot, row group by row group.

Petastorm's thread pool loses rows silently, so rows are read in the rank itself (its dummy pool), and the training loop compares
their number with the snapshot's.
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
from petastorm import make_batch_reader

from metarec_spark.errors import TrainingError
from metarec_spark.warehouse.storage import Location, file_uri, list_names, local_copy, local_path

# Petastorm uses pyarrow's old interface, and logs at every reader's end that its cache is clean.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
logging.getLogger("petastorm").setLevel(logging.ERROR)

RowGroup = dict[str, np.ndarray]
"""Column = its values; [rows, length] for fixed-size lists."""


@dataclass(frozen=True)
class Shard:
    """One rank's share of a snapshot part: every ``size``-th file of a folder on this machine."""

    folder: Path
    rank: int
    size: int

    @classmethod
    def from_location(cls, part: Location, rank: int, size: int) -> Shard:
        """A rank's share of a snapshot part on any file system.

        From another file system than the machine's own, the rank copies the files of its share. They take disk space; memory
        holds a row group at a time.

        Raises
        ------
        TrainingError
            If there are fewer files than ranks.
        """
        if local_path(part):
            return cls(local_copy(part), rank, size)
        files = [name for name in list_names(part) if name.endswith(".parquet")][rank::size]
        if not files:
            raise _too_few_files(part, rank, size)
        return cls(local_copy(part, files), 0, 1)

    @property
    def files(self) -> list[Path]:
        """The files of the share, in order."""
        return sorted(self.folder.glob("*.parquet"))[self.rank :: self.size]


def _too_few_files(part: Location, rank: int, size: int) -> TrainingError:
    return TrainingError(f"rank {rank} of {size}: {part} has fewer files than ranks; lower train.processes")


def count_rows(folder: Path) -> int:
    """Rows of a snapshot part, from the files' footers."""
    return sum(pq.read_metadata(file).num_rows for file in sorted(folder.glob("*.parquet")))


def read(shard: Shard, fields: list[str], *, seed: int | None = None) -> Iterator[RowGroup]:
    """Yield the shard's row groups, in file order or shuffled by ``seed``.

    Raises
    ------
    TrainingError
        If there are fewer files than ranks.
    """
    if not shard.files:
        raise _too_few_files(shard.folder, shard.rank, shard.size)
    # The share's own files: Petastorm's sharding would shuffle in another order if the other files are missing.
    reader = make_batch_reader(
        [file_uri(file) for file in shard.files],
        schema_fields=fields,
        reader_pool_type="dummy",
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
        with contextlib.redirect_stdout(io.StringIO()):  # it prints, and standard output is the command's result alone
            reader.stop()
            reader.join()
