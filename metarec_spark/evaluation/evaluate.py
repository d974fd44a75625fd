"""evaluate: the newest candidate + held-out events → ``metrics``, and the model approved or rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.errors import DataError
from metarec_spark.evaluation import report
from metarec_spark.evaluation.metrics import aggregate
from metarec_spark.evaluation.ranks import SCHEMA, Task, rank
from metarec_spark.evaluation.summary import examples, histogram
from metarec_spark.evaluation.table import show
from metarec_spark.features.as_of import users_as_of
from metarec_spark.features.encoding import encoded, position
from metarec_spark.features.split import held_out, pairs
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.model import artifact
from metarec_spark.model.manifest import Manifest
from metarec_spark.warehouse.storage import Location

PAIRS_PER_TASK = 5_000
_EXIT_REJECTED = 4
_JUDGED_AT = 10


@dataclass(frozen=True)
class EvaluateDetails(Details):
    """What evaluate reports beside its counts."""

    status: str
    """approved or rejected."""
    test: dict[str, dict[str, dict[str, float]]] | None = None
    """Domain → scorer → metric → value; None if nothing was held out."""


def evaluate(job: Job, model_id: str | None = None) -> Result:
    """Measure a model on what its split held out, and approve or reject it; by default the newest of the day or before.

    It is measured on the table versions that it was trained on. A model is rejected where its mean NDCG@10 over all test pairs
    is not above popularity's; a domain in which it is below the transition baseline is flagged. Without held-out events nothing
    can be measured, and the model is approved as such.
    """
    model = registry.chosen(job, model_id)
    place = model.path
    found = artifact.load(place)  # which refuses files that are not those that were saved: none such is approved
    manifest = found.manifest
    registry.check_items(job, manifest)
    split = manifest.split
    if split.protocol == "none":
        log.warning("model %s: nothing is held out (split.protocol = none), so it is approved unmeasured", model.model_id)
        result = Result(model_id=model.model_id, details=EvaluateDetails("approved"))
        return _decide(job, model, "approved", "not measured: split.protocol is none", result)
    versions = manifest.table_versions
    users = users_as_of(job, model.ds, versions, manifest.features)
    rows = _inputs(pairs(held_out(users, split, model.ds)), manifest)
    cutoffs = sorted({*job.config.evaluate.cutoffs, _JUDGED_AT})
    task = Task(place, max(cutoffs), job.config.evaluate.few_events, job.config.evaluate.long_events)
    ranked = rows.mapInArrow(partial(rank, task=task), SCHEMA).persist(StorageLevel.DISK_ONLY)
    catalogue = {name: len(items) for name, items in zip(manifest.domains, found.catalogue.of_domain, strict=True)}
    metrics = aggregate(ranked, catalogue, cutoffs).withColumn("model_id", F.lit(model.model_id)).persist()
    try:
        commit = job.commit(inputs={c.USER_SEQUENCES: versions[c.USER_SEQUENCES]}, model_id=model.model_id)
        job.warehouse.merge(
            c.METRICS, metrics.select("model_id", *[name for name in metrics.columns if name != "model_id"]), commit
        )
        values = _headline(metrics)
        if not values:
            raise DataError(
                f"model {model.model_id}: no held-out pair in {len(manifest.domains)} domain(s); "
                f"the log is too short for {split.protocol}"
            )
        status, reason = judge(values)
        _report(job, ranked, metrics, manifest, place, status, reason)
    finally:
        metrics.unpersist()
        ranked.unpersist()
    show(values, model.model_id)
    pair_count = sum(users for (name, scorer), (_, _, users) in values.items() if scorer == c.MODEL)
    result = Result(rows_in=pair_count, rows_out=1, model_id=model.model_id, details=EvaluateDetails(status, _plain(values)))
    return _decide(job, model, status, reason, result)


def _report(
    job: Job, ranked: DataFrame, metrics: DataFrame, manifest: Manifest, place: Location, status: str, reason: str
) -> None:
    """Write report.html beside the model."""
    versions = manifest.table_versions
    items, content = (job.warehouse.read(name, versions[name]) for name in (c.ITEMS, c.ITEM_CONTENT))
    read = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    shown = {
        "sequences": manifest.sequences,
        "items": manifest.items,
        "code": manifest.code_version,
        "table versions": read,
    }
    trained = {name: value for name, value in manifest.metrics.summary().items() if name != "validation"}
    page = report.write(
        place,
        report.Report(
            model_id=manifest.model_id,
            ds=manifest.ds.isoformat(),
            status=status,
            reason=reason,
            facts={name.replace("_", " "): str(value) for name, value in (shown | trained).items()},
            history=manifest.metrics.history,
            domains=manifest.domains,
            metrics=[row.asDict() for row in metrics.where(F.col("split") == c.TEST).toLocalIterator()],
            settings=manifest.tuned,
            histogram=histogram(ranked),
            examples=examples(ranked, items, content, _JUDGED_AT),
        ),
    )
    log.info("report: %s", page)


def judge(values: dict[tuple[str, str], tuple[float, float, int]]) -> tuple[str, str]:
    """Status and reason from (domain, scorer) → (NDCG@10, HR@10, pairs)."""
    domains = sorted({domain for domain, _ in values})
    pairs_of = {domain: values[domain, c.MODEL][2] for domain in domains}
    mean = {s: sum(values[d, s][0] * pairs_of[d] for d in domains) / sum(pairs_of.values()) for s in (c.MODEL, c.POPULARITY)}
    below = [d for d in domains if values[d, c.MODEL][0] < values[d, c.TRANSITIONS][0]]
    flag = f"; below the transition baseline in {', '.join(below)}" if below else ""
    said = f"NDCG@10 {mean[c.MODEL]:.4f} over all test pairs, popularity {mean[c.POPULARITY]:.4f}{flag}"
    return ("approved" if mean[c.MODEL] > mean[c.POPULARITY] else "rejected"), said


def _inputs(rows: DataFrame, manifest: Manifest) -> DataFrame:
    """Pairs in domains that the model knows, encoded, dealt to tasks by user."""
    frame = encoded(
        rows,
        domains=manifest.domains,
        event_types=manifest.event_types,
        items=manifest.items,
        max_length=manifest.max_length,
    )
    frame = frame.withColumn("target_position", position(manifest.domains, F.col("target_domain")))
    tasks = max(frame.sparkSession.sparkContext.defaultParallelism, math.ceil(2 * manifest.sequences / PAIRS_PER_TASK))
    return frame.where(F.col("target_domain").isin(manifest.serves)).repartition(tasks, c.USER_ID)


def _headline(metrics: DataFrame) -> dict[tuple[str, str], tuple[float, float, int]]:
    """(domain, scorer) → (NDCG@10, HR@10, pairs) of the test split: one value a domain and scorer, by nature few."""
    rows = metrics.where(f"split = 'test' AND segment = 'all' AND k = {_JUDGED_AT} AND metric IN ('ndcg', 'hit_rate')")
    found: dict[tuple[str, str], dict[str, tuple[float, int]]] = {}
    for row in rows.toLocalIterator():
        found.setdefault((row["domain"], row["scorer"]), {})[row["metric"]] = (row["value"], row["users"])
    return {key: (value["ndcg"][0], value["hit_rate"][0], value["ndcg"][1]) for key, value in sorted(found.items())}


def _plain(values: dict[tuple[str, str], tuple[float, float, int]]) -> dict[str, dict[str, dict[str, float]]]:
    plain: dict[str, dict[str, dict[str, float]]] = {}
    for (domain, scorer), (ndcg, hit_rate, _) in values.items():
        plain.setdefault(domain, {})[scorer] = {"ndcg@10": round(ndcg, 5), "hit_rate@10": round(hit_rate, 5)}
    return plain


def _decide(job: Job, model: registry.ModelRow, status: str, reason: str, result: Result) -> Result:
    log.log(30 if status == "rejected" or "below" in reason else 20, "model %s %s: %s", model.model_id, status, reason)
    registry.decide(job, model, status, reason)
    return replace(result, reason=reason, exit_code=_EXIT_REJECTED if status == "rejected" else 0)
