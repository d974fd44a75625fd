"""The losses of a training step: of a batch of events, or of an episode, in which the network first adapts to a domain.

An episode is a task: users of one domain, in a support and a query half. The network adapts to it by a few steps of gradient
descent; the tables of items and tokens are shared by all domains and stay as they are meanwhile. Both methods are first-order:
their outer gradient is that of a sum of losses along the adaptation, each at its own parameters, so only the losses of a step
differ from joint training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from itertools import cycle, islice
from operator import add

import torch
from torch import Tensor, nn

from metarec_spark.config.sections import Train
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.loss import Losses, Negatives, next_item_losses
from metarec_spark.model.packed import PackedSequences
from metarec_spark.training.batches import Episode

Parameters = Mapping[str, Tensor]
LossesAt = Callable[[Parameters, PackedSequences], Losses]
"""The losses of sequences with given parameters in place of the network's own."""


def step_losses(
    model: NextItemModel,
    batch: PackedSequences | Episode,
    negatives: Negatives,
    generator: torch.Generator,
    domains: list[int],
    settings: Train,
) -> Losses:
    """Losses whose gradient a step follows: those of a batch's events, or those of an episode by ``settings.method``.

    Gradients reach the model's parameters and the touched rows of its tables. For the other parameters, see
    :func:`metarec_spark.model.loss.next_item_losses`.
    """
    if isinstance(batch, PackedSequences):
        return next_item_losses(model, batch, negatives, generator, domains)
    module = _Losses(model, negatives, generator, [domain for domain in domains if domain == batch.domain])

    def losses(parameters: Parameters, contexts: PackedSequences) -> Losses:
        named = {f"model.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(module, named, (contexts,))

    method = {"fomaml": fomaml, "reptile": reptile}[settings.method]
    return method(losses, model.network, batch, settings.inner_rate, settings.inner_steps)


def descended(parameters: Parameters, loss: Tensor, rate: float) -> Parameters:
    """θ - α ∇L(θ), with the gradient as a constant: gradients of the result reach ``parameters`` unchanged."""
    gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, materialize_grads=True)
    return {name: value - rate * gradient for (name, value), gradient in zip(parameters.items(), gradients, strict=True)}


def adapted(losses: LossesAt, parameters: Parameters, support: PackedSequences, rate: float, steps: int) -> Parameters:
    """Parameters after some steps of gradient descent on the mean loss of the support set; ``parameters`` stay as they are.

    The inner loop of Finn, Abbeel & Levine (2017), Algorithm 1.
    """
    for _ in range(steps):
        parameters = descended(parameters, losses(parameters, support).mean, rate)
    return parameters


def fomaml(losses: LossesAt, parameters: Parameters, episode: Episode, rate: float, steps: int) -> Losses:
    """Losses of the query set at the parameters adapted to the support set.

    First-order MAML: second derivatives are left out (Finn, Abbeel & Levine, 2017, section 5.2).
    """
    return losses(adapted(losses, parameters, episode.support, rate, steps), episode.query)


def reptile(losses: LossesAt, parameters: Parameters, episode: Episode, rate: float, steps: int) -> Losses:
    """Losses along gradient descent on support and query set in turn.

    The outer gradient of batched Reptile is (θ - θ') / α (Nichol, Achiam & Schulman, 2018, Algorithm 2): the sum of the gradients
    of all inner steps. Each counts with its number of events, as in joint training, and the tables' rows follow the same sum.
    """
    first, *others = islice(cycle((episode.support, episode.query)), steps)
    along = [losses(parameters, first)]
    for part in others:
        parameters = descended(parameters, along[-1].mean, rate)
        along.append(losses(parameters, part))
    return reduce(add, along)


class _Losses(nn.Module):
    """The next-item losses as a module, which torch.func can call with other parameters."""

    def __init__(self, model: NextItemModel, negatives: Negatives, generator: torch.Generator, domains: list[int]) -> None:
        super().__init__()
        self.model, self.negatives, self.generator, self.domains = model, negatives, generator, domains

    def forward(self, contexts: PackedSequences) -> Losses:
        return next_item_losses(self.model, contexts, self.negatives, self.generator, self.domains)
