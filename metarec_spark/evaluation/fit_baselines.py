"""Fit the baselines to a model's training events, and write them where executors can read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.features.encoding import position
from metarec_spark.features.split import train_part
from metarec_spark.job import Job
from metarec_spark.model import baselines
from metarec_spark.model.baselines import Baselines
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.warehouse.storage import atomic_write, scratch_folder

_MOST_EVENTS = 1_000_000
"""Training events of a platform, about, that its baselines are fitted to: those of users drawn by the hash of their ids."""
_BUCKETS = 2**20


@contextmanager
def fitted_baselines(job: Job, labelled: DataFrame, domains: list[str], catalogue: Catalogue) -> Iterator[str]:
    """Yield the file of the fitted baselines, which is deleted at the end.

    Parameters
    ----------
    labelled
        Rows of :func:`metarec_spark.features.split.held_out`.
    domains, catalogue
        The model's.

    Notes
    -----
    The driver holds 12 bytes for each of at most ``_MOST_EVENTS`` events of each platform, and the fitted baselines.
    """
    with scratch_folder(job.spark, job.warehouse.path("_baselines")) as folder:
        events = _training_events(labelled, domains, catalogue).toArrow()
        user, item = np.asarray(events["user"]), np.asarray(events[c.ITEM_IDX])
        domain = catalogue.domain[item]
        fitted = []
        for number, items in enumerate(catalogue.of_domain):
            inside = domain == number
            fitted.append(Baselines.fit(baselines.user_item_matrix(user[inside], item[inside], items), catalogue.events[items]))
        file = f"{folder}/baselines.safetensors"
        with atomic_write(file) as draft:
            baselines.save(fitted, draft)
        yield file


def _training_events(labelled: DataFrame, domains: list[str], catalogue: Catalogue) -> DataFrame:
    """Return (user hash, item_idx) of training events on known items, of a sample of users if a platform has many events."""
    totals = [int(catalogue.events[items].sum()) for items in catalogue.of_domain]
    most = [min(_BUCKETS, int(_BUCKETS * _MOST_EVENTS / total)) if total else 0 for total in totals]
    events = train_part(labelled).select(
        F.xxhash64(c.USER_ID).alias("user"), F.explode(F.arrays_zip(c.ITEM_IDX, c.DOMAIN)).alias("event")
    )
    number = position(domains, F.col(f"event.{c.DOMAIN}"))
    limit = F.get(F.array(*[F.lit(buckets) for buckets in most]), number)
    known = (number >= 0) & (F.col(f"event.{c.ITEM_IDX}") < F.lit(catalogue.size)) & (F.pmod("user", F.lit(_BUCKETS)) < limit)
    return events.where(known).select("user", F.col(f"event.{c.ITEM_IDX}").cast("int").alias(c.ITEM_IDX))
