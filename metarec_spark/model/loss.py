"""The next-item loss: softmax over the domain's catalogue, or over the target and shared uniform negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metarec_spark.model.transformer import Contexts, NextItemModel


def next_item_loss(
    model: NextItemModel, contexts: Contexts, of_domain: list[Tensor], negatives: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Sum of the cross-entropies of each next event, and the number of them.

    The target's own domain is its catalogue. It is used whole where it has at most ``negatives`` items; otherwise the softmax
    runs over the target and ``negatives`` items drawn uniformly from it, shared by all events of the step, those equal to the
    target masked out.

    Parameters
    ----------
    contexts
        Sequences of which every event but the first is a target.
    of_domain
        For each domain, the indexes of its items, int64.
    negatives
        Size of the shared sample.
    generator
        Source of the sample.

    Notes
    -----
    Uniform sampling needs no logQ correction: it would add the same constant to every negative (Bengio & Senécal, 2008).
    """
    L = contexts.item.shape[1]
    inputs = Contexts(
        *(part[:, :-1] for part in (contexts.item, contexts.domain, contexts.event_type, contexts.gap)), contexts.length - 1
    )
    counts_BL = torch.arange(L - 1) < inputs.length[:, None]
    hidden_ND = model.hidden(inputs)[counts_BL]
    target_N, domain_N = contexts.item[:, 1:][counts_BL], contexts.domain[:, 1:][counts_BL]
    user_ND = model.user_vectors(hidden_ND, domain_N)
    total = user_ND.new_zeros(())
    for domain in domain_N.unique().tolist():
        of = domain_N == domain
        total = total + _cross_entropy(model, user_ND[of], target_N[of], of_domain[domain], negatives, generator)
    return total, len(target_N)


def _cross_entropy(
    model: NextItemModel, user_ND: Tensor, target_N: Tensor, items: Tensor, negatives: int, generator: torch.Generator
) -> Tensor:
    if len(items) <= negatives:
        logits = model.scale * user_ND @ F.normalize(model.item_vectors(items), dim=-1).T
        return F.cross_entropy(logits, torch.searchsorted(items, target_N), reduction="sum")
    sampled = items[torch.randint(len(items), (negatives,), generator=generator)]
    vectors = F.normalize(model.item_vectors(torch.cat([target_N, sampled])), dim=-1)
    target_ND, sampled_ND = vectors[: len(target_N)], vectors[len(target_N) :]
    of_target = model.scale * (user_ND * target_ND).sum(-1, keepdim=True)
    of_sampled = (model.scale * user_ND @ sampled_ND.T).masked_fill(target_N[:, None] == sampled, float("-inf"))
    logits = torch.cat([of_target, of_sampled], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(target_N), reduction="sum")
