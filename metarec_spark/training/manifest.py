"""The draft of a model's manifest, before training: names, sizes, table versions and settings, from pinned tables."""

from __future__ import annotations

from dataclasses import dataclass

import pyspark
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import __version__
from metarec_spark import columns as c
from metarec_spark.config import Config
from metarec_spark.features.behaviour import ContextTypes, unmatched
from metarec_spark.features.catalogue import catalogue_vectors
from metarec_spark.features.encoding import GAP_BUCKETS
from metarec_spark.job import Job, log
from metarec_spark.model.manifest import Manifest

PINNED = (c.EVENTS, c.USER_SEQUENCES, c.ITEMS, c.ITEM_TRANSITIONS, c.ITEM_CONTENT)
"""Tables whose versions a training pins."""
_MAX_NAMES = 1000
_MAX_WIDTHS = 8


@dataclass(frozen=True)
class KnownNames:
    """What a model knows by name or index, as :func:`metarec_spark.features.encoding.encoded` takes it."""

    domains: list[str]
    event_types: list[str]
    items: int
    max_length: int
    context_types: ContextTypes

    @classmethod
    def of_model(cls, manifest: Manifest) -> KnownNames:
        """Those of a model that was trained."""
        names = manifest.domains, manifest.event_types
        return cls(*names, manifest.items, manifest.max_length, manifest.features.context_types)


def known_names(users: DataFrame, items: DataFrame, config: Config) -> KnownNames:
    """Domains, event types, number of items and length of sequences of a model that is trained on these rows."""
    known = KnownNames(
        domains=_most_common(items.groupBy(c.DOMAIN).agg(F.sum("events").alias("rows")), "platforms", _MAX_NAMES),
        event_types=_most_common(_counts(users, F.explode(c.EVENT_TYPE)), "event types", _MAX_NAMES),
        items=items.count(),
        max_length=config.features.max_length,
        context_types=config.features.context_types,
    )
    if lost := unmatched(config.features, known.domains, known.event_types):
        log.warning("[features] names what no event has: %s; check the spelling", "; ".join(lost))
    return known


def draft(job: Job, model_id: str, versions: dict[str, int], known: KnownNames, sequences: int) -> Manifest:
    """The manifest of a base model before it is trained."""
    vectors = catalogue_vectors(job.warehouse.read(c.ITEM_CONTENT, versions[c.ITEM_CONTENT]))
    config = job.config
    return Manifest(
        model_id=model_id,
        serves=known.domains,
        domains=known.domains,
        event_types=known.event_types,
        items=known.items,
        max_length=known.max_length,
        gap_buckets=GAP_BUCKETS,
        vector_widths=_most_common(_counts(vectors, F.size("vector")), "widths of content vectors", _MAX_WIDTHS),
        ds=job.ds,
        code_version=__version__,
        table_versions=versions,
        items_table=job.warehouse.identity(c.ITEMS),
        sequences=sequences,
        model=config.model,
        transitions=config.transitions,
        split=config.split,
        features=config.features,
        train=config.train,
        exclude_seen=config.recommend.exclude_seen,
        stack={"pyspark": pyspark.__version__},
    )


def _counts(rows: DataFrame, value: Column) -> DataFrame:
    return rows.select(value.alias("value")).groupBy("value").count()


def _most_common(counts: DataFrame, what: str, most: int) -> list:
    """The values with the most rows, sorted; of (value, rows). The rest is one more value, "other", for the model.

    Few by nature: more of them may be an id column that was mapped by mistake, or made up by whoever writes to a log.
    """
    value, rows = counts.columns
    values = [row[0] for row in counts.orderBy(F.desc(rows), value).limit(most + 1).collect()]
    if len(values) > most:
        text = "%d %s: the model knows the %d with the most events, and takes the rest for one: is the right column mapped?"
        log.warning(text, counts.count(), what, most)
    return sorted(values[:most])
