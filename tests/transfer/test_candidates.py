"""How a candidate's pairs are ranked: validation without the newest events' counts, test with all of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model.factories import MANIFEST, catalogue, contexts, model, padded, saved

from metarec_spark.config.sections import Split, Transitions
from metarec_spark.features.encoding import ARRAYS
from metarec_spark.model import artifact
from metarec_spark.model.catalogue import Successors
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.pair_ranker import PairRanker, PairSignals, alike
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.scorer import Scorer
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.tuning import TRANSITIONS_ALONE
from metarec_spark.transfer import candidates
from metarec_spark.transfer.candidates import Snapshot
from metarec_spark.transfer.meta_train import AN_HOUR, followed, meta_trained_ranker

ITEMS = 60
PEOPLE = [[1, 3, 5], [3, 5, 7, 9], [5, 9, 11], [], [13, 1], [15, 13]]
TARGETS = [7, 11, 13, 1, 3, 19]
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
    made = Snapshot(tmp_path, MANIFEST.model_copy(update={"transitions": SETTINGS}), "films")
    links = followed(contexts(PEOPLE), ITEMS, SETTINGS).toarray()
    item, successor = np.nonzero(links + links.T)
    signals = links[item, successor], links[successor, item], np.zeros(len(item))
    events = np.bincount(np.concatenate(PEOPLE).astype(int), minlength=ITEMS)
    of = replace(catalogue(ITEMS), events=events, successors=Successors.of(ITEMS, item, successor, *signals))
    made.__dict__["items"] = of, pa.chunked_array([[f"i{i}" for i in range(ITEMS)]])
    return made


def test_validation_pairs_are_ranked_as_deep_as_a_list_without_the_newest_events_counts_and_test_pairs_with_them(snapshot):
    torch.manual_seed(0)
    pair_ranker = PairRanker()
    torch.nn.init.normal_(pair_ranker.out.weight)
    made = SimpleNamespace(
        pair_ranker=pair_ranker.eval(), model=model(snapshot.catalogue), params=[None] * 2, fusion=[TRANSITIONS_ALONE] * 2
    )
    assert snapshot.catalogue.events.sum() - snapshot.rehearsal.events.sum() == 5, "the newest of each who has any"
    found = candidates.gains(snapshot, made, None, base=False), candidates.test_gains(snapshot, made)
    assert not np.array_equal(*found)
    deep = 0
    for gains, by, cutoff in zip(found, (snapshot.rehearsal, snapshot.catalogue), (100, 10), strict=True):
        signals = PairSignals.of_catalogue(by, 1, alike(by, 1))
        held = snapshot.held("test")
        rank = {}
        for row in range(len(held.target)):
            user = held.contexts.take(torch.tensor([row]))
            if not len(user.item):
                continue
            scores = pair_ranker.scores(signals, user, 1)[0].detach()
            place, seen = held.target[row] // 2, user.item // 2
            scores[[at for at in seen.tolist() if at != place]] = -torch.inf
            rank[held.pair[row]] = len(scores) - int((scores < scores[place]).sum())
        deep += sum(of > 10 for of in rank.values())
        expected = {pair: 1 / np.log2(of + 1) if of <= cutoff else 0.0 for pair, of in rank.items()}
        assert {pair: gains[pair - 1] for pair in expected} == pytest.approx(expected)
    assert deep, "or the cut-offs are not told apart"


class Towards(PairRanker):
    """Says of each item that it is the next, or is not, if that was asked."""

    def __init__(self, right: float) -> None:
        super().__init__()
        self.right = right

    def scores(self, signals: PairSignals, contexts: PackedSequences, domain: int) -> torch.Tensor:
        asked = {tuple(of): target for of, target in zip(PEOPLE, TARGETS, strict=True)}
        items = torch.split(contexts.item, contexts.length.tolist())
        return torch.stack([self.right * (torch.arange(ITEMS // 2) == asked[tuple(of.tolist())] // 2) for of in items])


@pytest.mark.parametrize(("right", "kept"), [(1000.0, True), (-1000.0, False)])
def test_a_trained_model_is_fused_with_a_weigher_as_far_as_that_helps(tmp_path, snapshot, right, kept):
    trained = saved(tmp_path / "trained", snapshot.catalogue)
    candidates.settled(snapshot, trained, tmp_path / "made", Towards(right))
    made = artifact.load(tmp_path / "made")
    assert (made.fusion[1].transitions > 0) is kept and made.fusion[0] == artifact.load(trained).fusion[0]
    measured = made.manifest.metrics.validation["films"]
    assert measured.ensemble == max(measured.model_dump().values()) and (measured.transitions == 1.0) is kept
    with_it = SimpleNamespace(pair_ranker=Towards(right), model=made.model, params=made.params, fusion=made.fusion)
    known = [pair for pair, of in enumerate(PEOPLE) if of]
    assert (candidates.gains(snapshot, with_it, None, base=True)[known] == 1).all() == kept


def test_what_is_measured_of_a_fused_model_is_what_it_serves(tmp_path, snapshot):
    torch.manual_seed(0)
    pair_ranker = PairRanker()
    torch.nn.init.normal_(pair_ranker.out.weight)
    made = artifact.load(saved(tmp_path / "made", snapshot.catalogue, Fusion(transitions=0.5), pair_ranker))
    found, held = candidates.test_gains(snapshot, made), snapshot.held("test")
    users = held.contexts.take((held.contexts.length > 0).nonzero().squeeze(1))
    scorer = Scorer(made)
    scores = scorer.fused(scorer.base(scorer.hidden(users), 1), users, 1)
    for row, (pair, target) in enumerate(zip(held.pair[-5:], held.target[-5:], strict=True)):
        seen = [item // 2 for item in PEOPLE[pair - 1] if item != target]
        scores[row, seen] = -torch.inf
        rank = len(scores[row]) - int((scores[row] < scores[row, target // 2]).sum())
        assert found[pair - 1] == pytest.approx(1 / np.log2(rank + 1) if rank <= 10 else 0.0)


@pytest.mark.parametrize(("protocol", "pause"), [("leave_one_out", 0), ("temporal", AN_HOUR)])
def test_where_days_are_held_out_a_weigher_is_taught_what_people_do_after_a_pause(tmp_path, snapshot, protocol, pause):
    arrays, length = padded([[2 * step + 1 for step in range(start, start + 5)] for start in range(20)], 6)
    arrays[3][:] = [0, 3, 3, 14, 3, 0]  # the newest event is of the same hour as the one before it
    (tmp_path / "sequences").mkdir()
    columns = {name: list(array) for name, array in zip(ARRAYS, arrays, strict=True)} | {"length": length.astype(np.int32)}
    pq.write_table(pa.table(columns), tmp_path / "sequences" / "1.parquet")
    manifest = artifact.read_manifest(saved(tmp_path / "any", snapshot.catalogue))
    manifest = manifest.model_copy(update={"split": Split(protocol=protocol)})
    candidates.weighed(snapshot, tmp_path / "made", manifest, TransitionParams.from_settings(SETTINGS), seed=0)
    found = artifact.load(tmp_path / "made").pair_ranker.state_dict()
    by_pause = [
        meta_trained_ranker(tmp_path / "sequences", snapshot.catalogue, 1, SETTINGS, seed=0, pause=of) for of in (0, AN_HOUR)
    ]
    same = [all(torch.equal(found[name], value) for name, value in of.state_dict().items()) for of in by_pause]
    assert same == [pause == 0, pause > 0]
