"""How a candidate's pairs are ranked: validation without the counts of the newest events, test with all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
from metarec_spark.model.ensemble.pair_ranker import PairRanker, PairSignals, content_similarity
from metarec_spark.model.manifest import DomainSettings
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.scorer import Scorer
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.tuning import TRANSITIONS_ALONE
from metarec_spark.transfer.meta_train import ONE_HOUR, meta_trained_ranker, transition_counts
from metarec_spark.transfer.task_snapshot import TaskSnapshot
from metarec_spark.transfer.validation import test_ndcg as ndcg_of_test
from metarec_spark.transfer.validation import tuned_and_measured

ITEMS = 60
USERS = [[1, 3, 5], [3, 5, 7, 9], [5, 9, 11], [], [13, 1], [15, 13]]
TARGETS = [7, 11, 13, 1, 3, 19]
SETTINGS = Transitions()
START = DomainSettings(params=TransitionParams.from_settings(SETTINGS), fusion=TRANSITIONS_ALONE)


@pytest.fixture
def snapshot(tmp_path) -> TaskSnapshot:
    """Pairs of films, the same in both splits; the events before them are all that is counted of the items."""
    arrays, length = padded(USERS, 6)
    columns = {name: list(array) for name, array in zip(ARRAYS, arrays, strict=True)} | {"length": length.astype(np.int32)}
    columns |= {"target": TARGETS, "target_domain": [1] * len(TARGETS), "pair": range(1, 1 + len(TARGETS))}
    for split in ("validation", "test"):
        (tmp_path / split).mkdir()
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        pq.write_table(table, tmp_path / split / "1.parquet")
    opened = TaskSnapshot(tmp_path, MANIFEST.model_copy(update={"transitions": SETTINGS}), "films")
    links = transition_counts(contexts(USERS), ITEMS, SETTINGS).toarray()
    item, successor = np.nonzero(links + links.T)
    signals = links[item, successor], links[successor, item], np.zeros(len(item))
    events = np.bincount(np.concatenate(USERS).astype(int), minlength=ITEMS)
    items = replace(catalogue(ITEMS), events=events, successors=Successors.from_pairs(ITEMS, item, successor, *signals))
    opened.__dict__["_items"] = items, pa.chunked_array([[f"i{i}" for i in range(ITEMS)]])
    return opened


def random_ranker() -> PairRanker:
    torch.manual_seed(0)
    pair_ranker = PairRanker()
    torch.nn.init.normal_(pair_ranker.out.weight)
    return pair_ranker.eval()


def test_validation_counts_no_newest_event_and_measures_at_100_and_test_counts_all_and_measures_at_10(snapshot):
    assert snapshot.catalogue.events.sum() - snapshot.twin_catalogue.events.sum() == 5, "the newest event of each who has any"
    pair_ranker, encoder = random_ranker(), model(snapshot.catalogue)
    tuned, validation = tuned_and_measured(snapshot, encoder, pair_ranker, START, encoder=False)
    test, deep = ndcg_of_test(snapshot, encoder, pair_ranker, tuned), 0
    assert tuned.fusion == TRANSITIONS_ALONE and not np.array_equal(validation, test)
    for ndcg, counted, cutoff in ((validation, snapshot.twin_catalogue, 100), (test, snapshot.catalogue, 10)):
        signals = PairSignals.from_catalogue(counted, 1, content_similarity(counted, 1))
        pairs = snapshot.pairs("test")
        rank = {}
        for row in range(len(pairs.target)):
            user = pairs.contexts.take(torch.tensor([row]))
            if not len(user.item):
                continue
            scores = pair_ranker.scores(signals, user, 1)[0].detach()
            target, seen = pairs.target[row] // 2, user.item // 2
            scores[[item for item in seen.tolist() if item != target]] = -torch.inf
            rank[pairs.pair[row]] = len(scores) - int((scores < scores[target]).sum())
        deep += sum(value > 10 for value in rank.values())
        expected = {pair: 1 / np.log2(value + 1) if value <= cutoff else 0.0 for pair, value in rank.items()}
        assert {pair: ndcg[pair - 1] for pair in expected} == pytest.approx(expected)
    assert deep, "or the cutoffs are not told apart"


class Towards(PairRanker):
    """Scores the target of each context far above all other items, or far below."""

    def __init__(self, right: float) -> None:
        super().__init__()
        self.right = right

    def scores(self, signals: PairSignals, contexts: PackedSequences, domain: int) -> torch.Tensor:
        targets = {tuple(items): target for items, target in zip(USERS, TARGETS, strict=True)}
        items = torch.split(contexts.item, contexts.length.tolist())
        return torch.stack([self.right * (torch.arange(ITEMS // 2) == targets[tuple(row.tolist())] // 2) for row in items])


@pytest.mark.parametrize(("right", "used"), [(1000.0, True), (-1000.0, False)])
def test_an_encoder_is_fused_with_a_pair_ranker_as_far_as_that_helps(snapshot, right, used):
    encoder = model(snapshot.catalogue)
    tuned, ndcg = tuned_and_measured(snapshot, encoder, Towards(right), START, encoder=True)
    assert (tuned.fusion.transitions > 0) is used
    assert tuned.ndcg.ensemble == max(tuned.ndcg.model_dump().values()) and (tuned.ndcg.transitions == 1.0) is used
    with_context = [pair for pair, items in enumerate(USERS) if items]
    assert (ndcg[with_context] == 1).all() == used


def test_a_fusion_is_measured_on_pairs_that_did_not_choose_it(snapshot):
    class OddAlone(Towards):
        """Right about the pairs of odd number, and wrong about the others."""

        def scores(self, signals: PairSignals, contexts: PackedSequences, domain: int) -> torch.Tensor:
            items = torch.split(contexts.item, contexts.length.tolist())
            number = torch.tensor([USERS.index(row.tolist()) + 1 for row in items])
            return super().scores(signals, contexts, domain) * torch.where(number % 2 == 1, 1.0, -1.0)[:, None]

    _, ndcg = tuned_and_measured(snapshot, model(snapshot.catalogue), OddAlone(1000.0), START, encoder=True)
    even = [pair for pair, items in enumerate(USERS, 1) if items and pair % 2 == 0]
    assert max(ndcg[pair - 1] for pair in even) < 0.3, "the odd pairs choose the ranker for them, which is wrong there"


def test_what_is_measured_of_a_fused_model_is_what_it_serves(tmp_path, snapshot):
    saved_model = artifact.load(saved(tmp_path / "made", snapshot.catalogue, Fusion(transitions=0.5), random_ranker()))
    settings = saved_model.manifest.tuned["films"]
    ndcg, pairs = ndcg_of_test(snapshot, saved_model.model, saved_model.pair_ranker, settings), snapshot.pairs("test")
    users = pairs.contexts.take((pairs.contexts.length > 0).nonzero().squeeze(1))
    scorer = Scorer(saved_model)
    scores = scorer.ensemble_scores(scorer.encoder_scores(scorer.hidden(users), 1), users, 1)
    for row, (pair, target) in enumerate(zip(pairs.pair[-5:], pairs.target[-5:], strict=True)):
        seen = [item // 2 for item in USERS[pair - 1] if item != target]
        scores[row, seen] = -torch.inf
        rank = len(scores[row]) - int((scores[row] < scores[row, target // 2]).sum())
        assert ndcg[pair - 1] == pytest.approx(1 / np.log2(rank + 1) if rank <= 10 else 0.0)


@pytest.mark.parametrize(("protocol", "pause"), [("leave_one_out", 0), ("temporal", ONE_HOUR)])
def test_if_days_are_held_out_a_pair_ranker_is_trained_on_events_after_a_pause(snapshot, protocol, pause):
    arrays, length = padded([[2 * step + 1 for step in range(start, start + 5)] for start in range(20)], 6)
    arrays[3][:] = [0, 3, 3, 14, 3, 0]  # the newest event is of the same hour as the one before it
    sequences = Path(snapshot.folder) / "sequences"
    sequences.mkdir()
    columns = {name: list(array) for name, array in zip(ARRAYS, arrays, strict=True)} | {"length": length.astype(np.int32)}
    pq.write_table(pa.table(columns), sequences / "1.parquet")
    snapshot.manifest = snapshot.manifest.model_copy(update={"split": Split(protocol=protocol)})
    trained = snapshot.trained_ranker(seed=0).state_dict()
    by_pause = [meta_trained_ranker(sequences, snapshot.catalogue, 1, SETTINGS, seed=0, pause=gap) for gap in (0, ONE_HOUR)]
    same = [all(torch.equal(trained[name], value) for name, value in other.state_dict().items()) for other in by_pause]
    assert same == [pause == 0, pause > 0]
