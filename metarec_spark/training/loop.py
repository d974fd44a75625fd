"""The training loop, the same for one process and for many ranks.

The number of steps of an epoch is fixed before the loop: the most that any rank has batches for. A rank that runs out repeats its
last batch with weight 0, so that no rank waits for another that has ended.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch

from metarec_spark.config.sections import Train
from metarec_spark.errors import TrainingError
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import DomainWeights
from metarec_spark.model.held_out import HeldOutEvents
from metarec_spark.model.loss import Negatives
from metarec_spark.model.packed import PackedSequences
from metarec_spark.training.batches import Episode, batches, count_batches, episodes, read_ahead
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.meta import step_losses
from metarec_spark.training.optimizer import Optimizer, learning_rate
from metarec_spark.training.progress import Progress
from metarec_spark.training.reader import Shard
from metarec_spark.training.spec import TrainSpec
from metarec_spark.training.state import State, max_epochs, resume, save_checkpoint
from metarec_spark.training.validation import encoder_ndcg
from metarec_spark.warehouse.storage import Location

Batch = TypeVar("Batch")
log = logging.getLogger("metarec_spark")


def fit(
    model: NextItemModel,
    catalogue: Catalogue,
    sequences: Shard,
    held_out: list[HeldOutEvents],
    spec: TrainSpec,
    ranks: Ranks,
    checkpoint: Location,
) -> State:
    """Train ``model`` in place and leave it with the parameters of the kept epoch, or of the last one without validation.

    Parameters
    ----------
    sequences, held_out
        This rank's training sequences and validation events.
    checkpoint
        File that rank 0 writes after each epoch, and from which all ranks resume.

    Raises
    ------
    TrainingError
        If the rows read do not add up to the snapshot's, or the loss is not finite.
    """
    settings, epochs = spec.settings, max_epochs(spec.settings)
    items, domains = [torch.from_numpy(items) for items in catalogue.of_domain], len(catalogue.of_domain)
    tokens = max(1, settings.batch_tokens // ranks.size)
    steps = ranks.max(count_batches(sequences, tokens))
    negatives = Negatives(items, settings.full_softmax, settings.negatives, precision(settings))
    weights = DomainWeights(settings.domain_weights, torch.tensor([catalogue.events[part].sum() for part in items]))
    optimizer = Optimizer(*_trained(model, spec.trained), dict(weights.named_parameters()))
    state, best = resume(checkpoint, model, weights, optimizer)
    if state.epoch and ranks.rank == 0:
        log.info("resuming after epoch %d of %d", state.epoch, epochs)
    ranks.broadcast(model.state_dict() | weights.state_dict() | optimizer.state())

    while not state.finished(settings, spec.stop_after):
        start, seed = time.monotonic(), _seed(settings.seed, state.epoch, ranks.rank)
        torch.manual_seed(seed)
        sampler = torch.Generator().manual_seed(_seed(settings.seed, state.epoch))  # the same on every rank
        active = state.active_domains(settings, list(range(domains)) if spec.targets is None else spec.targets)
        sums, counts, rows = np.zeros(domains), np.zeros(domains), 0.0
        model.train()
        with Progress(f"epoch {state.epoch + 1}/{epochs}", steps, epochs - state.epoch - 1, shown=ranks.rank == 0) as progress:
            one_pass = _batches(sequences, tokens, seed, state.epoch, spec)
            for step, (batch, weight) in enumerate(_exactly(steps, read_ahead(one_pass)), state.epoch * steps):
                rows += weight * len(batch.length)
                losses = step_losses(model, batch, negatives, sampler, active, settings)
                pending = ranks.gather_rows(optimizer.of_trained(losses.table_rows))
                optimizer.zero_grad()
                (weights(losses.sums, losses.counts) * (weight / settings.batch_tokens)).backward()
                touched = ranks.add_gradients(optimizer.network, optimizer.of_trained(losses.touched()), pending)
                optimizer.step(touched, learning_rate(step, steps * epochs, settings.learning_rate), step + 1)
                sums += weight * losses.sums.detach().numpy()
                counts += weight * losses.counts.numpy()
                progress.step(sums.sum() / counts.sum() if counts.any() else math.nan, int(rows))

        totals = np.array(ranks.sum([*sums, *counts, rows]))
        sums, counts, rows = totals[:domains], totals[domains:-1], totals[-1]
        if int(rows) != spec.manifest.sequences:
            expected = f"the snapshot has {spec.manifest.sequences}: run again"
            raise TrainingError(f"{sequences.folder}: ranks read {int(rows)} rows in an epoch, {expected}")
        if not math.isfinite(sums.sum()):
            raise TrainingError(f"loss is {sums.sum()} in epoch {state.epoch + 1}: lower train.learning_rate")
        seconds = time.monotonic() - start
        validation = np.array(ranks.sum(encoder_ndcg(model, catalogue, held_out).ravel().tolist())).reshape(-1, 3)
        epoch = state.record(sums, counts, validation, seconds=seconds, sequences=rows, steps=steps)
        if state.kept_epoch in (0, state.epoch):
            best = {name: value.clone() for name, value in model.state_dict().items()}
        if ranks.rank == 0:
            loss, ndcg = ("none" if value is None else f"{value:.4f}" for value in (epoch.loss, epoch.validation_ndcg))
            message = "epoch %d/%d: loss %s, validation NDCG@10 %s, %.0f sequences in %.1f s (%.0f/s)"
            log.info(message, state.epoch, epochs, loss, ndcg, rows, seconds, rows / seconds)
            save_checkpoint(checkpoint, state, model, weights, best, optimizer)
    model.load_state_dict(best)
    model.eval()
    return state


def precision(settings: Train) -> torch.dtype:
    """Number format of the products with the catalogue: as configured, or what this processor computes fast."""
    if settings.precision == "auto":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32


def _trained(
    model: NextItemModel, prefixes: tuple[str, ...] | None
) -> tuple[dict[str, torch.nn.Parameter], dict[str, torch.nn.Parameter]]:
    """The network's parameters and the tables that are trained, by name; gradients of other parameters are switched off."""
    trained = {name for name, _ in model.named_parameters() if prefixes is None or name.startswith(prefixes)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained and name not in model.tables)
    network, tables = ({name: part[name] for name in part if name in trained} for part in (model.network, model.tables))
    return network, tables


def _batches(sequences: Shard, tokens: int, seed: int, epoch: int, spec: TrainSpec) -> Iterator[PackedSequences | Episode]:
    """One pass over the sequences: batches for joint training, episodes for meta-training."""
    if spec.manifest.train.method != "joint":
        return episodes(sequences, tokens, seed, epoch)
    joint, domain = batches(sequences, tokens, seed), spec.without_newest
    return joint if domain is None else (_without_newest(batch, domain) for batch in joint)


def _without_newest(batch: PackedSequences, domain: int) -> PackedSequences:
    """Leave out the newest event in a domain of each sequence that has another event."""
    return batch.without(batch.newest(domain).where(batch.length > 1, torch.tensor(-1)))


def _exactly(steps: int, batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Yield the batches with weight 1, then the last one again with weight 0, ``steps`` in all."""
    done = 0
    for batch in batches:
        done += 1
        yield batch, 1.0
    for _ in range(steps - done):
        yield batch, 0.0


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
