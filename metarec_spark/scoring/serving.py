"""Which approved model serves which platform on a day."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.config.sections import Recommend, excludes_seen
from metarec_spark.job import Job
from metarec_spark.model import artifact
from metarec_spark.model.manifest import Manifest
from metarec_spark.scoring.new_items import NewItems
from metarec_spark.warehouse.storage import Location


@dataclass(frozen=True)
class ServingModel:
    """A model and the platforms whose lists it makes."""

    model_id: str
    folder: Location
    manifest: Manifest
    domains: list[str]
    """Platforms that it serves, of those that it knows."""
    new_items: NewItems | None = None
    """Items that are newer than it."""

    def seen_allowed(self, settings: Recommend) -> frozenset[str]:
        """Return the platforms whose lists may hold items that the user has seen."""
        excluded = {name: not tuned.seen_allowed for name, tuned in self.manifest.tuned.items()}
        auto = {domain: excluded.get(domain, True) for domain in self.domains}
        return frozenset(name for name in auto if not excludes_seen(settings.exclude_seen, name, auto=auto[name]))

    def known_items(self, items: DataFrame) -> DataFrame:
        """Return the rows of ``items`` that it can recommend."""
        served = items.where(F.col(c.DOMAIN).isin(self.domains))
        trained = served.where(F.col(c.ITEM_IDX) < self.manifest.items)
        if self.new_items is None:
            return trained
        return trained.unionByName(served.join(self.new_items.items.select(c.ITEM_IDX), c.ITEM_IDX, "left_semi"))

    @classmethod
    def from_row(cls, row: registry.ModelRow, domains: list[str]) -> ServingModel:
        """Return the model that a row of ``models`` describes.

        Raises
        ------
        DataError
            If its files are not those that were saved.
        """
        return cls(row.model_id, row.path, artifact.checked(row.path), domains)


def serving_models(job: Job) -> list[ServingModel]:
    """Return the models that serve today: for each platform the newest approved one; of one day, the adapted one.

    Raises
    ------
    ModelRejected
        If no base model is approved.
    DataError
        If a model is not whole, or belongs to another table ``items``.
    """
    row_of_domain = registry.serving_rows(job)
    rows = {row.model_id: row for row in row_of_domain.values()}
    models = [
        ServingModel.from_row(row, sorted(domain for domain, row in row_of_domain.items() if row.model_id == model_id))
        for model_id, row in rows.items()
    ]
    for model in models:
        registry.check_items(job, model.manifest)
    return models
