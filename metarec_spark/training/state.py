"""The state of a training run: epochs, validation results, early stopping; and its checkpoint."""

from __future__ import annotations

import logging
import math

import numpy as np
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metarec_spark.config.sections import Train
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import DomainWeights
from metarec_spark.model.manifest import Epoch
from metarec_spark.training.optimizer import Optimizer
from metarec_spark.warehouse.storage import Location, atomic_write, exists, local_copy

log = logging.getLogger("metarec_spark")


class State(BaseModel):
    """Progress of a run; saved with every checkpoint."""

    epoch: int = 0
    """Epochs done."""
    kept_epoch: int = 0
    """Epoch whose parameters the model gets, from 1; 0 before any: the last one whose validation NDCG@10 is within a standard
    error of the best. With a falling learning rate a later epoch is the better one unless it measures worse."""
    best: float = -1.0
    """Best validation NDCG@10 so far, over the events of all domains."""
    by_domain: list[tuple[float, int]] = []
    """Each domain's best validation NDCG@10 and its own kept epoch."""
    history: list[Epoch] = []

    def record(
        self, sums: np.ndarray, counts: np.ndarray, validation: np.ndarray, *, seconds: float, sequences: float, steps: int
    ) -> Epoch:
        """Add an epoch that has ended, and return it.

        Parameters
        ----------
        sums, counts
            [domains] sum of losses and number of predicted events.
        validation
            [domains, 3]; see :func:`metarec_spark.training.validation.encoder_ndcg`.
        """
        self.epoch += 1
        ndcg, error = _mean(validation.sum(0))
        self.by_domain = self.by_domain or [(-1.0, 0) for _ in validation]
        ndcg_by_domain = []
        for domain, domain_sums in enumerate(validation):
            value, domain_error = _mean(domain_sums)
            ndcg_by_domain.append(value)
            best, kept_epoch = self.by_domain[domain]
            if value is not None:
                self.by_domain[domain] = max(best, value), self.epoch if value >= best - domain_error else kept_epoch
        if ndcg is not None:
            self.kept_epoch = self.epoch if ndcg >= self.best - error else self.kept_epoch
            self.best = max(self.best, ndcg)
        epoch = Epoch(
            loss=float(sums.sum() / counts.sum()) if counts.any() else None,
            loss_by_domain=[float(s / n) if n else None for s, n in zip(sums, counts, strict=True)],
            validation_ndcg=ndcg,
            validation_ndcg_by_domain=ndcg_by_domain,
            seconds=seconds,
            sequences=sequences,
            steps=steps,
        )
        self.history.append(epoch)
        return epoch

    def finished(self, settings: Train, stop_after: int | None) -> bool:
        """Whether training ends: after its last epoch, or stopped early."""
        epochs = min(max_epochs(settings), stop_after or max_epochs(settings))
        return self.epoch >= epochs or (settings.epochs == "auto" and self._stalled(self.kept_epoch, settings))

    def active_domains(self, settings: Train, targets: list[int]) -> list[int]:
        """Of the target domains, those whose events are still trained on: with epochs = auto, those that did not get worse for
        ``patience`` epochs. If that is none, all are."""
        kept_epochs = [epoch for _, epoch in self.by_domain] or [0] * (max(targets, default=0) + 1)
        active = [domain for domain in targets if settings.epochs != "auto" or not self._stalled(kept_epochs[domain], settings)]
        return active or targets

    def _stalled(self, kept_epoch: int, settings: Train) -> bool:
        return kept_epoch > 0 and self.epoch - kept_epoch >= settings.patience


def max_epochs(settings: Train) -> int:
    """Epochs that the learning rate is planned for."""
    return settings.max_epochs if settings.epochs == "auto" else settings.epochs


def _mean(sums: np.ndarray) -> tuple[float | None, float]:
    """Mean and standard error from the sums of values, of their squares and of ones; None without values."""
    total, squares, count = (float(value) for value in sums)
    if not count:
        return None, 0.0
    return total / count, math.sqrt(max(0.0, squares / count - (total / count) ** 2) / count)


def save_checkpoint(
    location: Location, state: State, model: NextItemModel, weights: DomainWeights, best: dict[str, Tensor], optimizer: Optimizer
) -> None:
    """Write a checkpoint whole: a reader finds the one before or this one."""
    parts = {"model": model.state_dict(), "best": best, "weights": weights.state_dict(), "optimizer": optimizer.state()}
    tensors = {f"{part}.{name}": value.contiguous() for part, values in parts.items() for name, value in values.items()}
    with atomic_write(location) as draft:
        save_file(tensors, draft, metadata={"state": state.model_dump_json(by_alias=True)})


def resume(
    location: Location, model: NextItemModel, weights: DomainWeights, optimizer: Optimizer
) -> tuple[State, dict[str, Tensor]]:
    """Load the checkpoint, and return the run's state and the parameters of the kept epoch.

    Without a checkpoint, or if it is damaged or of another version, training starts from the beginning.
    """
    beginning = State(), {name: value.clone() for name, value in model.state_dict().items()}
    if not exists(location):
        return beginning
    try:
        with safe_open(local_copy(location), framework="pt") as file:
            state = State.model_validate_json(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        log.warning("checkpoint %s cannot be read, so training starts from the beginning: %s", location, error)
        return beginning

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(part("model."))
    weights.load_state_dict(part("weights."))
    optimizer.restore(part("optimizer."))
    return state, part("best.")
