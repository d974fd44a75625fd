"""The next-item loss: softmax over the domain's catalogue, or over the target and shared uniform negatives.

Forward and backward are one pass over blocks of events that stay in the processor's cache: a events × items matrix never exists.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """[domains] number of them."""
    rows: tuple[TouchedRows, ...]
    """Rows of the tables that the step touched."""

    @property
    def mean(self) -> Tensor:
        """Mean over the events of all domains; 0 of none."""
        return self.sums.sum() / self.counts.sum().clamp(min=1)

    @property
    def of_tables(self) -> dict[str, Tensor]:
        """For each table, the rows touched; known before their gradients are. A row may be named more than once."""
        parts = [rows.of_tables for rows in self.rows]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def touched(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each table, the rows touched, each named once, and their gradients."""
        first, *others = [rows.touched() for rows in self.rows]
        if not others:
            return first
        return {name: summed(*map(torch.cat, zip(first[name], *(part[name] for part in others), strict=True))) for name in first}

    def __add__(self, other: Losses) -> Losses:
        return Losses(self.sums + other.sums, self.counts + other.counts, self.rows + other.rows)


@dataclass(frozen=True)
class Negatives:
    """Which items a target is told from."""

    of_domain: list[Tensor]
    """For each domain, the indexes of its items, int64, ascending."""
    full: int
    """A domain with at most so many items is used whole."""
    negatives: int
    """Of another, so many are drawn for the step."""
    precision: torch.dtype
    """Of the events × items products: float32, or bfloat16 where the processor has instructions for it."""


def next_item_losses(
    model: NextItemModel,
    contexts: PackedSequences,
    candidates: Negatives,
    generator: torch.Generator,
    domains: list[int] | None = None,
) -> Losses:
    """Cross-entropy of every event but the first of each sequence, given those before it.

    The target's own domain is its catalogue. It is used whole where it has at most ``full`` items; otherwise the softmax runs
    over the target and ``negatives`` items drawn uniformly from it, shared by all events of the step, those equal to the target
    masked out.

    Parameters
    ----------
    contexts
        Sequences of at least one event.
    generator
        Source of the sample: its state decides each domain's, whichever other domains there are. Ranks whose generators agree
        draw the same items, so that together they touch hardly more rows than one of them.
    domains
        Domains whose events are targets; None: all.

    Notes
    -----
    Uniform sampling needs no logQ correction: it would add the same constant to every negative (Bengio & Senécal, 2008).
    """
    position, length = contexts.position, contexts.length.repeat_interleave(contexts.length)
    is_input, is_target = position < length - 1, position > 0
    target_N, domain_N = contexts.item[is_target], contexts.domain[is_target]
    of = {d: domain_N == d for d in domain_N.unique().tolist() if domains is None or d in domains}
    seed = int(torch.randint(2**62, (), generator=generator))
    pools = {d: _pool(candidates, d, seed) for d in of}
    rows = TouchedRows(model, torch.cat([contexts.item, *pools.values()]).unique())
    inputs = contexts.where(is_input, contexts.length - 1)
    hidden_ND = model.hidden(inputs, rows.of(inputs.item))
    size = len(candidates.of_domain)
    # Without any target there is a gradient all the same, of zeros: every step of a rank has one to add to the others'.
    nothing = hidden_ND.new_zeros(()) if of else 0.0 * rows.vectors_RD.sum()
    sums, counts = [nothing] * size, torch.zeros(size)
    for d, events in of.items():
        user_ND, target_d = model.user_vectors(hidden_ND[events], d), target_N[events]
        pool_MD = model.directed(rows.of(pools[d]))
        how = (model.scale, model.cosine, candidates.precision)
        if pools[d] is candidates.of_domain[d]:
            sums[d] = FullSoftmax.apply(user_ND, pool_MD, torch.searchsorted(pools[d], target_d), *how)
        else:
            target_ND = model.directed(rows.of(target_d))
            sums[d] = SampledSoftmax.apply(user_ND, pool_MD, target_ND, target_d, pools[d], *how)
        counts[d] = len(target_d)
    return Losses(torch.stack(sums), counts, (rows,))


def _pool(candidates: Negatives, domain: int, seed: int) -> Tensor:
    items = candidates.of_domain[domain]
    if len(items) <= candidates.full:
        return items
    generator = torch.Generator().manual_seed(seed + domain)
    return items[torch.randint(len(items), (candidates.negatives,), generator=generator)]


class FullSoftmax(Function):
    """Sum of -log softmax(scale · users · itemsᵀ) at each user's target; gradients are made in the same pass."""

    @staticmethod
    def forward(ctx, user_ND, item_MD, place_N, scale, bounded, precision) -> Tensor:
        users, items = (user_ND * scale).to(precision), item_MD.to(precision)
        of_user, of_item = torch.empty_like(user_ND), torch.zeros_like(item_MD)
        total = user_ND.new_zeros(())
        for at in _blocks(len(user_ND), items):
            weight, place = users[at] @ items.T, place_N[at, None]
            target = weight.gather(1, place).to(user_ND.dtype)
            top = _shift(weight, scale, bounded)
            mass = weight.sub_(top).exp_().sum(1, keepdim=True, dtype=user_ND.dtype)
            total += (mass.log() + top - target).sum()
            weight.mul_((1 / mass).to(precision)).scatter_add_(1, place, weight.new_full((len(weight), 1), -1.0))
            of_user[at] = weight @ items
            of_item += weight.T @ users[at]
        ctx.save_for_backward(of_user.mul_(scale), of_item)
        return total

    @staticmethod
    def backward(ctx, gradient):
        of_user, of_item = ctx.saved_tensors
        return of_user * gradient, of_item * gradient, None, None, None, None


class SampledSoftmax(Function):
    """The same over the target and shared negatives; a negative that is the target does not count."""

    @staticmethod
    def forward(ctx, user_ND, item_MD, target_ND, target_N, item_M, scale, bounded, precision) -> Tensor:
        users, items = (user_ND * scale).to(precision), item_MD.to(precision)
        of_user, of_item, of_target = torch.empty_like(user_ND), torch.zeros_like(item_MD), torch.empty_like(target_ND)
        total = user_ND.new_zeros(())
        hit_row, hit_place = _places(target_N, item_M)
        for at in _blocks(len(user_ND), items):
            weight, own = users[at] @ items.T, target_ND[at]
            hits = slice(*torch.searchsorted(hit_row, torch.tensor([at.start, at.stop])).tolist())
            target = scale * (user_ND[at] * own).sum(1, keepdim=True)
            top = _shift(weight, scale, bounded)
            top = top if bounded else torch.maximum(top, target)
            weight.sub_(top).exp_()[hit_row[hits] - at.start, hit_place[hits]] = 0.0
            of_own = (target - top).exp()
            mass = weight.sum(1, keepdim=True, dtype=user_ND.dtype) + of_own
            total += (mass.log() + top - target).sum()
            weight.mul_((1 / mass).to(precision))
            pull = of_own / mass - 1
            of_user[at] = weight @ items + pull * own
            of_item += weight.T @ users[at]
            of_target[at] = pull * scale * user_ND[at]
        ctx.save_for_backward(of_user.mul_(scale), of_item, of_target)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return *(part * gradient for part in ctx.saved_tensors), None, None, None, None, None


def _places(target_N: Tensor, item_M: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, ascending, and places of the targets that are among the items, each as often as it is there."""
    ordered, order = item_M.sort()
    first = torch.searchsorted(ordered, target_N)
    count = torch.searchsorted(ordered, target_N, right=True) - first
    row = torch.arange(len(target_N)).repeat_interleave(count)
    return row, order[torch.arange(len(row)) + (first - (count.cumsum(0) - count))[row]]


def _blocks(rows: int, items: Tensor) -> list[slice]:
    size = max(1, _BLOCK_BYTES // (items.element_size() * len(items)))
    return [slice(start, start + size) for start in range(0, rows, size)]


def _shift(logits: Tensor, scale: float, bounded: bool) -> Tensor | float:
    """What is taken from the logits before the exponential: their bound where they are cosines, else each row's maximum."""
    return scale if bounded else logits.max(1, keepdim=True).values.float()
