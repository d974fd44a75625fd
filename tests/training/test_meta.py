"""Meta-training's inner loop and outer gradients, against copied models that are trained by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from model.factories import catalogue, contexts, model
from training.factories import settings

from metarec_spark.model.loss import Negatives, next_item_losses
from metarec_spark.training.batches import Episode
from metarec_spark.training.meta import adapted, step_losses

# Users of domain 0, three events of which are asked in each half; events of domain 1 are context.
SUPPORT, QUERY = [[3, 8, 2], [1, 4]], [[7, 12, 2], [10, 14]]
RATE = 0.02


def episode(support=SUPPORT, query=QUERY) -> Episode:
    return Episode(0, contexts(support), contexts(query))


def meta_model():
    """A model no part of which is zero: an adapter that is passes no gradient on."""
    made = model(blocks=2)
    torch.nn.init.normal_(made.adapter_out)
    return made


def losses(made, batch, domains=(0, 1), **fields):
    """Of a step, by the full softmax."""
    candidates = Negatives([torch.from_numpy(items) for items in catalogue().of_domain], 100, 100, torch.float32)
    how = settings(**({"inner_rate": RATE, "inner_steps": 2} | fields))
    return step_losses(made, batch, candidates, torch.Generator(), list(domains), how)


def of_task(made, sequences):
    """Losses of the events of domain 0, at the model's own parameters."""
    return losses(made, contexts(sequences), domains=[0])


def gradients(made, found) -> dict[str, torch.Tensor]:
    """Of the sum of losses: for each parameter of the network, and for each table as a whole."""
    for parameter in made.parameters():
        parameter.grad = None
    found.sums.sum().backward()
    tables = {name: torch.zeros_like(table) for name, table in made.tables.items()}
    for name, (rows, gradient) in found.touched().items():
        assert rows.tolist() == sorted(set(rows.tolist()))
        tables[name][rows] = gradient
    return {
        name: value.grad if value.grad is not None else torch.zeros_like(value) for name, value in made.network.items()
    } | tables


def trained(made, *parts):
    """A copy, after a step of plain SGD on the mean loss of each part in turn."""
    made = copy.deepcopy(made)
    sgd = torch.optim.SGD(made.network.values(), lr=RATE)
    for part in parts:
        sgd.zero_grad()
        of_task(made, part).mean.backward()
        sgd.step()
    return made


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], msg=lambda said, name=name: f"{name}: {said}", rtol=1e-4, atol=1e-4)


def test_the_inner_loop_is_gradient_descent_on_a_copy_of_the_network():
    made = meta_model()
    before = copy.deepcopy(made.state_dict())

    def at(parameters, support):
        return torch.func.functional_call(Task(made), {f"made.{name}": value for name, value in parameters.items()}, support)

    found = adapted(at, made.network, SUPPORT, RATE, steps=3)
    assert_close(found, trained(made, SUPPORT, SUPPORT, SUPPORT).network)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert not any((found[name] == before[name]).all() for name in found)
    assert not found.keys() & made.tables.keys(), "an inner step costs nothing that grows with the catalogue"


class Task(torch.nn.Module):
    """The task's losses as a module."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, sequences):
        return of_task(self.made, sequences)


def test_an_inner_step_lowers_the_loss_of_the_support():
    made = model()
    values = [of_task(trained(made, *[SUPPORT] * steps), SUPPORT).mean.item() for steps in range(4)]
    assert values == sorted(values, reverse=True)
    after = losses(made, episode(SUPPORT, SUPPORT), method="fomaml", inner_steps=3)
    assert after.mean.item() == pytest.approx(values[3], rel=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_fomaml_follows_the_gradient_of_the_query_at_a_copy_adapted_to_the_support(steps):
    made = meta_model()
    found = losses(made, episode(), method="fomaml", inner_steps=steps)
    copied = trained(made, *[SUPPORT] * steps)
    expected = of_task(copied, QUERY)
    assert (found.sums.tolist(), found.counts.tolist()) == (pytest.approx(expected.sums.tolist(), rel=1e-4), [3, 0])
    assert_close(gradients(made, found), gradients(copied, expected))


def test_reptile_with_one_inner_step_is_joint_training_on_the_support():
    made = meta_model()
    found = losses(made, episode(), method="reptile", inner_steps=1)
    expected = of_task(made, SUPPORT)
    assert torch.equal(found.sums, expected.sums)
    assert_close(gradients(made, found), gradients(made, expected))


@pytest.mark.parametrize("steps", [2, 3])
def test_reptile_follows_the_way_from_the_adapted_parameters_back(steps):
    made = meta_model()
    parts = [SUPPORT, QUERY, SUPPORT][:steps]
    found = gradients(made, losses(made, episode(), method="reptile", inner_steps=steps))
    after = trained(made, *parts).network
    events = 3  # that are asked in each part
    way = {name: events * (value - after[name]) / RATE for name, value in made.network.items()}
    assert_close({name: found[name] for name in way}, way)

    copies = [trained(made, *parts[:done]) for done in range(steps)]
    along = [gradients(copied, of_task(copied, part)) for copied, part in zip(copies, parts, strict=True)]
    assert_close(found, {name: sum(part[name] for part in along) for name in found})


@pytest.mark.parametrize(("method", "parts"), [("reptile", [SUPPORT, QUERY]), ("fomaml", [QUERY])])
def test_gradients_reach_every_meta_parameter_and_every_touched_row(method, parts):
    made = meta_model()
    found = losses(made, episode(), method=method)
    reached = gradients(made, found)
    assert not [name for name, gradient in reached.items() if not gradient.any()]
    in_parts = {item for part in parts for sequence in part for item in sequence}
    # Of the even items, which are the candidates, 0 has no training event: out of training, its content stands for it.
    assert set(reached["item.weight"].any(1).nonzero().flatten().tolist()) == in_parts | set(range(2, 20, 2))
    assert reached["token.weight"].any(1).tolist() == [False, True, True, True], "the first is padding"


@pytest.mark.parametrize("method", ["reptile", "fomaml"])
def test_only_events_of_the_episodes_domain_are_asked_and_none_where_it_is_no_longer_learnt(method):
    made, both = meta_model(), episode([[3, 8, 1]], [[2, 5, 4]])
    assert losses(made, both, method=method).counts.tolist() == [1 if method == "fomaml" else 2, 0]
    found = losses(made, both, domains=[1], method=method)
    assert (found.counts.tolist(), found.mean.item()) == ([0, 0], 0)
    assert not any(gradient.any() for gradient in gradients(made, found).values())


def test_an_empty_half_adapts_nothing_and_asks_nothing():
    made = meta_model()
    found = losses(made, episode(support=[]), method="fomaml")
    assert_close(gradients(made, found), gradients(made, of_task(made, QUERY)))
    found = losses(made, episode(query=[]), method="fomaml")
    assert not any(gradient.any() for gradient in gradients(made, found).values())
    found = losses(made, episode(query=[]), method="reptile")
    assert_close(gradients(made, found), gradients(made, of_task(made, SUPPORT)))


def test_joint_training_learns_from_all_events_at_once():
    made, batch = meta_model(), contexts(SUPPORT + QUERY)
    candidates = Negatives([torch.from_numpy(items) for items in catalogue().of_domain], 100, 100, torch.float32)
    expected = next_item_losses(made, batch, candidates, torch.Generator(), [0, 1])
    assert torch.equal(losses(made, batch).sums, expected.sums)
