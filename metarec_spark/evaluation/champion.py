"""Champion and challenger: a candidate beside the models that serve now, on the same held-out pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.errors import DataError
from metarec_spark.evaluation.approval import MARGIN
from metarec_spark.evaluation.inputs import encoded_pairs
from metarec_spark.evaluation.metrics import AT_K
from metarec_spark.evaluation.ranks import SCHEMA, RankingTask, rank
from metarec_spark.job import Job, log
from metarec_spark.model import artifact
from metarec_spark.model.ranking import CUTOFF


@dataclass(frozen=True)
class Comparison:
    """A candidate and the model that serves a platform, on the test pairs whose target both know."""

    champion: str
    """Id of the model that serves."""
    lead: float
    """NDCG@10 of the candidate minus the champion's."""
    error: float
    """Standard error of this paired difference."""
    pairs: int

    @property
    def lost(self) -> bool:
        """Whether the candidate is worse beyond noise."""
        return self.lead < -MARGIN * self.error


def comparisons(
    job: Job, model: registry.ModelRow, held_out: DataFrame, ranked: DataFrame, task: RankingTask
) -> dict[str, Comparison]:
    """Return the comparison on each platform that another model serves.

    Parameters
    ----------
    held_out
        Test rows of :func:`metarec_spark.features.split.pairs`.
    ranked
        Rows of :func:`metarec_spark.evaluation.ranks.rank` of the candidate.
    task
        The candidate's; champions are ranked under the same conditions.

    Notes
    -----
    A champion is measured as it was when it was evaluated: by its twin if it has one. Each takes about as long as the candidate
    takes without its baselines.
    """
    results: dict[str, Comparison] = {}
    champions = registry.champions(job, model)
    for row in {row.model_id: row for row in champions.values()}.values():
        domains = [domain for domain, champion in champions.items() if champion.model_id == row.model_id]
        try:
            folder = artifact.measured(row.path)
            manifest = artifact.checked(folder)
            registry.check_items(job, manifest)
        except DataError as error:
            log.warning("the candidate is not compared with %s, which serves %s: %s", row.model_id, ", ".join(domains), error)
            continue
        known = manifest.model_copy(update={"serves": [domain for domain in domains if domain in manifest.domains]})
        alone = replace(task, model=folder, baselines=None)
        rows = encoded_pairs(held_out, known).mapInArrow(partial(rank, task=alone), SCHEMA)
        results |= {domain: Comparison(row.model_id, lead, error, pairs) for domain, lead, error, pairs in _leads(ranked, rows)}
    return results


def _leads(candidate: DataFrame, champion: DataFrame) -> list[tuple[str, float, float, int]]:
    """Return (platform, lead, standard error, pairs): one value per platform, by nature few."""
    one, other = (
        rows.where((F.col("scorer") == c.MODEL) & F.col("all") & F.col("score").isNotNull()).select(
            c.USER_ID, c.DOMAIN, AT_K["ndcg"](F.col("rank"), CUTOFF).alias(name)
        )
        for rows, name in ((candidate, "one"), (champion, "other"))
    )
    lead = F.col("one") - F.col("other")
    leads = one.join(other, [c.USER_ID, c.DOMAIN]).groupBy(c.DOMAIN)
    error = F.coalesce(F.stddev_samp(lead) / F.sqrt(F.count(lead)), F.lit(0.0))
    rows = leads.agg(F.avg(lead), error, F.count(lead)).orderBy(c.DOMAIN)
    return [(domain, lead, error, pairs) for domain, lead, error, pairs in rows.toLocalIterator()]
