"""The training snapshot: pinned table versions as Parquet, in the shapes that ranks read.

``sequences`` and the held-out events (``validation``, ``test``) are fixed-size arrays for Petastorm; for meta-training,
``sequences`` holds the rows of episodes. ``items``, ``tokens``, ``vectors`` and ``transitions`` are the catalogue, which every
rank reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from pyspark.sql import Column, DataFrame, Window
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
from metarec_spark.warehouse.storage import Location, copy, uri

SEQUENCES = "sequences"
PAIR, HALF = "pair", "half"
ROWS_PER_FILE = 50_000


def write(
    folder: Location,
    training: DataFrame,
    held_out: DataFrame,
    tables: dict[str, DataFrame],
    known: KnownNames,
    domains: Sequence[str],
    settings: Train,
    splits: Sequence[str] = (c.VALIDATION,),
    counted: DataFrame | None = None,
    same: Mapping[str, Location] | None = None,
) -> tuple[int, int]:
    """Write all parts, and return the number of sequences and that of their events.

    Parameters
    ----------
    training, held_out
        Rows of :func:`metarec_spark.features.split.held_out`: users whose training events are learned, and users whose held-out
        events are ranked.
    tables
        items, item_transitions and item_content.
    known
        The model's names and sizes.
    domains
        Domains whose held-out events are ranked.
    splits
        Splits of held-out events, a part each.
    counted
        Users whose training events are counted as the items' events; None: those of ``training``. An item without an event is
        represented by its content alone.
    same
        Parts that are the same in another snapshot, with its folder: they are copied.

    Raises
    ------
    DataError
        If there are fewer sequences than ranks, or not all were written.
    """
    rows = training_sequences(training, known)
    if settings.method != "joint":
        rows = episodes(rows)
    expected = rows.count()
    if expected < settings.processes:
        raise DataError(
            f"{expected} users with a training event after their first one in {', '.join(known.domains)}; "
            f"{settings.processes} rank(s) need at least as many: extract a longer log, or lower train.processes"
        )
    files = min(expected, max(4 * settings.processes, -(-expected // ROWS_PER_FILE)))
    most = max(settings.validation_pairs, settings.stacking_pairs)
    ranked = {split: held_out_events(held_out, split, most, domains, known) for split in splits}
    parts = {
        SEQUENCES: spread(rows, files),
        ITEMS: catalogue_items(tables[c.ITEMS], training if counted is None else counted, known.domains, known.context_types),
        TOKENS: catalogue_tokens(tables[c.ITEM_CONTENT]),
        VECTORS: catalogue_vectors(tables[c.ITEM_CONTENT]),
        TRANSITIONS: catalogue_transitions(tables[c.ITEM_TRANSITIONS]),
    }
    parts |= {split: spread(rows, 4 * settings.processes) for split, rows in ranked.items()}
    same, spark = same or {}, training.sparkSession
    with ThreadPoolExecutor(len(parts)) as pool:  # side by side: most of a small part's seconds are spent on planning
        writes = [
            pool.submit(copy, spark, f"{uri(same[name])}/{name}", f"{uri(folder)}/{name}")
            if name in same
            else pool.submit(part.write.mode("overwrite").parquet, f"{uri(folder)}/{name}")
            for name, part in parts.items()
        ]
        for write_ended in writes:
            write_ended.result()
    sequences = spark.read.parquet(f"{uri(folder)}/{SEQUENCES}")
    ((written, events),) = sequences.agg(F.count("*"), F.sum(encoding.LENGTH)).collect()
    if written != expected:
        raise DataError(f"snapshot {folder}: {written} sequences written, {expected} expected: run again")
    return written, events


def training_sequences(labelled: DataFrame, known: KnownNames) -> DataFrame:
    """(item_idx, domain, event_type, gap, length) of users with a training event that can be predicted from one before it.

    Parameters
    ----------
    labelled
        Rows of :func:`metarec_spark.features.split.held_out`.
    known
        The model's names and sizes.
    """
    rows = _encoded(train_part(labelled), known).where(F.col(encoding.LENGTH) > 1)
    if known.context_types:
        later = F.slice(c.EVENT_TYPE, F.lit(2), F.col(encoding.LENGTH) - 1)
        rows = rows.where(F.exists(later, lambda event_type: event_type >= 0))
    return encoding.padded(rows, known.max_length)


def _encoded(rows: DataFrame, known: KnownNames) -> DataFrame:
    return encoding.encoded(rows, **asdict(known))


def episodes(sequences: DataFrame) -> DataFrame:
    """A row for each domain of a sequence, which ends with its newest event there, with the ``half`` of its user.

    The domain of a row's newest event is its task. Every event except a sequence's first is a target in exactly one row, with
    everything before it as context. ``half`` is 0 or 1 by a hash of the user, so that a user is in the same half in all domains.
    Rows without a target are left out; the arrays stay as they are, and ``length`` is the end of a row.

    Parameters
    ----------
    sequences
        Rows of :func:`training_sequences`.

    Notes
    -----
    There are as many rows as pairs of a user and a domain of the user.
    """
    events = F.slice(c.DOMAIN, F.lit(1), F.col(encoding.LENGTH))
    rows = sequences.withColumn("task", F.explode(F.array_distinct(events)))
    ends = F.col(encoding.LENGTH) - F.array_position(F.reverse(events), F.col("task")).cast("int") + 1
    half = F.pmod(F.xxhash64(c.USER_ID, F.lit(HALF)), F.lit(2)).cast("int")
    rows = rows.withColumn(encoding.LENGTH, ends).withColumn(HALF, half)
    return rows.where(F.col(encoding.LENGTH) > 1).drop("task")


def held_out_events(labelled: DataFrame, split: str, most: int, domains: Sequence[str], known: KnownNames) -> DataFrame:
    """Contexts, which may be empty, with ``target``, ``target_domain`` and ``pair``: at most ``most`` events a domain.

    ``pair`` numbers the events of a domain from 1, by a hash of the user: the same users get the same numbers in any snapshot.
    """
    rows = pairs(labelled, known.context_types).where((F.col("split") == split) & F.col("target_domain").isin(list(domains)))
    by_hash = Window.partitionBy("target_domain").orderBy(F.xxhash64(c.USER_ID, "target_domain"), c.USER_ID)
    rows = _encoded(rows.withColumn(PAIR, F.row_number().over(by_hash)).where(F.col(PAIR) <= most), known)
    rows = rows.withColumn("target_domain", encoding.position(known.domains, F.col("target_domain")))
    return encoding.padded(rows, known.max_length).drop("split", "seen", "repeat", "train_events")


def spread(rows: DataFrame, files: int) -> DataFrame:
    """Distribute rows over files by a hash of the user, in a fixed order: the same rows give the same files."""
    by_user = F.xxhash64(c.USER_ID)
    order: list[str | Column] = [by_user, c.USER_ID, encoding.LENGTH, *({"target_domain"} & set(rows.columns))]
    return rows.repartition(files, by_user).sortWithinPartitions(*order).drop(c.USER_ID)
