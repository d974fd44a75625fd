"""The model's states and vectors."""

from __future__ import annotations

import pytest
import torch
from model.factories import catalogue, contexts, model

from metarec_spark.model.transformer import Contexts

SEQUENCE = [3, 8, 1, 12, 7]


@pytest.mark.parametrize("field", ["item", "domain", "event_type", "gap"])
def test_a_later_event_does_not_change_earlier_states(field):
    given = contexts([SEQUENCE])
    changed = {name: getattr(given, name).clone() for name in ("item", "domain", "event_type", "gap")}
    changed[field][0, 3] = 1 - changed[field][0, 3].clamp(max=1)
    states, others = (model(blocks=2, heads=2).hidden(c)[0] for c in (given, Contexts(**changed, length=given.length)))
    torch.testing.assert_close(states[:3], others[:3], rtol=0, atol=0)
    assert not torch.allclose(states[3], others[3])
    assert not torch.allclose(states[4], others[4])


def test_padding_does_not_change_a_sequences_vector():
    made, domain = model(blocks=2), torch.tensor([1])
    torch.testing.assert_close(made.encode(contexts([SEQUENCE], width=6), domain), made.encode(contexts([SEQUENCE]), domain))


def test_what_stands_in_the_padding_does_not_matter():
    made, given = model(blocks=2), contexts([SEQUENCE], width=6)
    other = Contexts(given.item.clone(), given.domain, given.event_type, given.gap, given.length)
    other.item[0, 5] = 9
    torch.testing.assert_close(made.encode(given, torch.tensor([0])), made.encode(other, torch.tensor([0])), rtol=0, atol=0)


def test_a_sequences_vector_does_not_depend_on_the_others_in_the_batch():
    made, sequences = model(blocks=2), [[2], SEQUENCE, [4, 5, 6]]
    together = made.encode(contexts(sequences), torch.tensor([0, 1, 0]))
    alone = [made.encode(contexts([one]), torch.tensor([d])) for one, d in zip(sequences, (0, 1, 0), strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_user_and_catalogue_vectors_have_length_one():
    made = model()
    users = made.encode(contexts([SEQUENCE, [2]]), torch.tensor([0, 1]))
    for vectors in (users, made.catalogue_vectors(block=7)):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_the_domains_query_turns_the_users_vector():
    made = model()
    torch.nn.init.normal_(made.query.weight)
    user = contexts([SEQUENCE])
    assert not torch.allclose(made.encode(user, torch.tensor([0])), made.encode(user, torch.tensor([1])))


def test_items_with_the_same_tokens_share_their_content():
    made = model(catalogue(tokens=[(0, 5, 0.5), (1, 5, 0.5), (2, 5, 1.0)]))
    content = made.item_vectors(torch.arange(4)) - made.item.weight[:4]
    torch.testing.assert_close(content[0], content[1])
    torch.testing.assert_close(content[2], 2 * content[0])
    assert content[0].abs().sum() > 0
    assert content[3].tolist() == [0.0] * 8


def test_a_gradient_reaches_the_token_but_not_the_padding():
    made = model(catalogue(tokens=[(0, 5, 0.5), (1, 5, 0.5)]))
    made.item_vectors(torch.arange(4)).pow(2).sum().backward()
    assert made.token.weight.grad[1].abs().sum() > 0
    assert made.token.weight.grad[0].abs().sum() == 0
