"""What is known of a model before it is trained: names, sizes, table versions and settings, from pinned tables."""

from __future__ import annotations

from typing import Any

import pyspark
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import __version__
from metarec_spark import columns as c
from metarec_spark.config import Config
from metarec_spark.errors import DataError
from metarec_spark.features.catalogue import catalogue_vectors
from metarec_spark.features.encoding import GAP_BUCKETS
from metarec_spark.job import Job

PINNED = (c.EVENTS, c.USER_SEQUENCES, c.ITEMS, c.ITEM_TRANSITIONS, c.ITEM_CONTENT)
"""Tables whose versions a training pins."""
_MOST_NAMES = 1000
_MOST_WIDTHS = 8


def known_names(users: DataFrame, items: DataFrame, config: Config) -> dict[str, Any]:
    """What a model made of these rows knows: domains, event types, number of items, length of sequences."""
    return {
        "domains": _few(items.select(c.DOMAIN), "domains"),
        "event_types": _few(users.select(F.explode(c.EVENT_TYPE)), "event types"),
        "items": items.count(),
        "max_length": config.features.max_length,
    }


def about(job: Job, model_id: str, versions: dict[str, int], known: dict[str, Any], sequences: int) -> dict[str, Any]:
    """A model's manifest before it is trained."""
    sections = ("model", "transitions", "split", "features", "train")
    vectors = catalogue_vectors(job.warehouse.read(c.ITEM_CONTENT, versions[c.ITEM_CONTENT]))
    return {
        **known,
        "vector_widths": _few(vectors.select(F.size("vector")), "widths of content vectors", _MOST_WIDTHS),
        "model_id": model_id,
        "kind": "base",
        "parent": None,
        "serves": known["domains"],
        "ds": job.ds.isoformat(),
        "code_version": __version__,
        "table_versions": versions,
        "items_table": job.warehouse.identity(c.ITEMS),
        "sequences": sequences,
        "gap_buckets": GAP_BUCKETS,
        **{name: getattr(job.config, name).model_dump(mode="json") for name in sections},
        "stack": {"pyspark": pyspark.__version__},
    }


def _few(column: DataFrame, what: str, most: int = _MOST_NAMES) -> list:
    """The distinct values of a column: few by nature, so an id column that was mapped by mistake is an error."""
    values = sorted(row[0] for row in column.distinct().limit(most + 1).toLocalIterator())
    if len(values) > most:
        raise DataError(f"more than {most} {what}, such as {values[:3]}: is the right column mapped?")
    return values
