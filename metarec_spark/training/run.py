"""train: pinned table versions → Parquet snapshot → ranks → model folder → a row in ``models``."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import date
from typing import Any

import pyspark
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import __version__
from metarec_spark import columns as c
from metarec_spark.config import Config
from metarec_spark.errors import DataError
from metarec_spark.features.encoding import GAP_BUCKETS
from metarec_spark.features.run import transitions_as_of, users_as_of
from metarec_spark.features.split import held_out
from metarec_spark.job import Job, Result, log
from metarec_spark.model import bundle
from metarec_spark.sections import fingerprint
from metarec_spark.storage import Place, exists, read_json, remove, uri, write_json
from metarec_spark.training import snapshot
from metarec_spark.training.launch import launch
from metarec_spark.training.tuning import settled

PINNED = (c.EVENTS, c.USER_SEQUENCES, c.ITEMS, c.ITEM_TRANSITIONS, c.ITEM_CONTENT)
_MOST_NAMES = 1000
_MOST_WIDTHS = 8


def train(job: Job) -> Result:
    """Train one model on the tables as they are now, and enter it in ``models`` as a candidate.

    The model's id follows from day, data versions, configuration, code and the model that it inherits from: the same run again
    finds its checkpoint and goes on, or finds the finished model and enters it.
    """
    versions = {name: job.warehouse.version(name) for name in PINNED}
    ancestor, inherited = _inherited(job)
    model_id = _model_id(job.config, versions, job.ds, ancestor)
    work, model = job.warehouse.path(f"_training/{model_id}"), job.warehouse.path(f"_models/{model_id}")
    if not bundle.saved(model):
        manifest = _snapshot(job, versions, model_id, work)
        spec = {
            "snapshot": f"{work}/snapshot",
            "model": model,
            "train": job.config.train.model_dump(mode="json"),
            "threads": threads(job),
            "ancestor": ancestor and job.warehouse.path(f"_models/{ancestor}"),
            "manifest": {**manifest, "inherited_from": ancestor, "inherited": inherited},
        }
        write_json(f"{work}/spec.json", spec)
        settings = job.config.train
        launch(f"{work}/spec.json", settings.processes, settings.launcher, job.spark, settings.timeout_seconds)
    manifest = bundle.read_manifest(model)
    enter(job, manifest, model)
    with suppress(OSError):  # what is left harms nobody
        remove(work)
    metrics = {name: value for name, value in manifest["metrics"].items() if name != "history"}
    return Result(rows_in=manifest["sequences"], rows_out=1, model_id=model_id, details={"metrics": metrics})


def threads(job: Job) -> int:
    """Threads of one rank: this host's cores are shared by local ranks; a rank on an executor has a task's cores."""
    train = job.config.train
    if train.threads != "auto":
        return train.threads
    if train.launcher == "spark" and train.processes > 1:
        return int(job.spark.conf.get("spark.task.cpus", "1"))
    return max(1, (os.cpu_count() or 1) // train.processes)


def _inherited(job: Job) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """The newest approved base model with settings to hand on, and these by domain.

    Only of an earlier day, so that a day that is run again gives the same model. A model whose folder has gone or cannot be
    read is passed over: it is no reason to leave a night without a model.
    """
    if not job.config.train.tune or not job.warehouse.exists(c.MODELS):
        return None, {}
    of_earlier_days = (F.col("kind") == "base") & (F.col("status") == "approved") & (F.col("ds") < F.lit(job.ds))
    rows = job.warehouse.read(c.MODELS).where(of_earlier_days).orderBy(F.desc("ds"), F.desc("model_id"))
    for row in rows.select("model_id", "path").toLocalIterator():
        try:
            found = settled(bundle.read_manifest(row["path"]))
        except DataError as error:
            log.warning("model %s hands no settings on: %s", row["model_id"], error)
            continue
        if found:
            log.info("settings of g and of the fusion are inherited from model %s in %s", row["model_id"], ", ".join(found))
            return row["model_id"], found
    return None, {}


def _model_id(config: Config, versions: dict[str, int], ds: date, ancestor: str | None) -> str:
    shaping = [config.split, config.features, config.transitions, config.model, config.train]
    # Not of events: every extract writes a version of it, and what is trained on is the sequences.
    versions = {name: version for name, version in versions.items() if name != c.EVENTS}
    return f"{ds}-{fingerprint(*shaping, versions, ds.isoformat(), ancestor, __version__)}"


def _snapshot(job: Job, versions: dict[str, int], model_id: str, work: str) -> dict:
    """Write the snapshot, unless it is already whole, and return the model's manifest so far."""
    config, folder, done = job.config, f"{work}/snapshot", f"{work}/snapshot.json"
    if exists(done):
        return read_json(done)
    tables = {name: job.warehouse.read(name, versions[name]) for name in (c.ITEMS, c.ITEM_CONTENT)}
    users = users_as_of(job, job.ds, versions, config.features)
    labelled = held_out(users, config.split, job.ds)
    tables[c.ITEM_TRANSITIONS] = transitions_as_of(job, labelled, versions, f"{work}/{c.ITEM_TRANSITIONS}")
    known = known_names(users, tables[c.ITEMS], config)
    rows = snapshot.write(folder, labelled, labelled, tables, known, known["domains"], config.train)
    manifest = about(job, model_id, versions, known, rows)
    write_json(done, manifest)
    log.info("snapshot: %d sequences, %d items, domains %s", rows, known["items"], ", ".join(known["domains"]))
    return manifest


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
    vectors = snapshot.catalogue_vectors(job.warehouse.read(c.ITEM_CONTENT, versions[c.ITEM_CONTENT]))
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


def enter(job: Job, manifest: dict[str, Any], place: Place, status: str = "candidate", reason: str | None = None) -> None:
    """Add the model to ``models``, unless it is there: a run that is repeated takes back no decision."""
    known = F.col("model_id") == F.lit(manifest["model_id"])
    if job.warehouse.exists(c.MODELS) and not job.warehouse.read(c.MODELS).where(known).isEmpty():
        return
    shaping = {name: manifest[name] for name in ("model", "transitions", "split", "train")}
    row = {
        "model_id": manifest["model_id"],
        "parent": manifest["parent"],
        "kind": manifest["kind"],
        "domains": manifest["serves"],
        "ds": date.fromisoformat(manifest["ds"]),
        "table_versions": manifest["table_versions"],
        "config": json.dumps(shaping, sort_keys=True),
        "metrics": json.dumps({name: value for name, value in manifest["metrics"].items() if name != "history"}, sort_keys=True),
        "status": status,
        "reason": reason,
        "path": uri(place),
        "code_version": manifest["code_version"],
    }
    job.warehouse.merge_records(c.MODELS, [row], job.commit(inputs=manifest["table_versions"], model_id=manifest["model_id"]))
