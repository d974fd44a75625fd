"""The training snapshot: pinned table versions as Parquet, in the shapes that ranks read.

``sequences`` and the held-out pairs (``validation``, ``test``) hold fixed-size arrays for Petastorm; for meta-training,
``sequences`` holds the rows of episodes. ``items``, ``tokens``, ``vectors`` and ``transitions`` hold what every rank knows of
the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.sections import Train
from metarec_spark.errors import DataError
from metarec_spark.features import encoding
from metarec_spark.features.catalogue import (
    ITEMS,
    TOKENS,
    TRANSITIONS,
    VECTORS,
    catalogue_items,
    catalogue_tokens,
    catalogue_transitions,
    catalogue_vectors,
)
from metarec_spark.features.split import pairs, train_part
from metarec_spark.training.manifest import KnownNames
from metarec_spark.warehouse.storage import Location, uri

SEQUENCES = "sequences"
PAIR, HALF = "pair", "half"
ROWS_PER_FILE = 50_000


def write(
    folder: Location,
    learnt: DataFrame,
    held: DataFrame,
    tables: dict[str, DataFrame],
    known: KnownNames,
    of: Sequence[str],
    settings: Train,
    splits: Sequence[str] = (c.VALIDATION,),
    counted: DataFrame | None = None,
) -> int:
    """Write all parts and return the number of sequences.

    Parameters
    ----------
    learnt, held
        Rows of :func:`metarec_spark.features.split.held_out`: whose training events are learnt, and whose held-out events
        are ranked.
    tables
        items, item_transitions and item_content.
    known
        The model's names and sizes.
    of
        Domains whose held-out events are ranked.
    splits
        Which of those; a part for each.
    counted
        Rows whose training events are counted, an item without any being one that its id says nothing of; None: ``learnt``.

    Raises
    ------
    DataError
        Where there are fewer sequences than ranks, or not all were written.
    """
    rows = training_sequences(learnt, known)
    if settings.method != "joint":
        rows = episodes(rows)
    expected = rows.count()
    if expected < settings.processes:
        raise DataError(
            f"{expected} users with two or more training events in {', '.join(known.domains)}; {settings.processes} rank(s) "
            "need at least as many: extract a longer log, or lower train.processes"
        )
    files = min(expected, max(4 * settings.processes, -(-expected // ROWS_PER_FILE)))
    most = max(settings.validation_pairs, settings.stacking_pairs)
    ranked = {split: held_pairs(held, split, most, of, known) for split in splits}
    parts = {
        SEQUENCES: spread(rows, files),
        ITEMS: catalogue_items(tables[c.ITEMS], learnt if counted is None else counted, known.domains),
        TOKENS: catalogue_tokens(tables[c.ITEM_CONTENT]),
        VECTORS: catalogue_vectors(tables[c.ITEM_CONTENT]),
        TRANSITIONS: catalogue_transitions(tables[c.ITEM_TRANSITIONS]),
    }
    parts |= {split: spread(rows, 4 * settings.processes) for split, rows in ranked.items()}
    for name, part in parts.items():
        part.write.mode("overwrite").parquet(f"{uri(folder)}/{name}")
    written = learnt.sparkSession.read.parquet(f"{uri(folder)}/{SEQUENCES}").count()
    if written != expected:
        raise DataError(f"snapshot {folder}: {written} sequences written, {expected} expected: run again")
    return written


def count_rows(folder: Path) -> int:
    """Rows of a part, from the files' footers."""
    return sum(pq.read_metadata(file).num_rows for file in sorted(folder.glob("*.parquet")))


def training_sequences(labelled: DataFrame, known: KnownNames) -> DataFrame:
    """(item_idx, domain, event_type, gap, length) of users with at least two training events.

    Parameters
    ----------
    labelled
        Rows of :func:`metarec_spark.features.split.held_out`.
    known
        The model's names and sizes.
    """
    return encoding.padded(_encoded(train_part(labelled), known).where(F.col(encoding.LENGTH) > 1), known.max_length)


def _encoded(rows: DataFrame, known: KnownNames) -> DataFrame:
    return encoding.encoded(
        rows, domains=known.domains, event_types=known.event_types, items=known.items, max_length=known.max_length
    )


def episodes(sequences: DataFrame) -> DataFrame:
    """A row for each domain of a sequence, which ends with its newest event there, and the ``half`` of its user.

    The newest event of a row names its task. All events of a domain but a sequence's first are asked in exactly one row of each
    user, with everything before them as context. ``half`` is 0 or 1 by a hash of the user, who is thus on the same side in all
    domains. Rows without anything to ask are left out; the arrays stay as they are, and ``length`` says where a row ends.

    Parameters
    ----------
    sequences
        Rows of :func:`training_sequences`.

    Notes
    -----
    There are as many rows as pairs of a user and one of the user's domains.
    """
    events = F.slice(c.DOMAIN, F.lit(1), F.col(encoding.LENGTH))
    rows = sequences.withColumn("task", F.explode(F.array_distinct(events)))
    ends = F.col(encoding.LENGTH) - F.array_position(F.reverse(events), F.col("task")).cast("int") + 1
    half = F.pmod(F.xxhash64(c.USER_ID, F.lit(HALF)), F.lit(2)).cast("int")
    rows = rows.withColumn(encoding.LENGTH, ends).withColumn(HALF, half)
    return rows.where(F.col(encoding.LENGTH) > 1).drop("task")


def held_pairs(labelled: DataFrame, split: str, most: int, of: Sequence[str], known: KnownNames) -> DataFrame:
    """Contexts with ``target`` and ``target_domain``, which is one of ``of``: at most ``most`` pairs a domain, numbered from 1 as
    ``pair``. The same users have the same numbers, whatever of their context is known; it may be empty."""
    rows = pairs(labelled).where((F.col("split") == split) & F.col("target_domain").isin(list(of)))
    by_hash = Window.partitionBy("target_domain").orderBy(F.xxhash64(c.USER_ID, "target_domain"), c.USER_ID)
    rows = _encoded(rows.withColumn(PAIR, F.row_number().over(by_hash)).where(F.col(PAIR) <= most), known)
    rows = rows.withColumn("target_domain", encoding.position(known.domains, F.col("target_domain")))
    return encoding.padded(rows, known.max_length).drop("split", "seen", "train_events")


def spread(rows: DataFrame, files: int) -> DataFrame:
    """Deal rows to files by a hash of the user, in a fixed order: the same rows give the same files."""
    by_user = F.xxhash64(c.USER_ID)
    order = [by_user, c.USER_ID, encoding.LENGTH, *({"target_domain"} & set(rows.columns))]
    return rows.repartition(files, by_user).sortWithinPartitions(*order).drop(c.USER_ID)
