"""Newcomers: items that came after the model was trained, recommended by their content and by what resembles them.

Spark writes what the model needs to know of them as a folder of Parquet files; every executor process reads it once, beside
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
    """What was written of them."""

    folder: Location
    """Where; it lasts as long as the lists are made."""
    items: DataFrame
    """(item_idx, item_id, domain position), a row each."""
    count: int
    end: int
    """One more than their largest index."""
    digest: str
    """The same for the same items, and the same known of them."""


@contextmanager
def written(job: Job, model: Location, versions: dict[str, int]) -> Iterator[NewItems | None]:
    """The newcomers of a model's domains, from pinned table versions; None where there is none.

    An item is one where the model knows a token of it or can read its given vector, or where an item of these domains resembles
    it. Item information bears no date: an older day that is run again sees today's.

    Notes
    -----
    Costs grow with the items that came since the training; the driver holds 8 bytes for each token that the model knows.
    """
    with scratch_folder(job.spark, job.warehouse.path("_newcomers")) as uri:
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
    alike = pair.where((F.col(f"to.{SIMILARITY}") > 0) & F.col(f"to.{c.DOMAIN}").isin(manifest.domains))
    parts = {
        TOKENS: catalogue_tokens(content).join(F.broadcast(known), "token", "left_semi"),
        VECTORS: catalogue_vectors(content).where(F.size("vector").isin(manifest.vector_widths)),
        TRANSITIONS: alike.select(c.ITEM_IDX, F.col(f"to.{c.ITEM_IDX}").alias("successor"), f"to.{SIMILARITY}"),
    }
    for name, part in parts.items():
        part.write.mode("overwrite").parquet(f"{folder}/{name}")
    read = job.spark.read.parquet
    named = reduce(DataFrame.unionByName, [read(f"{folder}/{name}").select(c.ITEM_IDX) for name in parts])
    domain = position(manifest.domains, F.col(c.DOMAIN)).alias(c.DOMAIN)
    found = items.join(named, c.ITEM_IDX, "left_semi").select(c.ITEM_IDX, c.ITEM_ID, domain)
    found.write.mode("overwrite").parquet(f"{folder}/{ITEMS}")
    found = read(f"{folder}/{ITEMS}")
    count, last = found.agg(F.count("*"), F.max(c.ITEM_IDX)).first()
    if not count:
        return None
    digests = [digest(read(f"{folder}/{name}")) for name in (ITEMS, *parts)]
    return NewItems(folder, found, count, last + 1, fingerprint(*digests))


def known_events(users: DataFrame, new_items: DataFrame, items: int) -> DataFrame:
    """Users' sequences without events on items that are neither among the model's first ``items`` nor newcomers."""
    later = F.filter(c.ITEM_IDX, lambda item: item >= items)
    known = users.select(c.USER_ID, F.explode(F.array_distinct(later)).alias(c.ITEM_IDX)).join(new_items, c.ITEM_IDX)
    known = known.groupBy(c.USER_ID).agg(F.collect_set(c.ITEM_IDX).alias("known"))
    users = users.join(known, c.USER_ID, "left").withColumn("known", F.coalesce("known", F.array().cast("array<int>")))
    event = F.filter(
        F.arrays_zip(*_SEQUENCE), lambda e: (e[c.ITEM_IDX] < items) | F.array_contains(F.col("known"), e[c.ITEM_IDX])
    )
    users = users.withColumn("event", event)
    return users.withColumns({name: F.col(f"event.{name}") for name in _SEQUENCE}).drop("known", "event")


def joined(own: ModelArtifact, folder: Location) -> tuple[ModelArtifact, pa.Array]:
    """The model with the newcomers in ``folder`` after its own items, and the external ids of all.

    An index between theirs whose item is not among them is in no domain, and has no id.
    """
    table = pq.read_table(local_copy(f"{folder}/{ITEMS}"))
    before, index = own.catalogue.size, table[c.ITEM_IDX].to_numpy()
    size = int(index.max()) + 1
    row = np.full(size - before, -1)
    row[index - before] = np.arange(len(index))
    domain = np.where(row >= 0, table[c.DOMAIN].to_numpy()[row], -1).astype(np.int32)
    ids = table[c.ITEM_ID].combine_chunks().take(pa.array(row, mask=row < 0))
    catalogue = Catalogue(
        domain=np.concatenate([own.catalogue.domain, domain]),
        events=np.concatenate([own.catalogue.events, np.zeros(size - before, np.int64)]),
        **_content(own, folder, size),
        successors=own.catalogue.successors.extended(size, *_alike(folder, index, before)),
    )
    return own.extended(catalogue), pa.concat_arrays([own.item_ids().combine_chunks(), ids])


def _content(own: ModelArtifact, folder: Location, size: int) -> dict[str, np.ndarray]:
    """Tokens and given vectors of all items; of a newcomer, the model reads as many tokens as of its own items at most."""
    before, hashes, token = own.catalogue.size, own.catalogue.token_hashes, pq.read_table(local_copy(f"{folder}/{TOKENS}"))
    place = 1 + np.searchsorted(hashes[1:], token["token"].to_numpy())
    item, weight, width = token[c.ITEM_IDX].to_numpy() - before, token["weight"].to_numpy(), own.catalogue.tokens.shape[1]
    tokens, weights = pad_tokens(item, place, weight, size - before, width)
    vectors = read_vectors(local_copy(f"{folder}/{VECTORS}"), range(before, size), own.manifest.vector_widths)
    return {
        "tokens": np.concatenate([own.catalogue.tokens, tokens]),
        "weights": np.concatenate([own.catalogue.weights, weights]),
        "token_hashes": hashes,
        "vectors": np.concatenate([own.catalogue.vectors, vectors]),
    }


def _alike(folder: Location, index: np.ndarray, before: int) -> tuple[np.ndarray, ...]:
    """(item, other, similarity) of the newcomers and the items that they resemble, which are the model's own or newcomers too."""
    pair = pq.read_table(local_copy(f"{folder}/{TRANSITIONS}"))
    item, other, similarity = (pair[name].to_numpy() for name in (c.ITEM_IDX, "successor", SIMILARITY))
    known = (other < before) | np.isin(other, index)
    return item[known], other[known], similarity[known]
