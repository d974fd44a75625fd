"""The next-item loss: softmax over the domain's catalogue, or over the target and shared uniform negatives.

Forward and backward are one pass over blocks of events that stay in the processor's cache: an events × items matrix never exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from metarec_spark.model.encoder import NextItemModel, TouchedRows, summed
from metarec_spark.model.packed import PackedSequences

_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Losses:
    """Cross-entropies of the next events of a step."""

    sums: Tensor
    """[domains] sum over the domain's events."""
    counts: Tensor
    """[domains] number of events."""
    rows: tuple[TouchedRows, ...]
    """Rows of the tables that the step touched."""

    @property
    def mean(self) -> Tensor:
        """Mean over the events of all domains; 0 without events."""
        return self.sums.sum() / self.counts.sum().clamp(min=1)

    @property
    def table_rows(self) -> dict[str, Tensor]:
        """Touched rows by table, known before their gradients; a row may be there more than once."""
        parts = [rows.table_rows for rows in self.rows]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def touched(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Touched rows, each once, and their gradients by table."""
        first, *others = [rows.touched() for rows in self.rows]
        if not others:
            return first
        return {name: summed(*map(torch.cat, zip(first[name], *(part[name] for part in others), strict=True))) for name in first}

    def __add__(self, other: Losses) -> Losses:
        return Losses(self.sums + other.sums, self.counts + other.counts, self.rows + other.rows)


@dataclass(frozen=True)
class Negatives:
    """The items that a target is compared with in the softmax."""

    of_domain: list[Tensor]
    """Ascending indexes of each domain's items, int64."""
    full: int
    """Most items of a domain whose catalogue is used whole."""
    negatives: int
    """Items drawn per step for a larger domain."""
    precision: torch.dtype
    """Of the events × items products: float32, or bfloat16 if the processor has instructions for it."""


def next_item_losses(
    model: NextItemModel,
    contexts: PackedSequences,
    negatives: Negatives,
    generator: torch.Generator,
    domains: list[int] | None = None,
) -> Losses:
    """Cross-entropy of every event except the first of each sequence and those that are context alone, given all events before.

    The softmax is over the target's domain: over all its items if they are at most ``full``, otherwise over the target and
    ``negatives`` uniformly drawn items that all events of the step share; a negative that equals the target is masked.

    Parameters
    ----------
    contexts
        Sequences of at least one event.
    generator
        Source of the sample. Its state alone decides each domain's sample, so ranks with equal generators draw the same items and
        together touch hardly more rows than one rank.
    domains
        Domains whose events are targets; None: all.

    Notes
    -----
    Uniform sampling needs no logQ correction: it would add the same constant to every negative (Bengio & Senécal, 2008).
    """
    position, length = contexts.position, contexts.length.repeat_interleave(contexts.length)
    is_input, is_later = position < length - 1, position > 0
    target_N, is_target_N = contexts.item[is_later], contexts.is_target[is_later]
    domain_N = torch.where(is_target_N, contexts.domain[is_later], -1)
    events = {d: domain_N == d for d in domain_N.unique().tolist() if d >= 0 and (domains is None or d in domains)}
    seed = int(torch.randint(2**62, (), generator=generator))
    pools = {d: _pool(negatives, d, seed) for d in events}
    rows = TouchedRows(model, torch.cat([contexts.item, *pools.values()]).unique())
    inputs = contexts.where(is_input, contexts.length - 1)
    hidden_ND = model.hidden(inputs, rows.vectors(inputs.item))
    size = len(negatives.of_domain)
    # Without any target the gradient is zero, not missing: every step of a rank adds one to the other ranks'.
    nothing = hidden_ND.new_zeros(()) if events else 0.0 * rows.vectors_RD.sum()
    sums, counts = [nothing] * size, torch.zeros(size)
    for d, is_inside_N in events.items():
        user_ND, target_d = model.user_vectors(hidden_ND[is_inside_N], d), target_N[is_inside_N]
        pool_MD = model.normalized(rows.vectors(pools[d]))
        options = (model.scale, model.cosine, negatives.precision)
        if pools[d] is negatives.of_domain[d]:
            sums[d] = FullSoftmax.apply(user_ND, pool_MD, torch.searchsorted(pools[d], target_d), *options)
        else:
            target_ND = model.normalized(rows.vectors(target_d))
            sums[d] = SampledSoftmax.apply(user_ND, pool_MD, target_ND, target_d, pools[d], *options)
        counts[d] = len(target_d)
    return Losses(torch.stack(sums), counts, (rows,))


def _pool(negatives: Negatives, domain: int, seed: int) -> Tensor:
    """Items of the softmax besides the targets: the whole domain, or a sample."""
    items = negatives.of_domain[domain]
    if len(items) <= negatives.full:
        return items
    generator = torch.Generator().manual_seed(seed + domain)
    return items[torch.randint(len(items), (negatives.negatives,), generator=generator)]


class FullSoftmax(Function):
    """Sum of -log softmax(scale · users · itemsᵀ) at each user's target; gradients are computed in the same pass."""

    @staticmethod
    def forward(
        ctx: Any, user_ND: Tensor, item_MD: Tensor, target_N: Tensor, scale: float, bounded: bool, precision: torch.dtype
    ) -> Tensor:
        """``target_N`` are positions among the items; ``bounded`` says that logits are at most ``scale``."""
        users, items = (user_ND * scale).to(precision), item_MD.to(precision)
        user_gradient, item_gradient = torch.empty_like(user_ND), torch.zeros_like(item_MD)
        total = user_ND.new_zeros(())
        for at in _blocks(len(user_ND), items):
            weight, position = users[at] @ items.T, target_N[at, None]
            target = weight.gather(1, position).to(user_ND.dtype)
            top = _shift(weight, scale, bounded)
            mass = weight.sub_(top).exp_().sum(1, keepdim=True, dtype=user_ND.dtype)
            total += (mass.log() + top - target).sum()
            weight.mul_((1 / mass).to(precision)).scatter_add_(1, position, weight.new_full((len(weight), 1), -1.0))
            user_gradient[at] = weight @ items
            item_gradient += weight.T @ users[at]
        ctx.save_for_backward(user_gradient.mul_(scale), item_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        user_gradient, item_gradient = ctx.saved_tensors
        return user_gradient * gradient, item_gradient * gradient, None, None, None, None


class SampledSoftmax(Function):
    """As :class:`FullSoftmax`, over the target and shared negatives; a negative that equals the target is masked."""

    @staticmethod
    def forward(
        ctx: Any,
        user_ND: Tensor,
        item_MD: Tensor,
        target_ND: Tensor,
        target_N: Tensor,
        item_M: Tensor,
        scale: float,
        bounded: bool,
        precision: torch.dtype,
    ) -> Tensor:
        """``item_M`` and ``target_N`` are item indexes of the negatives and of the targets."""
        users, items = (user_ND * scale).to(precision), item_MD.to(precision)
        user_gradient, item_gradient = torch.empty_like(user_ND), torch.zeros_like(item_MD)
        target_gradient = torch.empty_like(target_ND)
        total = user_ND.new_zeros(())
        hit_row, hit_position = _hits(target_N, item_M)
        for at in _blocks(len(user_ND), items):
            weight, own = users[at] @ items.T, target_ND[at]
            hits = slice(*torch.searchsorted(hit_row, torch.tensor([at.start, at.stop])).tolist())
            target = scale * (user_ND[at] * own).sum(1, keepdim=True)
            top = _shift(weight, scale, bounded)
            top = top if bounded else torch.maximum(torch.as_tensor(top), target)
            weight.sub_(top).exp_()[hit_row[hits] - at.start, hit_position[hits]] = 0.0
            own_weight = (target - top).exp()
            mass = weight.sum(1, keepdim=True, dtype=user_ND.dtype) + own_weight
            total += (mass.log() + top - target).sum()
            weight.mul_((1 / mass).to(precision))
            pull = own_weight / mass - 1
            user_gradient[at] = weight @ items + pull * own
            item_gradient += weight.T @ users[at]
            target_gradient[at] = pull * scale * user_ND[at]
        ctx.save_for_backward(user_gradient.mul_(scale), item_gradient, target_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return *(part * gradient for part in ctx.saved_tensors), None, None, None, None, None


def _hits(target_N: Tensor, item_M: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, ascending, and positions at which targets are among the items."""
    ordered, order = item_M.sort()
    first = torch.searchsorted(ordered, target_N)
    count = torch.searchsorted(ordered, target_N, right=True) - first
    row = torch.arange(len(target_N)).repeat_interleave(count)
    return row, order[torch.arange(len(row)) + (first - (count.cumsum(0) - count))[row]]


def _blocks(rows: int, items: Tensor) -> list[slice]:
    size = max(1, _BLOCK_BYTES // (items.element_size() * len(items)))
    return [slice(start, start + size) for start in range(0, rows, size)]


def _shift(logits: Tensor, scale: float, bounded: bool) -> Tensor | float:
    """What is subtracted from the logits before the exponential: their bound if they are cosines, else each row's maximum."""
    return scale if bounded else logits.max(1, keepdim=True).values.float()
