"""What a step learns from: the events of a batch, or an episode, in which the network first adapts to a domain.

An episode is a task: users of one domain, in two halves. The network adapts to it by a few steps of gradient descent; the
tables of items and tokens are what the domains share, and hold still meanwhile. Both methods are of first order: their outer
gradient is that of a sum of losses along the way, each at its own parameters, so joint training and they differ in nothing but
the losses of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import cycle, islice
from operator import add

import torch
from torch import Tensor, nn

from metarec_spark.config.sections import Train
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.loss import Losses, Negatives, next_item_losses
from metarec_spark.model.packed import PackedSequences
from metarec_spark.training.loader import Episode

Parameters = dict[str, Tensor]
LossesAt = Callable[[Parameters, PackedSequences], Losses]
"""The losses of some sequences, with given parameters in place of the network's own."""


def step_losses(
    model: NextItemModel,
    batch: PackedSequences | Episode,
    candidates: Negatives,
    generator: torch.Generator,
    domains: list[int],
    settings: Train,
) -> Losses:
    """Losses whose gradient a step follows: of sequences, the joint ones; of an episode, those of ``settings.method``.

    Gradients reach the model's parameters, and the touched rows of its tables. The others are as
    :func:`metarec_spark.model.loss.next_item_losses` takes them.
    """
    if isinstance(batch, PackedSequences):
        return next_item_losses(model, batch, candidates, generator, domains)
    module = _Losses(model)
    of_task = [domain for domain in domains if domain == batch.domain]

    def losses(parameters: Parameters, contexts: PackedSequences) -> Losses:
        named = {f"model.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(module, named, (contexts, candidates, generator, of_task))

    method = {"fomaml": fomaml, "reptile": reptile}[settings.method]
    return method(losses, model.network, batch, settings.inner_rate, settings.inner_steps)


def descended(parameters: Parameters, loss: Tensor, rate: float) -> Parameters:
    """θ - α ∇L(θ), the gradient taken as a constant: what is derived from the result reaches ``parameters`` unchanged."""
    gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, materialize_grads=True)
    return {name: value - rate * gradient for (name, value), gradient in zip(parameters.items(), gradients, strict=True)}


def adapted(losses: LossesAt, parameters: Parameters, support: PackedSequences, rate: float, steps: int) -> Parameters:
    """Parameters after some steps of gradient descent on the mean loss of the support; those given stay as they are.

    The inner loop of Finn, Abbeel & Levine (2017), Algorithm 1.
    """
    for _ in range(steps):
        parameters = descended(parameters, losses(parameters, support).mean, rate)
    return parameters


def fomaml(losses: LossesAt, parameters: Parameters, episode: Episode, rate: float, steps: int) -> Losses:
    """Losses of the query at the parameters adapted to the support.

    First-order MAML: second derivatives are left out (Finn, Abbeel & Levine, 2017, section 5.2).
    """
    return losses(adapted(losses, parameters, episode.support, rate, steps), episode.query)


def reptile(losses: LossesAt, parameters: Parameters, episode: Episode, rate: float, steps: int) -> Losses:
    """Losses along the way of gradient descent on support and query in turn.

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

    def __init__(self, model: NextItemModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, contexts: PackedSequences, *how: object) -> Losses:
        return next_item_losses(self.model, contexts, *how)
