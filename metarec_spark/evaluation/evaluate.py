"""evaluate: the newest candidate + held-out events → ``metrics``, ``report.html``, and the model approved or rejected."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from metarec_spark import columns as c
from metarec_spark import registry
from metarec_spark.config.sections import Split
from metarec_spark.errors import DataError
from metarec_spark.evaluation.approval import Decision, Headline, Headlines, judge
from metarec_spark.evaluation.champion import Comparison, comparisons
from metarec_spark.evaluation.fit_baselines import fitted_baselines
from metarec_spark.evaluation.inputs import encoded_pairs
from metarec_spark.evaluation.metrics import aggregate
from metarec_spark.evaluation.ranks import SCHEMA, RankingTask, rank
from metarec_spark.evaluation.report import write
from metarec_spark.evaluation.summary import Metric, Report, examples, histograms
from metarec_spark.evaluation.table import show
from metarec_spark.features.as_of import users_as_of
from metarec_spark.features.split import held_out, pairs
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.model import artifact
from metarec_spark.model.artifact import ModelArtifact
from metarec_spark.model.manifest import Manifest
from metarec_spark.model.ranking import CUTOFF
from metarec_spark.scoring.rules import write_rules
from metarec_spark.scoring.serving import ServingModel

_MEASURED = {True: "the twin, which has not learnt the held-out events; what serves has", False: "what serves"}
"""What was measured, by whether a model was refitted."""
_EXIT_REJECTED = 4


@dataclass(frozen=True)
class EvaluateDetails(Details):
    """Quality of the model, and what became of it."""

    status: str
    """approved or rejected."""
    test: dict[str, dict[str, dict[str, float]]] | None = None
    """Platform → scorer → metric → value; None if nothing was held out."""
    not_measured: dict[str, dict[str, int]] | None = None
    """Platform → why (seen, excluded) → test events whose items lists may not hold; None if there are none."""
    serving: dict[str, dict[str, Any]] | None = None
    """Platform → the model that served it, and the paired difference of NDCG@10 to it; None if no other model served."""


def evaluate(job: Job, model_id: str | None = None) -> Result:
    """Measure a model on its held-out events, and approve or reject it; by default the newest of the day or before.

    A model that has learnt all events is measured by its twin, which has not; see :mod:`metarec_spark.model.artifact`. It is
    measured on the table versions that it was trained on, under the conditions of the lists: business rules, seen items,
    least scores. :func:`metarec_spark.evaluation.approval.judge` decides; a platform on which the model that serves it is better
    stays with that one, and if all do, the model is rejected. Without held-out events nothing can be measured, and the model is
    approved as such.
    """
    model = registry.chosen(job, model_id)
    manifest = artifact.checked(model.path)  # which refuses files that are not those that were saved: no such model is approved
    registry.check_items(job, manifest)
    if model_id is None and model.status == "rejected" and (model.reason or "").startswith(registry.WITHDRAWN):
        log.warning("model %s stays %s: evaluate it by --model, or promote it", model.model_id, model.reason)
        details = EvaluateDetails("rejected")
        return Result(model_id=model.model_id, details=details, reason=model.reason, exit_code=_EXIT_REJECTED)
    split = manifest.split
    if split.protocol == "none":
        log.warning("model %s: nothing is held out (split.protocol = none), so it is approved unmeasured", model.model_id)
        result = Result(model_id=model.model_id, details=EvaluateDetails("approved"))
        return _entered(job, model, Decision("approved", "not measured: split.protocol is none", weak=False), result)
    cutoffs = sorted({*job.config.evaluate.cutoffs, CUTOFF})
    measured = artifact.load(artifact.measured(model.path))
    sizes = {name: len(items) for name, items in zip(manifest.domains, measured.catalogue.of_domain, strict=True)}
    with ExitStack() as until_done:
        held_out_pairs, task = _task(job, model, measured, split, max(cutoffs), until_done)
        ranked = encoded_pairs(held_out_pairs, manifest).mapInArrow(partial(rank, task=task), SCHEMA)
        until_done.callback(ranked.persist(StorageLevel.DISK_ONLY).unpersist)
        metrics = aggregate(ranked, sizes, cutoffs).select(F.lit(model.model_id).alias("model_id"), "*").persist()
        until_done.callback(metrics.unpersist)
        versions = {c.USER_SEQUENCES: manifest.table_versions[c.USER_SEQUENCES]}
        job.warehouse.merge(c.METRICS, metrics, job.commit(inputs=versions, model_id=model.model_id))
        headlines, left_out = _headlines(metrics), _left_out(ranked)
        if not headlines:
            why = f"lists may not hold these targets: {left_out}" if left_out else f"the log is too short for {split.protocol}"
            raise DataError(f"model {model.model_id}: no held-out event to measure in {len(sizes)} domain(s); {why}")
        decision = judge(headlines)
        decision = decision._replace(reason=f"{decision.reason}; of {_MEASURED[manifest.refitted]}")
        beside = {}
        if decision.status == "approved":
            beside = comparisons(job, model, held_out_pairs, ranked, task)
            decision, domains = _beside_champions(decision, manifest.serves, beside)
            model = replace(model, domains=domains or model.domains)
        page = write(model.path, _report(job, ranked, metrics, manifest, decision))
    log.info("report: %s", page)
    show(headlines, model.model_id)
    pair_count = sum(headline.pairs for (_, scorer), headline in headlines.items() if scorer == c.MODEL)
    serving = {domain: asdict(comparison) for domain, comparison in beside.items()}
    details = EvaluateDetails(decision.status, _by_platform(headlines), left_out or None, serving or None)
    return _entered(job, model, decision, Result(pair_count, 1, model.model_id, details))


def _task(
    job: Job, model: registry.ModelRow, measured: ModelArtifact, split: Split, longest: int, until_done: ExitStack
) -> tuple[DataFrame, RankingTask]:
    """Return the test rows of :func:`metarec_spark.features.split.pairs`, and the conditions under which they are ranked."""
    manifest, lists = measured.manifest, job.config.recommend
    users = users_as_of(job, model.ds, manifest.table_versions, manifest.features)
    labelled = held_out(users, split, model.ds, manifest.features)
    serving = ServingModel(model.model_id, model.path, manifest, manifest.serves)
    rules = until_done.enter_context(write_rules(job, job.warehouse.version(c.ITEMS), [serving]))
    task = RankingTask(
        model=artifact.measured(model.path),
        baselines=until_done.enter_context(fitted_baselines(job, labelled, manifest.domains, measured.catalogue)),
        longest=longest,
        few_events=job.config.evaluate.few_events,
        long_events=job.config.evaluate.long_events,
        seen_allowed=serving.seen_allowed(lists),
        rules=str(rules.folder) if rules else None,
        min_score=lists.min_score,
    )
    return pairs(labelled, manifest.features.context_types).where(F.col("split") == c.TEST), task


def _beside_champions(decision: Decision, serves: list[str], beside: dict[str, Comparison]) -> tuple[Decision, list[str]]:
    """Return the decision on an approved model after the comparisons, and which of its platforms it is to serve."""
    domains = [domain for domain in serves if domain not in beside or not beside[domain].lost]
    parts = [
        f"{domain} {comparison.lead:+.4f} ± {comparison.error:.4f} beside {comparison.champion}"
        + (", which goes on serving it" if comparison.lost else "")
        for domain, comparison in sorted(beside.items())
    ]
    status, lost = "approved" if domains else "rejected", len(domains) < len(serves)
    worse = "" if domains else "worse than the serving model on every platform"
    reason = "; ".join(filter(None, [worse, decision.reason, ", ".join(parts)]))
    return Decision(status, reason, decision.weak or lost), domains


def _left_out(ranked: DataFrame) -> dict[str, dict[str, int]]:
    """Return, by platform, the test events that are not measured since a list may not hold their items, with a warning."""
    rows = ranked.where(F.col("scorer") == c.MODEL)
    repeat, excluded = F.count_if(F.col("repeat") & ~F.col("all")), F.count_if(~F.col("repeat") & ~F.col("first_time"))
    counts = {domain: (seen, rule) for domain, seen, rule in rows.groupBy(c.DOMAIN).agg(repeat, excluded).toLocalIterator()}
    left_out = {domain: {"seen": seen, "excluded": rule} for domain, (seen, rule) in sorted(counts.items()) if seen or rule}
    if left_out:
        log.warning("test events whose items lists may not hold are measured apart (segment repeat) or not at all: %s", left_out)
    return left_out


def _report(job: Job, ranked: DataFrame, metrics: DataFrame, manifest: Manifest, decision: Decision) -> Report:
    """Return what the report of a model shows."""
    versions, training = manifest.table_versions, manifest.metrics.summary()
    items, content = (job.warehouse.read(name, versions[name]) for name in (c.ITEMS, c.ITEM_CONTENT))
    facts = {
        "measured": _MEASURED[manifest.refitted],
        "sequences": manifest.sequences,
        "items": manifest.items,
        "code": manifest.code_version,
        "table versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        **{name.replace("_", " "): value for name, value in training.items() if name != "validation"},
    }
    test = metrics.drop("model_id", "split")
    return Report(
        model_id=manifest.model_id,
        ds=manifest.ds.isoformat(),
        status=decision.status,
        reason=decision.reason,
        facts={name: str(value) for name, value in facts.items()},
        history=manifest.metrics.history,
        domains=manifest.domains,
        metrics=[Metric(**row.asDict()) for row in test.toLocalIterator()],
        parameters={domain: _numbers(settings.model_dump()) for domain, settings in manifest.tuned.items()},
        histograms=histograms(ranked),
        examples=examples(ranked, items, content, CUTOFF),
    )


def _numbers(tuned: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of nested settings by their path, in words."""
    numbers: dict[str, float] = {}
    for name, value in tuned.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{label}: ")
        elif isinstance(value, int | float):
            numbers[label] = float(value)
    return numbers


def _headlines(metrics: DataFrame) -> Headlines:
    """Return the test quality over all pairs: one value per platform and scorer, by nature few."""
    rows = metrics.where((F.col("segment") == "all") & (F.col("k") == CUTOFF))
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows.toLocalIterator():
        values.setdefault((row["domain"], row["scorer"]), {"pairs": row["users"]})[row["metric"]] = row["value"]
    return {
        key: Headline(
            value["ndcg"], value["hit_rate"], int(value["pairs"]), value["ndcg_lead"], value.get("ndcg_lead_error", 0.0)
        )
        for key, value in sorted(values.items())
    }


def _by_platform(headlines: Headlines) -> dict[str, dict[str, dict[str, float]]]:
    """Return the headlines as nested objects of the result line."""
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for (domain, scorer), headline in headlines.items():
        figures = {"ndcg@10": round(headline.ndcg, 5), "hit_rate@10": round(headline.hit_rate, 5)}
        nested.setdefault(domain, {})[scorer] = figures
    return nested


def _entered(job: Job, model: registry.ModelRow, decision: Decision, result: Result) -> Result:
    """Tell the decision, and write it into the model's row."""
    rejected = decision.status == "rejected"
    level = logging.WARNING if rejected or decision.weak else logging.INFO
    log.log(level, "model %s %s: %s", model.model_id, decision.status, decision.reason)
    registry.set_status(job, model, decision.status, decision.reason)
    return replace(result, reason=decision.reason, exit_code=_EXIT_REJECTED if rejected else 0)
