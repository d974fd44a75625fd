"""The training loop: the same for one process and for many ranks.

The number of steps is fixed before the loop: the most that any rank has batches for. A rank that runs out repeats its last
batch with weight 0, so no rank ever waits for another that has ended.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metarec_spark.config.sections import Train
from metarec_spark.errors import TrainingError
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import DomainWeights
from metarec_spark.model.loss import Negatives
from metarec_spark.model.manifest import Epoch
from metarec_spark.model.packed import PackedSequences
from metarec_spark.training import loader
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.loader import Batch, HeldOutEvents, Shard
from metarec_spark.training.meta import step_losses
from metarec_spark.training.optimizer import Optimizer, rate_at
from metarec_spark.training.progress import Progress
from metarec_spark.training.validation import ndcg_of_base
from metarec_spark.warehouse.storage import Location, atomic_write, exists, local_copy

log = logging.getLogger("metarec_spark")


class State(BaseModel):
    """How far a run has come; saved with every checkpoint."""

    epoch: int = 0
    """Epochs done."""
    kept_epoch: int = 0
    """Epoch whose parameters are kept, from 1: the last one whose validation NDCG@10 is within a standard error of the best.
    0 before any. With a falling learning rate a later epoch is the better one unless it measures worse."""
    best: float = -1.0
    """Best validation NDCG@10 so far, over the pairs of all domains."""
    of_domain: list[tuple[float, int]] = []
    """For each domain, its best validation NDCG@10 and its own kept epoch."""
    history: list[Epoch] = []


def fit(
    model: NextItemModel,
    catalogue: Catalogue,
    sequences: Shard,
    validation: list[HeldOutEvents],
    rows: int,
    settings: Train,
    ranks: Ranks,
    checkpoint: Location,
    targets: list[int] | None = None,
    trained: tuple[str, ...] | None = None,
    without_newest: int | None = None,
    stop_after: int | None = None,
) -> State:
    """Train ``model`` in place and leave it at the epoch that is kept; at its last where there is no validation.

    Parameters
    ----------
    sequences
        This rank's shard.
    validation
        This rank's held-out events.
    rows
        Sequences that all ranks together must read in an epoch.
    checkpoint
        File that rank 0 writes after each epoch, and all ranks resume from.
    targets
        Domains whose events are learnt; None: all.
    trained
        Prefixes of the parameters that are trained; the others stay as they are. None: all.
    without_newest, stop_after
        See :class:`metarec_spark.training.spec.TrainSpec`.

    Raises
    ------
    TrainingError
        Where the rows read do not add up to ``rows``, or the loss is not finite.
    """
    tokens = max(1, settings.batch_tokens // ranks.size)
    steps = ranks.max(loader.count_batches(sequences, tokens))
    epochs = settings.max_epochs if settings.epochs == "auto" else settings.epochs
    of_domain = [torch.from_numpy(items) for items in catalogue.of_domain]
    candidates = Negatives(of_domain, settings.full_softmax, settings.negatives, precision(settings))
    weights = DomainWeights(settings.domain_weights, torch.tensor([catalogue.events[items].sum() for items in of_domain]))
    tables = model.tables
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in tables and (trained is None or name.startswith(trained)))
    network = {name: value for name, value in model.network.items() if value.requires_grad} | dict(weights.named_parameters())
    tables = {name: table for name, table in tables.items() if trained is None or name.startswith(trained)}
    optimizer = Optimizer(network, tables)
    state, best = _resume(checkpoint, model, weights, optimizer)
    if state.epoch and ranks.rank == 0:
        log.info("resuming after epoch %d of %d", state.epoch, epochs)
    ranks.share(model.state_dict() | weights.state_dict() | optimizer.state())
    while state.epoch < min(epochs, stop_after or epochs) and not (
        settings.epochs == "auto" and _stalled(state.kept_epoch, state, settings)
    ):
        start = time.monotonic()
        seed = _seed(settings.seed, state.epoch, ranks.rank)
        torch.manual_seed(seed)
        sampler = torch.Generator().manual_seed(_seed(settings.seed, state.epoch))  # the same on every rank
        model.train()
        learnt = _still_learnt(state, settings, len(of_domain), targets)
        batches = loader.batches if settings.method == "joint" else partial(loader.episodes, epoch=state.epoch)
        batches = _exactly(steps, loader.ahead(batches(sequences, tokens, seed)))
        sums, counts, read = np.zeros(len(of_domain)), np.zeros(len(of_domain)), 0.0
        progress = Progress(f"epoch {state.epoch + 1}/{epochs}", steps, epochs - state.epoch - 1, shown=ranks.rank == 0)
        with progress:
            for step, (batch, weight) in enumerate(batches, state.epoch * steps):
                read += weight * len(batch.length)
                batch = batch if without_newest is None else _without_newest(batch, without_newest)
                losses = step_losses(model, batch, candidates, sampler, learnt, settings)
                telling = ranks.tell({name: rows for name, rows in losses.of_tables.items() if name in tables})
                for parameter in optimizer.network:
                    parameter.grad = None
                (weights(losses.sums, losses.counts) * (weight / settings.batch_tokens)).backward()
                rows_of = {name: touched for name, touched in losses.touched().items() if name in tables}
                touched = ranks.add_gradients(optimizer.network, rows_of, telling)
                optimizer.step(touched, rate_at(step, steps * epochs, settings.learning_rate), step + 1)
                sums += weight * losses.sums.detach().numpy()
                counts += weight * losses.counts.numpy()
                progress.step(sums.sum() / counts.sum() if counts.any() else math.nan, int(read))
        totals = np.array(ranks.sum([*sums, *counts, read]))
        sums, counts, read = totals[: len(of_domain)], totals[len(of_domain) : -1], totals[-1]
        if int(read) != rows:
            raise TrainingError(
                f"{sequences.folder}: ranks read {int(read)} rows in an epoch, the snapshot has {rows}: run again"
            )
        if not math.isfinite(sums.sum()):
            raise TrainingError(f"loss is {sums.sum()} in epoch {state.epoch + 1}: lower train.learning_rate")
        seconds = time.monotonic() - start
        found = np.array(ranks.sum(ndcg_of_base(model, catalogue, validation).ravel().tolist())).reshape(-1, 3)
        _note(state, sums, counts, found, seconds=seconds, sequences=read, steps=steps)
        if ranks.rank == 0:
            measured = state.history[-1].loss, state.history[-1].validation_ndcg
            loss, ndcg = ("none" if value is None else f"{value:.4f}" for value in measured)
            said = f"loss {loss}, validation NDCG@10 {ndcg}, {read:.0f} sequences in {seconds:.1f} s"
            log.info("epoch %d/%d: %s (%.0f/s)", state.epoch, epochs, said, read / seconds)
        if state.kept_epoch in (0, state.epoch):
            best = {name: value.clone() for name, value in model.state_dict().items()}
        if ranks.rank == 0:
            _save(checkpoint, state, model, weights, best, optimizer)
    model.load_state_dict(best)
    model.eval()
    return state


def _without_newest(batch: PackedSequences, domain: int) -> PackedSequences:
    """Without the newest event in a domain of each sequence that has another one."""
    return batch.without(batch.newest(domain).where(batch.length > 1, torch.tensor(-1)))


def precision(settings: Train) -> torch.dtype:
    """Of the products with the catalogue: as set, or what this processor does fast."""
    if settings.precision == "auto":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32


def _note(
    state: State, sums: np.ndarray, counts: np.ndarray, found: np.ndarray, *, seconds: float, sequences: float, steps: int
) -> None:
    """Enter an epoch that has ended: its losses, and validation gains, their squares, and pairs by domain."""
    state.epoch += 1
    ndcg, noise = _mean(found.sum(0))
    state.of_domain = state.of_domain or [(-1.0, 0) for _ in found]
    by_domain = []
    for domain, sums_of in enumerate(found):
        value, error = _mean(sums_of)
        by_domain.append(value)
        best, kept = state.of_domain[domain]
        if value is not None:
            state.of_domain[domain] = max(best, value), state.epoch if value >= best - error else kept
    if ndcg is not None:
        state.kept_epoch = state.epoch if ndcg >= state.best - noise else state.kept_epoch
        state.best = max(state.best, ndcg)
    losses = [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
    state.history.append(
        Epoch(
            loss=float(sums.sum() / counts.sum()) if counts.any() else None,
            loss_by_domain=losses,
            validation_ndcg=ndcg,
            validation_ndcg_by_domain=by_domain,
            seconds=seconds,
            sequences=sequences,
            steps=steps,
        )
    )


def _mean(sums: np.ndarray) -> tuple[float | None, float]:
    """Mean and its standard error from the sums of values, of their squares and of ones; None of nothing."""
    total, squares, count = (float(value) for value in sums)
    if not count:
        return None, 0.0
    return total / count, math.sqrt(max(0.0, squares / count - (total / count) ** 2) / count)


def _stalled(kept_epoch: float, state: State, settings: Train) -> bool:
    return kept_epoch > 0 and state.epoch - kept_epoch >= settings.patience


def _still_learnt(state: State, settings: Train, domains: int, targets: list[int] | None = None) -> list[int]:
    """Domains whose events are learnt: with epochs = auto, those that did not get worse for ``patience`` epochs."""
    kept = [epoch for _, epoch in state.of_domain] or [0] * domains
    mine = range(domains) if targets is None else targets
    going_on = [domain for domain in mine if settings.epochs != "auto" or not _stalled(kept[domain], state, settings)]
    return going_on or list(mine)


def _exactly(steps: int, batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """The batches with weight 1, then the last one again with weight 0 until there were ``steps``."""
    done, batch = 0, None
    for batch in batches:
        done += 1
        yield batch, 1.0
    for _ in range(steps - done):
        yield batch, 0.0


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _save(
    place: Location, state: State, model: NextItemModel, weights: DomainWeights, best: dict[str, Tensor], optimizer: Optimizer
) -> None:
    """Write a checkpoint whole: a reader finds the one before or this one."""
    parts = {"model": model.state_dict(), "best": best, "weights": weights.state_dict(), "optimizer": optimizer.state()}
    tensors = {f"{part}.{name}": value.contiguous() for part, values in parts.items() for name, value in values.items()}
    with atomic_write(place) as draft:
        save_file(tensors, draft, metadata={"state": state.model_dump_json()})


def _resume(
    place: Location, model: NextItemModel, weights: DomainWeights, optimizer: Optimizer
) -> tuple[State, dict[str, Tensor]]:
    """Load a checkpoint; without one, or if it is damaged, start from the beginning."""
    beginning = State(), {name: value.clone() for name, value in model.state_dict().items()}
    if not exists(place):
        return beginning
    try:
        with safe_open(local_copy(place), framework="pt") as file:
            state = State.model_validate_json(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        log.warning("checkpoint %s cannot be read, so training starts from the beginning: %s", place, error)
        return beginning

    def part(of: str) -> dict[str, Tensor]:
        return {name.removeprefix(f"{of}."): value for name, value in tensors.items() if name.startswith(f"{of}.")}

    model.load_state_dict(part("model"))
    weights.load_state_dict(part("weights"))
    optimizer.restore(part("optimizer"))
    return state, part("best")
