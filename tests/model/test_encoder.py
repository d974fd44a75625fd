"""The model's states and vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.factories import catalogue, contexts, model

from metarec_spark.model.encoder import Dropout, PaddedLayout, RecurrentBlock, TouchedRows
from metarec_spark.model.packed import PackedSequences

SEQUENCE = [3, 8, 1, 12, 7]


def states(made, given: PackedSequences) -> torch.Tensor:
    rows = TouchedRows(made, given.item.unique())
    return made.hidden(given, rows.vectors(given.item))


def users(made, sequences, domain: int) -> torch.Tensor:
    return made.user_vectors(made.encode(contexts(sequences)), domain)


@pytest.mark.parametrize("state", ["attention", "recurrent"])
@pytest.mark.parametrize("field", ["item", "domain", "event_type", "gap"])
def test_a_later_event_does_not_change_earlier_states(field, state):
    given = contexts([SEQUENCE])
    changed = {name: getattr(given, name).clone() for name in ("item", "domain", "event_type", "gap")}
    changed[field][3] = 1 - changed[field][3].clamp(max=1)
    before, after = (
        states(model(blocks=2, heads=2, state=state), c) for c in (given, PackedSequences(**changed, length=given.length))
    )
    torch.testing.assert_close(before[:3], after[:3], rtol=0, atol=0)
    assert not torch.allclose(before[3], after[3])
    assert not torch.allclose(before[4], after[4])


@pytest.mark.parametrize("state", ["attention", "recurrent"])
def test_a_sequences_state_does_not_depend_on_the_others_in_the_pack(state):
    made, sequences = model(blocks=2, state=state), [[2], SEQUENCE, [4, 5, 6]]
    together = made.encode(contexts(sequences))
    torch.testing.assert_close(together, torch.cat([made.encode(contexts([one])) for one in sequences]))


def test_the_state_after_the_last_event_is_the_encoding():
    made, given = model(blocks=2), contexts([[2], SEQUENCE])
    torch.testing.assert_close(made.encode(given), states(made, given)[[0, 5]])


@pytest.mark.parametrize(("state", "heads"), [("attention", 1), ("attention", 2), ("recurrent", 1)])
@pytest.mark.parametrize("newest", [[0, 5, 8], [0, 3, 6]], ids=["last", "earlier"])
def test_the_state_after_one_event_of_each_sequence_is_that_among_all(state, heads, newest):
    made, given = model(blocks=2, heads=heads, state=state), contexts([[2], SEQUENCE, [4, 5, 6]])
    vectors = TouchedRows(made, given.item.unique()).vectors(given.item)
    torch.testing.assert_close(made.hidden(given, vectors, torch.tensor(newest)), made.hidden(given, vectors)[newest])


def test_the_recurrent_rule_is_a_gated_recurrent_unit():
    block, of = RecurrentBlock(8, 1, 0.0), torch.nn.GRU(8, 8, batch_first=True)
    of.load_state_dict({f"{name}_l0": value for name, value in block.rule.state_dict().items()})
    x_ND, lengths = torch.randn(9, 8), [3, 1, 5]
    expected = torch.cat([of(part[None])[0][0] for part in x_ND.split(lengths)])
    torch.testing.assert_close(block.mixed(x_ND, PaddedLayout.from_lengths(torch.tensor(lengths))), expected)
    assert block.mixed(x_ND[:0], PaddedLayout.from_lengths(torch.tensor([], dtype=torch.int64))).shape == (0, 8)


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
    other = PackedSequences(given.item, given.domain, given.event_type, given.gap + 1, given.length)
    torch.testing.assert_close(states(model(time_gaps=False), given), states(model(time_gaps=False), other))
    assert not torch.allclose(states(model(), given), states(model(), other))


def test_items_with_the_same_tokens_share_their_content():
    made = model(catalogue(tokens=[(1, 5, 0.5), (2, 5, 0.5), (3, 5, 1.0)]))
    content = TouchedRows(made, torch.arange(1, 5)).vectors_RD - made.item.weight[1:5]
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
    rows = TouchedRows(made, torch.tensor([2, 5]))
    rows.vectors_RD.pow(2).sum().backward()
    touched = rows.touched()
    items, of_item = touched["item.weight"]
    assert items.tolist() == [2, 5]
    torch.testing.assert_close(of_item, 2 * rows.vectors_RD.detach())
    places, of_token = touched["token.weight"]
    used = {int(t) for t in made.tokens_IA[[2, 5]].unique() if t}
    assert {int(place) for place, g in zip(places, of_token, strict=True) if g.abs().sum() > 0} == used
    assert set(places.tolist()) - {0} == used


NO_TOKENS = {"tokens": []}


def given(items: int = 20, width: int = 3) -> np.ndarray:
    """Given vectors; items 5 … 9 have none."""
    vectors = np.random.default_rng(0).standard_normal((items, width))
    vectors[5:10] = 0
    return vectors


def test_given_vectors_are_projected_alike_in_all_domains():
    vectors = given()
    vectors[2] = 2 * vectors[1]  # of another domain
    made = model(catalogue(**NO_TOKENS, vectors=vectors))
    content = TouchedRows(made, torch.arange(1, 7)).vectors_RD - made.item.weight[1:7]
    torch.testing.assert_close(content[:4], torch.from_numpy(vectors[1:5]).float() @ made.projection)
    torch.testing.assert_close(content[1], 2 * content[0])
    assert content[4:].tolist() == [[0.0] * 8] * 2
    assert model(catalogue()).projection is None


def test_the_projection_learns_from_the_touched_items_alone():
    vectors = given()
    made = model(catalogue(vectors=vectors))
    rows = TouchedRows(made, torch.tensor([2, 5]))
    rows.vectors_RD.sum().backward()
    torch.testing.assert_close(made.projection.grad, torch.from_numpy(vectors[[2]]).float().T.expand(3, 8))


def test_a_generator_starts_at_the_content_and_learns_from_items_that_have_some():
    of = catalogue(tokens=[(1, 5, 0.5), (2, 5, 0.5)])
    made = model(of, generator=6)
    torch.testing.assert_close(TouchedRows(made, torch.arange(20)).vectors_RD, plain_vectors(made))
    torch.nn.init.normal_(made.generator_out)
    rows = TouchedRows(made, torch.arange(20))
    moved = (rows.vectors_RD - plain_vectors(made)).abs().sum(1)
    assert moved.detach().nonzero().flatten().tolist() == [1, 2]
    rows.vectors_RD.sum().backward()
    assert made.generator_in.grad.abs().sum() > 0 and made.generator_out.grad.abs().sum() > 0


def plain_vectors(made) -> torch.Tensor:
    """Id embeddings, but for the item without an event, and the sum of tokens."""
    ids = torch.cat([torch.zeros(1, 8) if made.has_content_I[0] else made.item.weight[:1], made.item.weight[1:]])
    return ids + (made.weights_IA[..., None] * made.token(made.tokens_IA)).sum(1)


def test_id_dropout_leaves_the_ids_of_some_items_with_content_out_of_a_step():
    made = model(catalogue(items=4000, **NO_TOKENS, vectors=given(4000)), id_dropout=0.25).train()
    torch.manual_seed(0)
    rows = TouchedRows(made, torch.arange(4000))
    own = (rows.vectors_RD - made.given_IW @ made.projection).abs().sum(1) > 1e-3
    assert own[5:10].all()
    assert own.float().mean().item() == pytest.approx(0.75, abs=0.02)
    rows.vectors_RD.sum().backward()
    assert torch.equal(rows.item_RD.grad.abs().sum(1) > 0, own)
    assert not torch.equal(made.content_alone(torch.arange(4000)), ~own), "each step draws anew"


def test_without_id_dropout_nothing_is_drawn():
    made = model(catalogue()).train()
    before = torch.get_rng_state()
    torch.testing.assert_close(TouchedRows(made, torch.arange(20)).item_RD, made.item.weight.detach())
    assert not made.content_alone(torch.arange(20)).any()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("content", [{"tokens": [(0, 5, 1.0), (1, 5, 1.0)]}, {**NO_TOKENS, "vectors": given()}])
def test_an_item_that_was_never_trained_is_its_content_alone(content):
    made = model(catalogue(**content))  # item 0 has no event
    of_content = (made.weights_IA[..., None] * made.token(made.tokens_IA)).sum(1)
    of_content = of_content if made.projection is None else made.given_IW @ made.projection
    expected = torch.cat([of_content[:1], of_content[1:] + made.item.weight[1:]])
    torch.testing.assert_close(made.catalogue_vectors(), made.normalized(expected))
    bare = model(catalogue(**NO_TOKENS))
    torch.testing.assert_close(bare.catalogue_vectors(), bare.normalized(bare.item.weight))


def test_dropout_keeps_a_share_and_the_mean():
    torch.manual_seed(0)
    dropped = Dropout(0.4)(torch.ones(1000, 100))
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(Dropout(0.4).eval()(torch.ones(3)), torch.ones(3))


def test_two_threads_add_the_gradients_of_an_item_in_one_order():
    rows, threads = TouchedRows(model(catalogue(items=500), dim=128), torch.arange(500)), torch.get_num_threads()
    asked, weights = torch.randint(500, (5000,), generator=torch.Generator().manual_seed(0)), torch.randn(5000, 128)
    torch.set_num_threads(2)
    try:
        found = [
            torch.autograd.grad((rows.vectors(asked) * weights).sum(), rows.item_RD, retain_graph=True)[0] for _ in range(30)
        ]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)
