"""The next-item loss, against sums written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model.factories import catalogue, contexts, model
from torch.nn import functional as F

from metarec_spark.model import loss as loss_module
from metarec_spark.model.loss import FullSoftmax, Negatives, SampledSoftmax, next_item_losses

SEQUENCES = [[3, 8, 1, 12, 7], [2, 5], [0, 0, 4]]


def losses(made, sequences=SEQUENCES, negatives=100, seed=0, of=None, domains=None, precision=torch.float32):
    of_domain = [torch.from_numpy(items) for items in (of or catalogue()).of_domain]
    candidates = Negatives(of_domain, negatives, negatives, precision)
    return next_item_losses(made, contexts(sequences), candidates, torch.Generator().manual_seed(seed), domains)


def loss(made, *args, **how) -> torch.Tensor:
    return losses(made, *args, **how).sums.sum()


def user_vector(made, sequence: list[int], domain: int) -> torch.Tensor:
    return made.user_vectors(made.encode(contexts([sequence])), domain)[0].detach()


def by_hand(made, sequences=SEQUENCES, predicted=None) -> list[float]:
    """-Σ log softmax by domain, event by event, over the items of the target's domain, in float64."""
    total, vectors = [0.0, 0.0], made.catalogue_vectors().double().numpy()
    for number, sequence in enumerate(sequences):
        for place in range(1, len(sequence)):
            if predicted and not predicted[number][place]:
                continue
            target = sequence[place]
            user = user_vector(made, sequence[:place], target % 2).double().numpy()
            scale = made.scale if made.cosine else 1.0
            logits = {item: scale * user @ vectors[item] for item in range(20) if item % 2 == target % 2}
            total[target % 2] += np.log(sum(np.exp(value) for value in logits.values())) - logits[target]
    return total


@pytest.mark.parametrize("shape", [{"blocks": 2}, {"cosine": False}, {"adapter": 0}])
def test_the_full_softmax_is_the_cross_entropy_of_every_next_event(shape):
    found = losses(model(**shape))
    assert found.counts.tolist() == [4, 3]
    assert found.sums.tolist() == pytest.approx(by_hand(model(**shape)), rel=1e-5)
    assert found.mean.item() == pytest.approx(sum(by_hand(model(**shape))) / 7, rel=1e-5)


def test_context_is_read_and_not_predicted():
    made, plain = model(), contexts(SEQUENCES)
    is_context = torch.tensor([False, True, False, False, True, False, False, False, True, False])
    marked = replace(plain, event_type=torch.where(is_context, ~plain.event_type, plain.event_type))
    of_domain = [torch.from_numpy(items) for items in catalogue().of_domain]
    one = next_item_losses(made, marked, Negatives(of_domain, 100, 100, torch.float32), torch.Generator())
    assert one.counts.tolist() == [2, 2], "of seven, 8, 7 and one of the zeros are context"
    wanted = by_hand(made, predicted=[[False, False, True, True, False], [False, True], [False, False, True]])
    assert one.sums.tolist() == pytest.approx(wanted, rel=1e-5)


def test_blocks_of_events_do_not_change_the_loss(monkeypatch):
    monkeypatch.setattr(loss_module, "_BLOCK_BYTES", 80)  # two events of ten items
    assert losses(model()).sums.tolist() == pytest.approx(by_hand(model()), rel=1e-5)


def test_domains_do_not_mix():
    made = model()
    only_even = [[2, 4, 8], [0, 6]]
    before = loss(made, only_even).item()
    with torch.no_grad():
        made.item.weight[1::2] += 3.0
    assert loss(made, only_even).item() == before
    assert loss(made, [[2, 5]]).item() != pytest.approx(loss(model(), [[2, 5]]).item())


def test_a_domain_that_is_not_learnt_is_context_and_no_target():
    found = losses(model(), domains=[1])
    assert found.counts.tolist() == [0, 3]
    assert found.sums.tolist() == pytest.approx([0, by_hand(model())[1]], rel=1e-5)


def sample(items: list[int], size: int, seed: int) -> list[int]:
    """What the loss draws from the first domain, of ``items``, with this seed."""
    of_domain = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed)))
    return [items[at] for at in torch.randint(len(items), (size,), generator=torch.Generator().manual_seed(of_domain)).tolist()]


def of_last(made, sequence: list[int], items: list[int]) -> float:
    """-log softmax of the last event of a sequence, over ``items``."""
    logits = made.scale * user_vector(made, sequence[:-1], sequence[-1] % 2) @ made.catalogue_vectors()[torch.tensor(items)].T
    return (torch.logsumexp(logits, 0) - logits[items.index(sequence[-1])]).item()


def test_a_sample_of_all_other_items_gives_the_full_softmax():
    of = catalogue(items=8)
    made = model(of)
    seed = next(seed for seed in range(1000) if sorted(sample([0, 2, 4, 6], 3, seed)) == [0, 2, 6])
    sampled = loss(made, [[3, 4]], negatives=3, seed=seed, of=of)
    assert sampled.item() == pytest.approx(loss(made, [[3, 4]], negatives=4, of=of).item(), rel=1e-5)


def test_an_accidental_hit_is_masked_out():
    of = catalogue(items=8)
    made = model(of)
    seed = next(seed for seed in range(1000) if sorted(sample([0, 2, 4, 6], 3, seed)) == [0, 4, 6])
    sampled = loss(made, [[3, 4]], negatives=3, seed=seed, of=of)
    assert sampled.item() == pytest.approx(of_last(made, [3, 4], [0, 4, 6]), rel=1e-5)


def test_ranks_draw_the_same_items_whichever_domains_their_events_are_of():
    of = catalogue(items=400)

    def touched(sequences) -> set[int]:
        found = losses(model(of), sequences, negatives=20, seed=7, of=of)
        found.sums.sum().backward()
        return set(found.touched()["item.weight"][0].tolist())

    odd = touched([[1, 3]])
    assert odd - {1, 3} == {item for item in touched([[2, 4], [1, 5]]) if item % 2} - {1, 5}
    assert len(odd) > 15


def tensors(bounded: bool, items: int = 30, users: int = 12) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(1)
    made = [torch.randn(n, 6, generator=random, dtype=torch.float64) for n in (users, items, users)]
    made = [F.normalize(part, dim=-1) if bounded else part for part in made]
    return *(part.requires_grad_() for part in made), torch.randint(items, (users,), generator=random)


@pytest.mark.parametrize("block", [1, 2**20])
@pytest.mark.parametrize("bounded", [True, False])
def test_fused_gradients_are_autograds(bounded, block, monkeypatch):
    monkeypatch.setattr(loss_module, "_BLOCK_BYTES", block)
    user, item, own, target = tensors(bounded)
    scale = 16.0 if bounded else 1.0
    expected = F.cross_entropy(scale * user @ item.T, target, reduction="sum")
    wanted = torch.autograd.grad(2 * expected, (user, item))
    found = FullSoftmax.apply(user, item, target, scale, bounded, torch.float64)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(2 * found, (user, item)), wanted)

    drawn = torch.cat([torch.arange(20).flip(0), torch.arange(10)])  # some items twice, some targets not at all
    logits = torch.cat(
        [
            scale * (user * own).sum(1, keepdim=True),
            (scale * user @ item.T).masked_fill(target[:, None] == drawn, -torch.inf),
        ],
        1,
    )
    expected = F.cross_entropy(logits, torch.zeros_like(target), reduction="sum")
    wanted = torch.autograd.grad(2 * expected, (user, item, own))
    found = SampledSoftmax.apply(user, item, own, target, drawn, scale, bounded, torch.float64)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(2 * found, (user, item, own)), wanted)


def test_bfloat16_is_the_same_within_its_precision():
    user, item, _, target = (part.float() if part.is_floating_point() else part for part in tensors(True))
    exact = FullSoftmax.apply(user, item, target, 16.0, True, torch.float32)
    torch.testing.assert_close(FullSoftmax.apply(user, item, target, 16.0, True, torch.bfloat16), exact, rtol=2e-2, atol=0)


@pytest.mark.parametrize("more", [{}, {"state": "recurrent", "generator": 3}])
def test_gradients_are_those_of_finite_differences(more):
    made = model(blocks=2, **more).double()
    if made.generator_out is not None:
        torch.nn.init.normal_(made.generator_out)
    torch.nn.init.normal_(made.adapter_out)
    found = losses(made, precision=torch.float64)
    found.sums.sum().backward()
    gradients = {name: parameter.grad for name, parameter in made.named_parameters() if name not in made.tables}
    for name, (rows, gradient) in found.touched().items():
        gradients[name] = torch.zeros_like(made.tables[name]).index_add_(0, rows, gradient)
    for name, parameter in made.named_parameters():
        at = gradients[name].abs().flatten().argmax()
        expected = gradients[name].flatten()[at].item()
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.view(-1)[at] += step
                values.append(loss(made, precision=torch.float64).item())
                parameter.view(-1)[at] -= step
        assert expected == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-7), name


def test_sequences_without_a_target_have_no_loss_and_no_gradient():
    made = model()
    for sequences in ([[2, 4, 8]], []):
        found = losses(made, sequences, domains=[1])
        found.sums.sum().backward()
        assert (found.sums.tolist(), found.counts.tolist(), found.mean.item()) == ([0, 0], [0, 0], 0)
        assert not any(gradient.any() for _, gradient in found.touched().values())
