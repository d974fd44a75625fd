"""The training loop: the same for one process and for many ranks.

The number of steps is fixed before the loop: the most that any rank has batches for. A rank that runs out repeats its last
batch with weight 0, so no rank ever waits for another that has ended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from metarec_spark.config import Train
from metarec_spark.errors import TrainingError
from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.loss import next_item_loss
from metarec_spark.model.transformer import Contexts, NextItemModel
from metarec_spark.training import loader
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.loader import Shard
from metarec_spark.training.progress import Progress

log = logging.getLogger("metarec_spark")
WARM_UP, FLOOR = 0.05, 0.05


@dataclass
class State:
    """How far a run has come; saved with every checkpoint."""

    epoch: int = 0
    """Epochs done."""
    best_epoch: int = 0
    """Epoch of the best validation NDCG@10, from 1; 0 before any."""
    best: float = -1.0
    """That NDCG@10."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Per epoch: loss, validation NDCG@10, seconds, sequences and rows."""


def fit(
    model: NextItemModel,
    catalogue: Catalogue,
    sequences: Shard,
    validation: Shard,
    rows: int,
    settings: Train,
    ranks: Ranks,
    checkpoint: Path,
) -> State:
    """Train ``model`` in place and leave it at its best epoch; at its last where there is no validation.

    Parameters
    ----------
    sequences, validation
        This rank's shards.
    rows
        Sequences that all ranks together must read in an epoch.
    checkpoint
        File that rank 0 writes after each epoch, and all ranks resume from.

    Raises
    ------
    TrainingError
        Where the rows read do not add up to ``rows``, or the loss is not finite.
    """
    tokens = max(1, settings.batch_tokens // ranks.size)
    steps = ranks.max(loader.count_batches(sequences, tokens))
    epochs = settings.max_epochs if settings.epochs == "auto" else settings.epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    schedule = _Schedule(settings.learning_rate, steps * epochs)
    state, best = _resume(checkpoint, model, optimizer)
    if state.epoch and ranks.rank == 0:
        log.info("resuming after epoch %d of %d", state.epoch, epochs)
    distributed = ranks.prepare(model, optimizer)
    of_domain = [torch.from_numpy(items) for items in catalogue.of_domain]
    while state.epoch < epochs and not _stalled(state, settings):
        start = time.monotonic()
        seed = _seed(settings.seed, state.epoch, ranks.rank)
        torch.manual_seed(seed)
        sampler = torch.Generator().manual_seed(seed)
        model.train()
        batches = _exactly(steps, loader.batches(sequences, tokens, seed))
        totals = np.zeros(3)  # loss, targets, rows
        progress = Progress(f"epoch {state.epoch + 1}/{epochs}", steps, epochs - state.epoch - 1, shown=ranks.rank == 0)
        with progress:
            for step, (batch, weight) in enumerate(batches):
                schedule.set(optimizer, state.epoch * steps + step)
                loss, targets = next_item_loss(model, batch, of_domain, settings.negatives, sampler)
                optimizer.zero_grad()
                (loss * (weight / settings.batch_tokens)).backward()
                distributed.step()
                totals += weight * np.array([loss.item(), targets, len(batch.length)])
                progress.step(totals[0] / totals[1] if totals[1] else math.nan, int(totals[2]))
        loss_sum, target_sum, rows_read = ranks.sum(totals.tolist())
        if int(rows_read) != rows:
            raise TrainingError(
                f"{sequences.folder}: ranks read {int(rows_read)} rows in an epoch, the snapshot has {rows}: run again"
            )
        if not math.isfinite(loss_sum):
            raise TrainingError(f"loss is {loss_sum} in epoch {state.epoch + 1}: lower train.learning_rate")
        seconds = time.monotonic() - start
        ndcg = _validate(model, validation, catalogue, ranks)
        state.epoch += 1
        state.history.append(
            {
                "loss": loss_sum / target_sum,
                "validation_ndcg@10": ndcg,
                "seconds": seconds,
                "sequences": rows_read,
                "steps": steps,
            }
        )
        if ranks.rank == 0:
            measured = "none" if ndcg is None else f"{ndcg:.4f}"
            said = (
                f"loss {loss_sum / target_sum:.4f}, validation NDCG@10 {measured}, {rows_read:.0f} sequences in {seconds:.1f} s"
            )
            log.info("epoch %d/%d: %s (%.0f/s)", state.epoch, epochs, said, rows_read / seconds)
        if ndcg is None or ndcg > state.best:
            state.best, state.best_epoch = ndcg if ndcg is not None else state.best, state.epoch
            best = {name: value.clone() for name, value in model.state_dict().items()}
        if ranks.rank == 0:
            _save(checkpoint, state, model, best, optimizer)
    model.load_state_dict(best)
    model.eval()
    return state


def _stalled(state: State, settings: Train) -> bool:
    return settings.epochs == "auto" and state.best >= 0 and state.epoch - state.best_epoch >= settings.patience


class _Schedule:
    """Linear warm-up over the first 5 % of the steps, then linear decay to 5 % of the peak."""

    def __init__(self, peak: float, steps: int) -> None:
        self.peak, self.steps, self.warm_up = peak, steps, max(1, int(WARM_UP * steps))

    def set(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        rising = (step + 1) / self.warm_up
        falling = 1 - (1 - FLOOR) * (step - self.warm_up) / max(1, self.steps - self.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = self.peak * min(rising, falling)


def _exactly(steps: int, batches: Iterator[Contexts]) -> Iterator[tuple[Contexts, float]]:
    """The batches with weight 1, then the last one again with weight 0 until there were ``steps``."""
    done, batch = 0, None
    for batch in batches:
        done += 1
        yield batch, 1.0
    for _ in range(steps - done):
        yield batch, 0.0


@torch.no_grad()
def _validate(model: NextItemModel, validation: Shard, catalogue: Catalogue, ranks: Ranks) -> float | None:
    """NDCG@10 over the validation pairs of all ranks, ranked against the domain less the context; None without pairs."""
    model.eval()
    gain, pairs = 0.0, 0
    groups = loader.count_row_groups(validation.folder)
    if groups < validation.size:  # too few for Petastorm to share out: rank 0 reads them all
        validation = replace(validation, size=1)
        groups = groups if validation.rank == 0 else 0
    if groups:
        vectors_ID = model.catalogue_vectors()
        for group in loader.read(validation, [*ARRAYS, LENGTH, "target", "target_domain"]):
            for rows in np.array_split(np.argsort(group[LENGTH]), -(-len(group[LENGTH]) // 512)):
                contexts = loader.contexts(group, rows)
                target, domain = (torch.from_numpy(group[name][rows].astype(np.int64)) for name in ("target", "target_domain"))
                gain += _ndcg(
                    model.encode(contexts, domain), vectors_ID, contexts, target, domain, torch.from_numpy(catalogue.domain)
                )
                pairs += len(rows)
    gain, pairs = ranks.sum([gain, float(pairs)])
    return gain / pairs if pairs else None


def _ndcg(user_BD: Tensor, vectors_ID: Tensor, contexts: Contexts, target: Tensor, domain: Tensor, item_domain: Tensor) -> float:
    scores = user_BD @ vectors_ID.T
    at = torch.arange(len(target))
    of_target = scores[at, target].clone()
    counts = torch.arange(contexts.item.shape[1]) < contexts.length[:, None]
    scores.scatter_(1, torch.where(counts, contexts.item, contexts.item[:, :1]), float("-inf"))
    scores.masked_fill_(item_domain[None, :] != domain[:, None], float("-inf"))
    scores[at, target] = float("-inf")
    rank = 1 + (scores >= of_target[:, None]).sum(1)
    return float(torch.where(rank <= 10, 1 / torch.log2(rank + 1.0), 0.0).sum())


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _save(path: Path, state: State, model: NextItemModel, best: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint whole: a reader finds the one before or this one."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for position, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{position}.{name}": value for name, value in moments.items()}
    draft = path.with_name(f".{path.name}.draft")
    save_file({name: value.contiguous() for name, value in tensors.items()}, draft, metadata={"state": json.dumps(asdict(state))})
    draft.replace(path)


def _resume(path: Path, model: NextItemModel, optimizer: torch.optim.Optimizer) -> tuple[State, dict[str, Tensor]]:
    """Load a checkpoint where there is one; otherwise the beginning."""
    if not path.exists():
        return State(), {name: value.clone() for name, value in model.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        state = State(**json.loads(file.metadata()["state"]))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    moments: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, position, moment = name.split(".")
            moments.setdefault(int(position), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return state, {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
