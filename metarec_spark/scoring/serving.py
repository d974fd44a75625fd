"""Which approved model serves which domain on a day."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.job import Job
from metarec_spark.model import artifact
from metarec_spark.model.manifest import Manifest
from metarec_spark.scoring.new_items import NewItems
from metarec_spark.warehouse.storage import Location


@dataclass(frozen=True)
class ServingModel:
    """A model, and what it serves."""

    model_id: str
    folder: Location
    manifest: Manifest
    domains: list[str]
    """Whose lists it makes, of those that it knows."""
    came: NewItems | None = None
    """Items that came after it."""

    def known(self, items: DataFrame) -> DataFrame:
        """Of rows of ``items``, those that it can recommend."""
        mine = items.where(F.col(c.DOMAIN).isin(self.domains))
        known = mine.where(F.col(c.ITEM_IDX) < self.manifest.items)
        return known.unionByName(mine.join(self.came.items.select(c.ITEM_IDX), c.ITEM_IDX, "left_semi")) if self.came else known

    @classmethod
    def of(cls, row: registry.ModelRow, domains: list[str]) -> ServingModel:
        """By its row of ``models``."""
        return cls(row.model_id, row.path, artifact.checked(row.path), domains)


def models_of_domains(job: Job) -> list[ServingModel]:
    """The models that serve today: of each domain the newest approved one; of a day's, an adapted one.

    Raises
    ------
    ModelRejected
        Where there is none.
    DataError
        Where one is not whole, or of another table ``items``.
    """
    of_domain = registry.serving_rows(job)
    models = {row.model_id: row for row in of_domain.values()}
    serving = [
        ServingModel.of(row, sorted(domain for domain, by in of_domain.items() if by.model_id == model_id))
        for model_id, row in models.items()
    ]
    for model in serving:
        registry.check_items(job, model.manifest)
    return serving
