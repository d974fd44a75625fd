"""How a candidate's pairs are ranked: validation without the newest events' counts, test with all of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model.factories import catalogue, contexts, padded

from metarec_spark.features.encoding import ARRAYS
from metarec_spark.model.catalogue import Successors
from metarec_spark.model.weigher import Signals, Weigher, alike
from metarec_spark.sections import Transitions
from metarec_spark.transfer import candidates
from metarec_spark.transfer.candidates import Snapshot
from metarec_spark.transfer.teaching import followed

ITEMS = 20
PEOPLE = [[1, 3, 5], [3, 5, 7, 9], [5, 9, 11], [], [13, 1]]
TARGETS = [7, 11, 13, 1, 3]
SETTINGS = Transitions()


@pytest.fixture
def snapshot(tmp_path) -> Snapshot:
    """Pairs of films, the same in both splits; what is known of the items are the events before them."""
    arrays, length = padded(PEOPLE, 6)
    columns = {name: list(array) for name, array in zip(ARRAYS, arrays, strict=True)} | {"length": length.astype(np.int32)}
    columns |= {"target": TARGETS, "target_domain": [1] * len(TARGETS), "pair": range(1, 1 + len(TARGETS))}
    for split in ("validation", "test"):
        (tmp_path / split).mkdir()
        pq.write_table(pa.table({name: pa.array(of) for name, of in columns.items()}), tmp_path / split / "1.parquet")
    made = Snapshot(tmp_path, {"domains": ["books", "films"], "transitions": SETTINGS.model_dump()}, "films")
    links = followed(contexts(PEOPLE), ITEMS, SETTINGS).toarray()
    item, successor = np.nonzero(links + links.T)
    signals = links[item, successor], links[successor, item], np.zeros(len(item))
    events = np.bincount(np.concatenate(PEOPLE).astype(int), minlength=ITEMS)
    made.__dict__["items"] = (
        replace(catalogue(ITEMS), events=events, successors=Successors.of(ITEMS, item, successor, *signals)),
        None,
    )
    return made


def test_validation_pairs_are_ranked_without_the_newest_events_counts_and_test_pairs_with_them(snapshot):
    torch.manual_seed(0)
    weigher = Weigher()
    torch.nn.init.normal_(weigher.out.weight)
    made = SimpleNamespace(weigher=weigher.eval(), lending=[None] * 2, fusion=[None] * 2)
    assert snapshot.catalogue.events.sum() - snapshot.rehearsal.events.sum() == 4, "the newest of each who has any"
    found = candidates.gains(snapshot, made, None, base=False), candidates.test_gains(snapshot, made)
    assert not np.array_equal(*found)
    for gains, by in zip(found, (snapshot.rehearsal, snapshot.catalogue), strict=True):
        signals = Signals.of_catalogue(by, 1, alike(by, 1))
        held = snapshot.held("test")
        rank = {}
        for row in range(len(held.target)):
            user = held.contexts.take(torch.tensor([row]))
            if not len(user.item):
                continue
            scores = weigher.scores(signals, user, 1)[0].detach()
            place, seen = held.target[row] // 2, user.item // 2
            scores[[at for at in seen.tolist() if at != place]] = -torch.inf
            rank[held.pair[row]] = len(scores) - int((scores < scores[place]).sum())
        expected = {pair: 1 / np.log2(of + 1) if of <= 10 else 0.0 for pair, of in rank.items()}
        assert {pair: gains[pair - 1] for pair in expected} == pytest.approx(expected)
