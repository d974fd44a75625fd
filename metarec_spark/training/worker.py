"""One rank: ``python -m metarec_spark.training.worker SPEC``, started by Horovod, or called in this process.

SPEC is a file of :class:`metarec_spark.training.spec.TrainSpec`, on any file system.
"""

from __future__ import annotations

import logging
import os
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.features import catalogue as catalogue_parts
from metarec_spark.model import artifact
from metarec_spark.model.catalogue import Catalogue, Successors, pack_tokens, read_vectors
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.stacking import Stacking
from metarec_spark.model.ensemble.unordered import UnorderedSignals
from metarec_spark.model.manifest import Manifest, TrainingMetrics
from metarec_spark.model.spectral_init import spectral_init, token_init
from metarec_spark.model.warm_start import warm_start
from metarec_spark.training import snapshot
from metarec_spark.training.batches import read_held_out
from metarec_spark.training.distributed import Horovod, Ranks
from metarec_spark.training.loop import fit
from metarec_spark.training.reader import Shard
from metarec_spark.training.spec import TrainSpec
from metarec_spark.training.stacking import stack
from metarec_spark.training.state import State
from metarec_spark.training.tuning import tune
from metarec_spark.training.user_items import fitted_signals
from metarec_spark.training.validation import listable, seen_allowed
from metarec_spark.training.weights import search_weights
from metarec_spark.warehouse.storage import Location, local_copy, sibling, write_json

MAX_TOKENS = 32
log = logging.getLogger("metarec_spark")


def train(spec_file: Location, ranks: Ranks) -> None:
    """Train as one of ``ranks``; rank 0 writes the model folder.

    A rank copies the snapshot's catalogue and held-out events, and its share of the sequences, unless they lie on the machine's
    own file system.
    """
    spec = TrainSpec.read(spec_file)
    manifest, settings, names = spec.manifest, spec.settings, spec.manifest.domains
    twin = artifact.load(spec.twin) if spec.twin else None
    torch.set_num_threads(spec.threads)
    catalogue, item_ids = read_catalogue(spec.snapshot, manifest)
    torch.manual_seed(settings.seed)
    start, cpu = time.monotonic(), time.process_time()
    model = NextItemModel(manifest.model, manifest.shape, catalogue)
    if ranks.rank == 0:  # which sends its parameters to the others
        _initialise(model, spec, catalogue)
    sequences = Shard.from_location(f"{spec.snapshot}/{snapshot.SEQUENCES}", ranks.rank, ranks.size)
    validation = None if twin else Shard(local_copy(f"{spec.snapshot}/{c.VALIDATION}"), ranks.rank, ranks.size)
    allowed = seen_allowed(read_held_out(validation) if validation and not spec.stop_after else [], manifest, ranks)
    epoch_events = read_held_out(validation, settings.epoch_pairs) if validation and not spec.stop_after else []
    epoch_events = listable(epoch_events, allowed)
    state = fit(model, catalogue, sequences, epoch_events, spec, ranks, sibling(spec_file, "checkpoint.safetensors"))
    held_out = listable(read_held_out(validation), allowed) if validation and settings.tune else []
    tuning_events = [events.take(np.flatnonzero(events.pair <= settings.validation_pairs)) for events in held_out]
    tuned = tune(model, catalogue, tuning_events, manifest.initial_settings, ranks, names=names)
    signals: list[UnorderedSignals] = []
    given = (manifest.tuned or manifest.inherited).values()
    if ranks.max(len(tuning_events)) or any(domain.unordered.any for domain in given):
        whole = settings.method == "joint"
        signals = fitted_signals(f"{spec.snapshot}/{snapshot.SEQUENCES}", catalogue, ranks, whole=whole)
        tuned = search_weights(model, catalogue, tuning_events, tuned, signals, ranks, names)
    stacking_events = held_out if settings.stacking_pairs else []
    stacking, stacked = stack(model, catalogue, stacking_events, tuned, ranks, settings.seed, names, signals)
    if settings.stacking_pairs and spec.previous and all(domain.ndcg.ensemble is None for domain in tuned):
        stacking, stacked = inherited_stacking(spec.previous, manifest)
    (cpu_seconds,) = ranks.sum([time.process_time() - cpu])
    if ranks.rank == 0:
        validated = manifest.metrics.validation or {name: domain.ndcg for name, domain in zip(names, tuned, strict=True)}
        metrics = _metrics(state, time.monotonic() - start, cpu_seconds).model_copy(update={"validation": validated})
        metrics = manifest.metrics.with_refit(metrics) if twin else metrics
        by_domain = {
            name: domain.settings(stacked=used, seen_allowed=seen)
            for name, domain, used, seen in zip(names, tuned, stacked, allowed, strict=True)
        }
        manifest = manifest.model_copy(update={"tuned": manifest.tuned or by_domain, "metrics": metrics})
        networks = (twin.pair_ranker, twin.stacking) if twin else (None, stacking if any(stacked) else None)
        unordered = signals if any(domain.unordered.any for domain in manifest.tuned.values()) else []
        artifact.save(spec.model, manifest, model, catalogue, item_ids, *networks, unordered, spec.twin)


def _initialise(model: NextItemModel, spec: TrainSpec, catalogue: Catalogue) -> None:
    """Give the model the parameters that training starts from."""
    settings = spec.settings
    if spec.start:
        warm_start(artifact.load(spec.start), model, spec.manifest, catalogue)
        return
    for used, init, table in (
        (settings.spectral_init, spectral_init, model.item),
        (settings.token_init, token_init, model.token),
    ):
        if used:
            table.weight.data = torch.from_numpy(init(catalogue, table.weight.detach().numpy(), settings.seed))


def _metrics(state: State, wall_seconds: float, cpu_seconds: float) -> TrainingMetrics:
    """The metrics of the epochs."""
    kept_epoch = state.kept_epoch or state.epoch
    epoch = state.history[kept_epoch - 1]
    return TrainingMetrics(
        epochs=state.epoch,
        kept_epoch=kept_epoch,
        validation_ndcg=epoch.validation_ndcg,
        loss=epoch.loss,
        seconds=round(sum(epoch.seconds for epoch in state.history), 1),
        wall_seconds=round(wall_seconds, 1),
        cpu_seconds=round(cpu_seconds, 1),
        history=state.history,
    )


def inherited_stacking(previous: Location, manifest: Manifest) -> tuple[Stacking | None, list[bool]]:
    """The stacking network of the model whose settings are inherited, and whether each domain uses it."""
    try:
        stacking = artifact.load(previous).stacking
    except DataError as error:
        log.warning("no stacking is inherited, f and g are fused plainly: %s", error)
        stacking = None
    used = {name for name, settings in manifest.inherited.items() if settings.stacked}
    return stacking, [stacking is not None and name in used for name in manifest.domains]


def read_catalogue(folder: Location, manifest: Manifest) -> tuple[Catalogue, pa.ChunkedArray]:
    """Read a snapshot's catalogue, and the items' external ids; memory grows with items and their transitions."""

    def part(name: str) -> pa.Table:
        return pq.read_table(local_copy(f"{folder}/{name}"))

    items = part(catalogue_parts.ITEMS).sort_by("item_idx")
    token = part(catalogue_parts.TOKENS).sort_by([("item_idx", "ascending"), ("token", "ascending")])
    token = token.filter(pc.field("item_idx") < manifest.items)
    item, token_hash, weight = (token[name].to_numpy() for name in ("item_idx", "token", "weight"))
    tokens, weights, hashes = pack_tokens(item, token_hash, weight, manifest.items, MAX_TOKENS)
    pairs = part(catalogue_parts.TRANSITIONS)
    signals = (pairs[name].to_numpy() for name in ("item_idx", "successor", *catalogue_parts.SIGNALS))
    catalogue = Catalogue(
        domain=items["domain"].to_numpy().astype(np.int32),
        events=items["train_events"].to_numpy().astype(np.int64),
        tokens=tokens,
        weights=weights,
        token_hashes=hashes,
        vectors=read_vectors(local_copy(f"{folder}/{catalogue_parts.VECTORS}"), range(manifest.items), manifest.vector_widths),
        successors=Successors.from_pairs(manifest.items, *signals),
    )
    return catalogue, items["item_id"]


def main(spec_file: Location) -> None:
    """Train as a Horovod rank; an error is written beside the spec, for the process that started the ranks."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s train: %(message)s")
    rank = os.environ.get("HOROVOD_RANK", "0")
    try:
        train(spec_file, Horovod())
    except Exception as error:
        record = {"rank": rank, "error": f"{type(error).__name__}: {error}", "time": time.time()}
        write_json(sibling(spec_file, f"errors/{rank}.json"), record)
        raise


if __name__ == "__main__":
    main(sys.argv[1])
