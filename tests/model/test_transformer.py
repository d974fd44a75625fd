"""The model's states and vectors."""

from __future__ import annotations

import pytest
import torch
from model.factories import catalogue, contexts, model

from metarec_spark.model.transformer import Contexts, Rows

SEQUENCE = [3, 8, 1, 12, 7]


def states(made, given: Contexts) -> torch.Tensor:
    rows = Rows(made, given.item.unique())
    return made.hidden(given, rows.vectors_RD[rows.at(given.item)])


def users(made, sequences, domain: int) -> torch.Tensor:
    return made.user_vectors(made.encode(contexts(sequences)), domain)


@pytest.mark.parametrize("field", ["item", "domain", "event_type", "gap"])
def test_a_later_event_does_not_change_earlier_states(field):
    given = contexts([SEQUENCE])
    changed = {name: getattr(given, name).clone() for name in ("item", "domain", "event_type", "gap")}
    changed[field][3] = 1 - changed[field][3].clamp(max=1)
    before, after = (states(model(blocks=2, heads=2), c) for c in (given, Contexts(**changed, length=given.length)))
    torch.testing.assert_close(before[:3], after[:3], rtol=0, atol=0)
    assert not torch.allclose(before[3], after[3])
    assert not torch.allclose(before[4], after[4])


def test_a_sequences_state_does_not_depend_on_the_others_in_the_pack():
    made, sequences = model(blocks=2), [[2], SEQUENCE, [4, 5, 6]]
    together = made.encode(contexts(sequences))
    torch.testing.assert_close(together, torch.cat([made.encode(contexts([one])) for one in sequences]))


def test_the_state_after_the_last_event_is_the_encoding():
    made, given = model(blocks=2), contexts([[2], SEQUENCE])
    torch.testing.assert_close(made.encode(given), states(made, given)[[0, 5]])


def test_packed_sequences_are_taken_out_whole_and_in_the_order_asked_for():
    given = contexts([[2], SEQUENCE, [], [4, 5, 6]], width=6)
    taken = given.take(torch.tensor([3, 2, 1]))
    assert taken.length.tolist() == [3, 0, 5]
    assert taken.item.tolist() == [4, 5, 6, *SEQUENCE]
    assert taken.position.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert taken.gap.tolist() == taken.position.tolist()


def test_user_and_catalogue_vectors_have_length_one_where_scores_are_cosines():
    made = model()
    for vectors in (users(made, [SEQUENCE, [2]], 1), made.catalogue_vectors(block=7)):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert model(cosine=False).catalogue_vectors().norm(dim=1).std() > 0.01


def test_a_domains_query_and_adapter_turn_the_users_vector():
    made = model()
    torch.testing.assert_close(users(made, [SEQUENCE], 0), users(made, [SEQUENCE], 1))
    for parameter in (made.query.weight, made.adapter_out):
        with torch.no_grad():
            torch.nn.init.normal_(parameter[1])
        assert not torch.allclose(users(made, [SEQUENCE], 0), users(made, [SEQUENCE], 1))
        with torch.no_grad():
            parameter[1] = 0
    assert torch.isfinite(users(model(adapter=0), [SEQUENCE], 0)).all()


def test_time_gaps_can_be_left_out():
    given = contexts([SEQUENCE])
    other = Contexts(given.item, given.domain, given.event_type, given.gap + 1, given.length)
    torch.testing.assert_close(states(model(time_gaps=False), given), states(model(time_gaps=False), other))
    assert not torch.allclose(states(model(), given), states(model(), other))


def test_items_with_the_same_tokens_share_their_content():
    made = model(catalogue(tokens=[(0, 5, 0.5), (1, 5, 0.5), (2, 5, 1.0)]))
    content = Rows(made, torch.arange(4)).vectors_RD - made.item.weight[:4]
    torch.testing.assert_close(content[0], content[1])
    torch.testing.assert_close(content[2], 2 * content[0])
    assert content[0].abs().sum() > 0
    assert content[3].tolist() == [0.0] * 8


@pytest.mark.parametrize("tokens", [3, 40])
def test_gradients_reach_the_touched_rows_and_no_others(tokens):
    # 40 tokens are more than four items have places for: then only theirs are looked up.
    made = model(
        catalogue(
            tokens=[(item, 100 + item % tokens, 1.0) for item in range(20)]
            + [(item, 100 + t, 0.1) for item in (18, 19) for t in range(tokens)]
        )
    )
    rows = Rows(made, torch.tensor([2, 5]))
    rows.vectors_RD.pow(2).sum().backward()
    touched = rows.touched()
    items, of_item = touched["item.weight"]
    assert items.tolist() == [2, 5]
    torch.testing.assert_close(of_item, 2 * rows.vectors_RD.detach())
    places, of_token = touched["token.weight"]
    used = {int(t) for t in made.tokens_IA[[2, 5]].unique() if t}
    assert {int(place) for place, g in zip(places, of_token, strict=True) if g.abs().sum() > 0} == used
