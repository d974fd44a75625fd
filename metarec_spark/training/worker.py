"""One rank: ``python -m metarec_spark.training.worker SPEC``, started by Horovod, or called in this process.

SPEC is a JSON file, on any file system, beside which everything of the run lies: snapshot folder, checkpoint, and the model
folder to write.
"""

from __future__ import annotations

import logging
import os
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from metarec_spark import columns as c
from metarec_spark.errors import DataError
from metarec_spark.features import catalogue as catalogue_parts
from metarec_spark.model import artifact
from metarec_spark.model.catalogue import Catalogue, Successors, pack_tokens, read_vectors
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.stacking import Stacking
from metarec_spark.model.manifest import DomainSettings, Manifest, TrainingMetrics
from metarec_spark.model.spectral_init import spectral_init, token_init
from metarec_spark.model.warm_start import warm_start
from metarec_spark.training import snapshot
from metarec_spark.training.distributed import Horovod, Ranks
from metarec_spark.training.loader import Shard, held_out
from metarec_spark.training.loop import fit
from metarec_spark.training.spec import TrainSpec
from metarec_spark.training.stacking import stack
from metarec_spark.training.tuning import tune
from metarec_spark.warehouse.storage import Location, local_copy, sibling, write_json

MOST_TOKENS = 32
log = logging.getLogger("metarec_spark")


def train(spec_file: Location, ranks: Ranks) -> None:
    """Train as one of ``ranks``; rank 0 writes the model folder.

    Each rank copies what the snapshot says of the items and the held-out pairs, and its share of the sequences, unless they lie
    on the machine's own file system.
    """
    spec = TrainSpec.read(spec_file)
    folder, manifest, settings = spec.snapshot, spec.manifest, spec.manifest.train
    torch.set_num_threads(spec.threads)
    catalogue, item_ids = read_catalogue(folder, manifest)
    torch.manual_seed(settings.seed)
    start, cpu = time.monotonic(), time.process_time()
    model = NextItemModel(manifest.model, manifest.shape, catalogue)
    if ranks.rank == 0:  # the others get its parameters
        if spec.start:
            warm_start(artifact.load(spec.start), model, manifest, catalogue)
        elif settings.spectral_init:
            model.item.weight.data = torch.from_numpy(spectral_init(catalogue, model.item.weight.detach().numpy(), settings.seed))
        if settings.token_init and not spec.start:
            model.token.weight.data = torch.from_numpy(token_init(catalogue, model.token.weight.detach().numpy(), settings.seed))
    validation = Shard(local_copy(f"{folder}/{c.VALIDATION}"), ranks.rank, ranks.size, settings.reader_pool)
    state = fit(
        model,
        catalogue,
        Shard.of(f"{folder}/{snapshot.SEQUENCES}", ranks.rank, ranks.size, settings.reader_pool),
        [] if spec.stop_after else held_out(validation, settings.epoch_pairs),
        rows=manifest.sequences,
        settings=settings,
        ranks=ranks,
        checkpoint=sibling(spec_file, "checkpoint.safetensors"),
        targets=spec.targets,
        trained=spec.trained,
        without_newest=spec.without_newest,
        stop_after=spec.stop_after,
    )
    held = held_out(validation) if settings.tune else []
    few = [of.take(np.flatnonzero(of.pair <= settings.validation_pairs)) for of in held]
    tuned = tune(model, catalogue, few, manifest.initial_settings, ranks)
    stacking, stacked = stack(model, catalogue, held if settings.stacking_pairs else [], tuned, ranks, settings.seed)
    if settings.stacking_pairs and spec.previous and all(found.ndcg.ensemble is None for found in tuned):
        stacking, stacked = inherited_stacking(spec.previous, manifest)
    (cpu_seconds,) = ranks.sum([time.process_time() - cpu])
    if ranks.rank == 0:
        kept_epoch = state.kept_epoch or state.epoch
        kept = state.history[kept_epoch - 1]
        metrics = TrainingMetrics(
            epochs=state.epoch,
            kept_epoch=kept_epoch,
            validation_ndcg=kept.validation_ndcg,
            loss=kept.loss,
            seconds=round(sum(epoch.seconds for epoch in state.history), 1),
            wall_seconds=round(time.monotonic() - start, 1),
            cpu_seconds=round(cpu_seconds, 1),
            history=state.history,
            validation=manifest.metrics.validation or {n: found.ndcg for n, found in zip(manifest.domains, tuned, strict=True)},
        )
        by_domain = {
            name: DomainSettings(params=found.params, fusion=found.fusion, stacked=used)
            for name, found, used in zip(manifest.domains, tuned, stacked, strict=True)
        }
        manifest = manifest.model_copy(update={"tuned": manifest.tuned or by_domain, "metrics": metrics})
        pair_ranker = artifact.load(spec.pair_ranker).pair_ranker if spec.pair_ranker else None
        artifact.save(spec.model, manifest, model, catalogue, item_ids, pair_ranker, stacking if any(stacked) else None)


def inherited_stacking(previous: Location, manifest: Manifest) -> tuple[Stacking | None, list[bool]]:
    """The stacking network of the model whose settings are inherited, and whether it is used, by domain."""
    try:
        found = artifact.load(previous).stacking
    except DataError as error:
        log.warning("no stacking is inherited, f and g are fused plainly: %s", error)
        found = None
    used = {name for name, settings in manifest.inherited.items() if settings.stacked}
    return found, [found is not None and name in used for name in manifest.domains]


def read_catalogue(folder: Location, manifest: Manifest) -> tuple[Catalogue, pa.ChunkedArray]:
    """Read the snapshot's catalogue, and the items' external ids; memory grows with items and their transitions."""
    items = manifest.items
    table = pq.read_table(local_copy(f"{folder}/{catalogue_parts.ITEMS}")).sort_by("item_idx")
    token = pq.read_table(local_copy(f"{folder}/{catalogue_parts.TOKENS}")).sort_by(
        [("item_idx", "ascending"), ("token", "ascending")]
    )
    known = token["item_idx"].to_numpy() < items
    tokens, weights, hashes = pack_tokens(
        *(token[name].to_numpy()[known] for name in ("item_idx", "token", "weight")), items, MOST_TOKENS
    )
    pair = pq.read_table(local_copy(f"{folder}/{catalogue_parts.TRANSITIONS}"))
    names = ("item_idx", "successor", *catalogue_parts.SIGNALS)
    successors = Successors.of(items, *(pair[name].to_numpy() for name in names))
    catalogue = Catalogue(
        domain=table["domain"].to_numpy().astype(np.int32),
        events=table["train_events"].to_numpy().astype(np.int64),
        tokens=tokens,
        weights=weights,
        token_hashes=hashes,
        vectors=read_vectors(local_copy(f"{folder}/{catalogue_parts.VECTORS}"), range(items), manifest.vector_widths),
        successors=successors,
    )
    return catalogue, table["item_id"]


def main(spec_file: Location) -> None:
    """Train as a Horovod rank; what goes wrong is left beside the spec, for whoever started the ranks."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s train: %(message)s")
    rank = os.environ.get("HOROVOD_RANK", "0")
    try:
        train(spec_file, Horovod())
    except Exception as error:
        said = {"rank": rank, "error": f"{type(error).__name__}: {error}", "time": time.time()}
        write_json(sibling(spec_file, f"errors/{rank}.json"), said)
        raise


if __name__ == "__main__":
    main(sys.argv[1])
