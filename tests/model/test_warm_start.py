"""What is taken over from a model, and by what it is matched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model.factories import MANIFEST, SHAPE, SMALL, catalogue, saved

from metarec_spark.config.sections import Model
from metarec_spark.model import artifact
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.warm_start import warm_start

# The new model's names are in another order, and there are more of them, and more items.
NEW = MANIFEST.model_copy(update={"domains": ["films", "songs", "books"], "event_types": ["play", "view"], "items": 24})


@pytest.fixture(params=[True, False])
def pair(tmp_path, request):
    """A base model with every parameter at random, which has events of films or not, and a model that has taken it over."""
    items = catalogue()
    items = replace(items, events=items.events * (request.param | (items.domain == 0)))
    base = artifact.load(saved(tmp_path, items, generator=3))
    for value in base.model.state_dict().values():
        torch.nn.init.normal_(value) if value.is_floating_point() else None
    of = catalogue(items=24, tokens=[(i, 101 + i % 3, 1.0) for i in range(24)])
    torch.manual_seed(1)
    made = NextItemModel(Model(**SMALL, generator=3), replace(SHAPE, domains=3), of)
    warm_start(base, made, NEW, of)
    return base, made.state_dict(), of


def test_items_are_the_same_by_index_and_tokens_by_hash(pair):
    base, found, of = pair
    known = base.model.state_dict()
    learnt = torch.from_numpy(base.catalogue.events > 0)
    assert torch.equal(found["item.weight"][:20][learnt], known["item.weight"][learnt]) and learnt.sum() > 8
    assert found["item.weight"][20:].abs().max() < 0.3, "what the base does not know starts small"
    assert found["item.weight"][:20][~learnt].abs().max() < 0.3, "and so does what it has no event of"
    for token in (101, 102):
        ours, theirs = (int(np.flatnonzero(c.token_hashes == token)[0]) for c in (of, base.catalogue))
        assert torch.equal(found["token.weight"][ours], known["token.weight"][theirs])


def test_domains_and_event_types_are_the_same_by_name(pair):
    base, found, _ = pair
    known = base.model.state_dict()
    for part in ("domain.weight", "query.weight", "adapter_in", "adapter_out"):
        films = bool(base.catalogue.events[base.catalogue.domain == 1].any())
        mean = known[part].mean(0) if films else known[part][0]
        assert torch.allclose(found[part][0], known[part][1] if films else mean) and torch.equal(found[part][2], known[part][0])
        assert torch.allclose(found[part][1], mean), "a new domain starts as the mean of those that were learnt"
    assert torch.equal(found["event_type.weight"][2], known["event_type.weight"][1])


def test_the_trunk_is_taken_whole(pair):
    base, found, _ = pair
    parts = [name for name in found if name.startswith(("blocks.", "norm.", "gap.", "position.", "generator_"))]
    assert len(parts) > 10
    assert all(torch.equal(found[name], base.model.state_dict()[name]) for name in parts)
