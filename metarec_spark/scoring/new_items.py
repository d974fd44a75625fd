"""Cold-start items: items that are newer than the model, recommended by their content and by the items that resemble them.

Spark writes their ids, content and similarities to a folder of Parquet files; every executor process reads it once, beside
the model. The model's own folder stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.features.catalogue import ITEMS, TOKENS, TRANSITIONS, VECTORS, catalogue_tokens, catalogue_vectors
from metarec_spark.features.encoding import position
from metarec_spark.features.neighbours import SIMILARITY
from metarec_spark.job import Job
from metarec_spark.model import artifact
from metarec_spark.model.artifact import ModelArtifact
from metarec_spark.model.catalogue import Catalogue, pad_tokens, read_vectors
from metarec_spark.model.manifest import Manifest
from metarec_spark.warehouse.contracts import digest
from metarec_spark.warehouse.storage import Location, local_copy, scratch_folder

_SEQUENCE = (c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME)


@dataclass(frozen=True)
class NewItems:
    """The items that are newer than a model, as executors read them."""

    folder: Location
    """Folder of their Parquet files; it exists while lists are made."""
    items: DataFrame
    """(item_idx, item_id, domain position), one row per item."""
    count: int
    end: int
    """Their largest index plus one."""
    digest: str
    """Hash of the items and of everything that the model reads about them."""


@contextmanager
def write_new_items(job: Job, model: Location, versions: dict[str, int]) -> Iterator[NewItems | None]:
    """Yield the new items of a model's platforms, from pinned table versions; None if there is none.

    A new item counts if the model knows one of its tokens or can read its given vector, or if an item of these platforms
    resembles it. Item information bears no date: an older day that is run again sees today's.

    Notes
    -----
    Costs grow with the items added since the training; the driver holds 8 bytes for each token that the model knows.
    """
    with scratch_folder(job.spark, job.warehouse.path("_new_items")) as uri:
        yield _write(job, artifact.read_manifest(model), artifact.token_hashes(model), versions, uri)


def _write(job: Job, manifest: Manifest, hashes: np.ndarray, versions: dict[str, int], folder: str) -> NewItems | None:
    later = (F.col(c.ITEM_IDX) >= manifest.items) & F.col(c.DOMAIN).isin(manifest.domains)
    items, content, transitions = (
        job.warehouse.read(name, versions[name]).where(later) for name in (c.ITEMS, c.ITEM_CONTENT, c.ITEM_TRANSITIONS)
    )
    if items.isEmpty():
        return None
    known = job.spark.createDataFrame(pa.table({"token": hashes}))
    pair = transitions.select(c.ITEM_IDX, F.explode("successors").alias("to"))
    similar = pair.where((F.col(f"to.{SIMILARITY}") > 0) & F.col(f"to.{c.DOMAIN}").isin(manifest.domains))
    parts = {
        TOKENS: catalogue_tokens(content).join(F.broadcast(known), "token", "left_semi"),
        VECTORS: catalogue_vectors(content).where(F.size("vector").isin(manifest.vector_widths)),
        TRANSITIONS: similar.select(c.ITEM_IDX, F.col(f"to.{c.ITEM_IDX}").alias("successor"), f"to.{SIMILARITY}"),
    }
    for name, part in parts.items():
        part.write.mode("overwrite").parquet(f"{folder}/{name}")
    read = job.spark.read.parquet
    named = reduce(DataFrame.unionByName, [read(f"{folder}/{name}").select(c.ITEM_IDX) for name in parts])
    domain = position(manifest.domains, F.col(c.DOMAIN)).alias(c.DOMAIN)
    usable = items.join(named, c.ITEM_IDX, "left_semi").select(c.ITEM_IDX, c.ITEM_ID, domain)
    usable.write.mode("overwrite").parquet(f"{folder}/{ITEMS}")
    usable = read(f"{folder}/{ITEMS}")
    count, last = next(iter(usable.agg(F.count("*"), F.max(c.ITEM_IDX)).toLocalIterator()))
    if not count:
        return None
    digests = [digest(read(f"{folder}/{name}")) for name in (ITEMS, *parts)]
    return NewItems(folder, usable, count, last + 1, fingerprint(*digests))


def known_events(users: DataFrame, new_items: DataFrame, items: int) -> DataFrame:
    """Return users' sequences without the events on unknown items: neither among the model's first ``items`` nor new items."""
    later = F.filter(c.ITEM_IDX, lambda item: item >= items)
    known = users.select(c.USER_ID, F.explode(F.array_distinct(later)).alias(c.ITEM_IDX)).join(new_items, c.ITEM_IDX)
    known = known.groupBy(c.USER_ID).agg(F.collect_set(c.ITEM_IDX).alias("known"))
    users = users.join(known, c.USER_ID, "left").withColumn("known", F.coalesce("known", F.array().cast("array<int>")))
    event = F.filter(
        F.arrays_zip(*_SEQUENCE), lambda e: (e[c.ITEM_IDX] < items) | F.array_contains(F.col("known"), e[c.ITEM_IDX])
    )
    users = users.withColumn("event", event)
    return users.withColumns({name: F.col(f"event.{name}") for name in _SEQUENCE}).drop("known", "event")


def with_new_items(model: ModelArtifact, folder: Location) -> tuple[ModelArtifact, pa.Array]:
    """Return the model with the new items in ``folder`` appended to its own, and the external ids of all.

    An index in between that is no new item belongs to no domain and has no id.
    """
    table = pq.read_table(local_copy(f"{folder}/{ITEMS}"))
    before, index = model.catalogue.size, table[c.ITEM_IDX].to_numpy()
    size = int(index.max()) + 1
    row = np.full(size - before, -1)
    row[index - before] = np.arange(len(index))
    domain = np.where(row >= 0, table[c.DOMAIN].to_numpy()[row], -1).astype(np.int32)
    ids = table[c.ITEM_ID].combine_chunks().take(pa.array(row, mask=row < 0))
    catalogue = Catalogue(
        domain=np.concatenate([model.catalogue.domain, domain]),
        events=np.concatenate([model.catalogue.events, np.zeros(size - before, np.int64)]),
        **_content(model, folder, size),
        successors=model.catalogue.successors.extended(size, *_similarities(folder, index, before)),
    )
    return model.extended(catalogue), pa.concat_arrays([model.item_ids().combine_chunks(), ids])


def _content(model: ModelArtifact, folder: Location, size: int) -> dict[str, np.ndarray]:
    """Return tokens and given vectors of all items; a new item has at most as many tokens as the model's own items have."""
    before, hashes, token = model.catalogue.size, model.catalogue.token_hashes, pq.read_table(local_copy(f"{folder}/{TOKENS}"))
    token_index = 1 + np.searchsorted(hashes[1:], token["token"].to_numpy())
    item, weight, width = token[c.ITEM_IDX].to_numpy() - before, token["weight"].to_numpy(), model.catalogue.tokens.shape[1]
    tokens, weights = pad_tokens(item, token_index, weight, size - before, width)
    vectors = read_vectors(local_copy(f"{folder}/{VECTORS}"), range(before, size), model.manifest.vector_widths)
    return {
        "tokens": np.concatenate([model.catalogue.tokens, tokens]),
        "weights": np.concatenate([model.catalogue.weights, weights]),
        "token_hashes": hashes,
        "vectors": np.concatenate([model.catalogue.vectors, vectors]),
    }


def _similarities(folder: Location, index: np.ndarray, before: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (item, other, similarity) of new items and the items that they resemble, both old and new."""
    pair = pq.read_table(local_copy(f"{folder}/{TRANSITIONS}"))
    item, other, similarity = (pair[name].to_numpy() for name in (c.ITEM_IDX, "successor", SIMILARITY))
    known = (other < before) | np.isin(other, index)
    return item[known], other[known], similarity[known]
