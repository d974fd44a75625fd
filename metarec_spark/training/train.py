"""train: pinned table versions → Parquet snapshot → ranks → model folder → a row in ``models``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

from metarec_spark import __version__, registry
from metarec_spark import columns as c
from metarec_spark.config import Config
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.config.sections import Split
from metarec_spark.errors import DataError
from metarec_spark.features.as_of import transitions_as_of, users_as_of
from metarec_spark.features.split import NOTHING_HELD_OUT, held_out
from metarec_spark.job import Details, Job, Result, log
from metarec_spark.model import artifact
from metarec_spark.model.manifest import DomainSettings, Manifest
from metarec_spark.training import snapshot
from metarec_spark.training.launch import launch, threads
from metarec_spark.training.manifest import PINNED, KnownNames, draft, known_names
from metarec_spark.training.spec import TrainSpec
from metarec_spark.warehouse.storage import exists, read_json, remove, write_json


@dataclass(frozen=True)
class TrainDetails(Details):
    """What train reports beside its counts."""

    metrics: dict[str, Any]
    """The manifest's metrics, but the history of epochs."""


def train(job: Job) -> Result:
    """Train one model on the tables as they are now, and enter it in ``models`` as a candidate.

    The model's id is a fingerprint of day, data versions, configuration, code and the model whose settings it inherits: the same
    run again resumes from its checkpoint, or enters the finished model.
    """
    if job.config.split.protocol == "none":
        log.warning("split.protocol = none: nothing is held out, so nothing is tuned and the model will be approved unmeasured")
    versions = {name: job.warehouse.version(name) for name in PINNED}
    previous, inherited = _inherited(job)
    model_id = _model_id(job.config, versions, job.ds, previous)
    work, model = job.warehouse.path(f"_training/{model_id}"), job.warehouse.path(f"_models/{model_id}")
    if not artifact.saved(model):
        refit = job.config.split.protocol != "none" and job.config.train.refit_epochs > 0
        twin = f"{work}/{artifact.TWIN}" if refit else model
        if not artifact.saved(twin):
            manifest = _snapshot(job, versions, model_id, work, job.config.split)
            manifest = manifest.model_copy(update={"inherited_from": previous, "inherited": inherited})
            _launch(job, work, manifest, twin, previous=previous and job.warehouse.path(f"_models/{previous}"))
        if refit:
            _refit(job, versions, work, twin, model)
    manifest = artifact.read_manifest(model)
    registry.enter(job, manifest, model)
    with suppress(OSError):  # leftovers do no harm
        remove(work)
    return Result(rows_in=manifest.sequences, rows_out=1, model_id=model_id, details=TrainDetails(manifest.metrics.summary()))


def _refit(job: Job, versions: dict[str, int], work: str, twin: str, model: str) -> None:
    """Train the model that serves on all events: on from its twin, or anew if most events were held out from that."""
    measured, work = artifact.read_manifest(twin), f"{work}/refit"
    manifest = _snapshot(job, versions, measured.model_id, work, NOTHING_HELD_OUT, measured)
    manifest = manifest.model_copy(update={"refitted": True})
    counts = measured.training_events, manifest.training_events
    if 2 * counts[0] < counts[1]:
        epochs = measured.metrics.kept_epoch
        log.info("refit: trained anew for %d epochs, since the twin has learnt %d of %d events", epochs, *counts)
        _launch(job, work, manifest, model, twin=twin, stop_after=epochs)
    else:
        log.info("refit: trained on from the twin, which has learnt %d of %d events", *counts)
        _launch(job, work, manifest, model, twin=twin, start=twin)


def _launch(
    job: Job,
    work: str,
    manifest: Manifest,
    model: str,
    previous: str | None = None,
    twin: str | None = None,
    start: str | None = None,
    stop_after: int | None = None,
) -> None:
    """Train a model on the snapshot in ``work``; from ``previous``, see :class:`metarec_spark.training.spec.TrainSpec`."""
    spec = TrainSpec(
        snapshot=f"{work}/snapshot",
        model=model,
        manifest=manifest,
        threads=threads(job),
        previous=previous,
        twin=twin,
        start=start,
        stop_after=stop_after,
    )
    spec.write(f"{work}/spec.json")
    settings = job.config.train
    launch(f"{work}/spec.json", settings.processes, settings.launcher, job.spark, settings.timeout_seconds)


def _inherited(job: Job) -> tuple[str | None, dict[str, DomainSettings]]:
    """Id of the newest approved base model whose settings can be inherited, and these settings by domain.

    Only models of earlier days count, so that a day that is run again gives the same model. A model whose folder is missing or
    cannot be read is skipped with a warning, so that the night still gets a model.
    """
    if not job.config.train.tune:
        return None, {}
    for model_id, path in registry.approved_before(job):
        try:
            settings = artifact.read_manifest(path).validated_settings
        except DataError as error:
            log.warning("no settings are inherited from model %s: %s", model_id, error)
            continue
        if settings:
            log.info("settings are inherited from model %s in %s", model_id, ", ".join(settings))
            return model_id, settings
    return None, {}


def _model_id(config: Config, versions: dict[str, int], ds: date, previous: str | None) -> str:
    shaping = [config.split, config.features, config.transitions, config.model, config.train, config.recommend.exclude_seen]
    # Without the version of events: every extract writes one, and training reads the sequences.
    versions = {name: version for name, version in versions.items() if name != c.EVENTS}
    return f"{ds}-{fingerprint(*shaping, versions, ds.isoformat(), previous, __version__)}"


def _snapshot(
    job: Job, versions: dict[str, int], model_id: str, work: str, split: Split, twin: Manifest | None = None
) -> Manifest:
    """Write the snapshot of a split into ``work``, unless it is already whole, and return the manifest to train by: a draft, or
    that of the ``twin`` with the number of sequences."""
    config, folder, done = job.config, f"{work}/snapshot", f"{work}/snapshot.json"
    if exists(done):
        return Manifest.from_json(read_json(done))
    tables = {name: job.warehouse.read(name, versions[name]) for name in (c.ITEMS, c.ITEM_CONTENT)}
    users = users_as_of(job, job.ds, versions, config.features)
    labelled = held_out(users, split, job.ds, config.features)
    tables[c.ITEM_TRANSITIONS] = transitions_as_of(job, labelled, split, versions, f"{work}/{c.ITEM_TRANSITIONS}")
    known = KnownNames.of_model(twin) if twin else known_names(users, tables[c.ITEMS], config)
    splits = () if twin else (c.VALIDATION,)
    rows, events = snapshot.write(folder, labelled, labelled, tables, known, known.domains, config.train, splits)
    manifest = twin or draft(job, model_id, versions, known, rows)
    manifest = manifest.model_copy(update={"sequences": rows, "training_events": events})
    write_json(done, manifest.to_json())
    log.info("snapshot: %d sequences, %d items, domains %s", rows, known.items, ", ".join(known.domains))
    return manifest
