"""The next-item loss, against sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.factories import catalogue, contexts, model

from metarec_spark.model.loss import next_item_loss

SEQUENCES = [[3, 8, 1, 12, 7], [2, 5], [0, 0, 4]]


def loss(made, sequences=SEQUENCES, negatives=100, seed=0, of=None):
    of_domain = [torch.from_numpy(items) for items in (of or catalogue()).of_domain]
    return next_item_loss(made, contexts(sequences), of_domain, negatives, torch.Generator().manual_seed(seed))


def by_hand(made, sequences=SEQUENCES) -> float:
    """-Σ log softmax, event by event, over the items of the target's domain, in float64."""
    total, vectors = 0.0, made.catalogue_vectors().double().numpy()
    for sequence in sequences:
        for place in range(1, len(sequence)):
            target = sequence[place]
            user = made.encode(contexts([sequence[:place]]), torch.tensor([target % 2]))[0].detach().double().numpy()
            logits = {item: made.scale * user @ vectors[item] for item in range(20) if item % 2 == target % 2}
            total += np.log(sum(np.exp(value) for value in logits.values())) - logits[target]
    return total


def test_the_full_softmax_is_the_cross_entropy_of_every_next_event():
    made = model(blocks=2)
    total, targets = loss(made)
    assert targets == 7
    assert total.item() == pytest.approx(by_hand(made), rel=1e-5)


def test_domains_do_not_mix():
    made = model()
    only_even = [[2, 4, 8], [0, 6]]
    before = loss(made, only_even)[0].item()
    with torch.no_grad():
        made.item.weight[1::2] += 3.0
    assert loss(made, only_even)[0].item() == before
    assert loss(made, [[2, 5]])[0].item() != pytest.approx(loss(model(), [[2, 5]])[0].item())


def sample(items: list[int], size: int, seed: int) -> list[int]:
    """What the loss draws from a domain of ``items`` with this seed."""
    return [items[at] for at in torch.randint(len(items), (size,), generator=torch.Generator().manual_seed(seed)).tolist()]


def of_last(made, sequence: list[int], items: list[int]) -> float:
    """-log softmax of the last event of a sequence, over ``items``."""
    user = made.encode(contexts([sequence[:-1]]), torch.tensor([sequence[-1] % 2]))[0]
    logits = made.scale * user @ made.catalogue_vectors()[torch.tensor(items)].T
    return (torch.logsumexp(logits, 0) - logits[items.index(sequence[-1])]).item()


def test_a_sample_of_all_other_items_gives_the_full_softmax():
    of = catalogue(items=8)
    made = model(of)
    seed = next(seed for seed in range(1000) if sorted(sample([0, 2, 4, 6], 3, seed)) == [0, 2, 6])
    sampled, _ = loss(made, [[3, 4]], negatives=3, seed=seed, of=of)
    full, _ = loss(made, [[3, 4]], negatives=4, of=of)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-5)


def test_an_accidental_hit_is_masked_out():
    of = catalogue(items=8)
    made = model(of)
    seed = next(seed for seed in range(1000) if sorted(sample([0, 2, 4, 6], 3, seed)) == [0, 4, 6])
    sampled, _ = loss(made, [[3, 4]], negatives=3, seed=seed, of=of)
    assert sampled.item() == pytest.approx(of_last(made, [3, 4], [0, 4, 6]), rel=1e-5)


def test_gradients_are_those_of_finite_differences():
    made = model(blocks=2).double()
    loss(made)[0].backward()
    for name, parameter in made.named_parameters():
        at = parameter.grad.abs().flatten().argmax()
        expected = parameter.grad.flatten()[at].item()
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.view(-1)[at] += step
                values.append(loss(made)[0].item())
                parameter.view(-1)[at] -= step
        assert expected == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-7), name
