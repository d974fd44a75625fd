"""Meta-training of a pair ranker, on sequences written by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model.factories import catalogue, contexts, padded

from metarec_spark.config.sections import Transitions
from metarec_spark.features.encoding import ARRAYS
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.ensemble.pair_ranker import PairRanker, PairSignals, content_similarity
from metarec_spark.transfer.meta_train import MetaTask, meta_trained_ranker, train_ranker, transition_counts

SETTINGS = Transitions(max_gap=2, gap_decay=1.0)
ITEMS = 40


def ring(users: int, domain: int, steps: int = 5, seed: int = 0) -> list[list[int]]:
    """Walks through a domain's items, each to the next; those of domain 0 are even."""
    starts = np.random.default_rng(seed).integers(0, ITEMS // 2, users)
    return [[int(2 * ((start + step) % (ITEMS // 2)) + domain) for step in range(steps)] for start in starts]


def drawn() -> PairRanker:
    torch.manual_seed(0)
    pair_ranker = PairRanker()
    torch.nn.init.normal_(pair_ranker.out.weight)
    return pair_ranker.eval()


def written(folder, sequences: list[list[int]], name: str = "1.parquet"):
    """Part ``sequences`` of a snapshot."""
    arrays, length = padded(sequences, 6)
    columns = {name: list(array) for name, array in zip(ARRAYS, arrays, strict=True)}
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns | {"length": length.astype(np.int32)}), folder / name)
    return folder


def test_transitions_are_counted_by_distance_and_within_a_user():
    dense = transition_counts(contexts([[1, 2, 3, 4], [2, 3], [7]]), 20, SETTINGS).toarray()
    assert dense[2, 3] == 2.0
    assert dense[1, 3] == pytest.approx(0.5)
    assert (dense[1, 4], dense[4, 2], dense[3, 7], dense.sum()) == (0.0, 0.0, 0.0, pytest.approx(3 + 1 + 2 * 0.5))


def test_the_target_is_the_newest_event_of_the_domain_and_no_later_one_is_context():
    sequences = contexts([[2, 1, 4, 3, 6, 5], [8, 1, 2]])
    assert sequences.newest(0).tolist() == [4, 2]
    assert contexts([[1, 3], []]).newest(0).tolist() == [-1, -1]
    of = catalogue()
    task = MetaTask.from_sequences(sequences, of, 0, content_similarity(of, 0), SETTINGS, 10, np.random.default_rng(0))
    assert task.items[task.target].tolist() == [6, 2]
    assert task.contexts.item.tolist() == [2, 1, 4, 3, 8, 1]
    seen = task.signals.popularity[[1, 2, 3, 4], 0]
    assert seen == pytest.approx(np.log1p([1, 0, 0, 0])), "neither the target is counted nor the newest event before it"


def test_with_a_pause_the_target_is_the_newest_event_after_one_and_no_later_event_is_context():
    gap = torch.tensor([0, 15, 13, 12, 3, 14, 0, 20, 2])
    sequences, of = replace(contexts([[2, 1, 4, 3, 6, 5], [8, 1, 2]]), gap=gap), catalogue()
    assert sequences.newest(0, min_gap=12).tolist() == [2, -1] and sequences.newest(1, min_gap=12).tolist() == [5, 1]
    task = MetaTask.from_sequences(
        sequences.take(torch.tensor([0])), of, 0, content_similarity(of, 0), SETTINGS, 10, np.random.default_rng(0), pause=12
    )
    assert (task.items[task.target].tolist(), task.contexts.item.tolist()) == ([4], [2, 1])


def test_at_most_so_many_pairs_are_drawn_and_all_events_are_counted():
    sequences, of = contexts(ring(30, 0)), catalogue(ITEMS)
    few, all_ = (
        MetaTask.from_sequences(sequences, of, 0, content_similarity(of, 0), SETTINGS, most, np.random.default_rng(0))
        for most in (5, 100)
    )
    assert (len(few.target), len(all_.target)) == (5, 30)
    with torch.no_grad():
        scores = [drawn().scores(of.signals, few.contexts, 0) for of in (few, all_)]
    assert torch.equal(*scores)
    assert len(few.signals.links.target) < len(all_.signals.links.target), "links of items that no drawn user has are left out"


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    of, pair_ranker = catalogue(ITEMS, tokens=[]), PairRanker()
    task = MetaTask.from_sequences(
        contexts(ring(60, 0)), of, 0, content_similarity(of, 0), SETTINGS, 100, np.random.default_rng(0)
    )

    def loss() -> float:
        scores = pair_ranker.scores(task.signals, task.contexts, 0)
        return torch.nn.functional.cross_entropy(scores, torch.from_numpy(task.target)).item()

    before = loss()
    train_ranker(pair_ranker, [task], 5, 3e-3, np.random.default_rng(0))
    assert loss() < before - 0.5


def test_other_domains_improve_the_ranker_of_a_thin_one(tmp_path):
    thin = ring(6, 1, seed=1)
    of = served(thin)
    alone, helped = (
        meta_trained_ranker(written(tmp_path / name, rows), of, 1, SETTINGS, seed=0)
        for name, rows in (("alone", thin), ("helped", thin + ring(300, 0)))
    )
    users = contexts([walk[:-1] for walk in thin])
    answers = torch.tensor([walk[-1] // 2 for walk in thin])
    signals = PairSignals.from_catalogue(of, 1)
    losses = [float(torch.nn.functional.cross_entropy(w.scores(signals, users, 1), answers).detach()) for w in (alone, helped)]
    assert losses[1] < losses[0] - 0.3
    again = meta_trained_ranker(tmp_path / "helped", of, 1, SETTINGS, seed=0)
    assert all(torch.equal(one, other) for one, other in zip(helped.parameters(), again.parameters(), strict=True))


def test_on_a_long_log_a_sample_of_the_users_is_trained_on(tmp_path, monkeypatch):
    for number, rows in enumerate((ring(20, 1), ring(20, 1, seed=1))):
        written(tmp_path, rows, f"{number}.parquet")
    whole = meta_trained_ranker(tmp_path, served(ring(20, 1)), 1, SETTINGS, seed=0)
    monkeypatch.setattr("metarec_spark.transfer.meta_train.MAX_EVENTS", 100)
    sample = meta_trained_ranker(tmp_path, served(ring(20, 1)), 1, SETTINGS, seed=0)
    (tmp_path / "1.parquet").unlink()
    first = meta_trained_ranker(tmp_path, served(ring(20, 1)), 1, SETTINGS, seed=0)
    equal = [
        all(torch.equal(one, other) for one, other in zip(sample.parameters(), of.parameters(), strict=True))
        for of in (first, whole)
    ]
    assert equal == [True, False]


def served(sequences: list[list[int]]) -> Catalogue:
    """A catalogue whose successors are those of all events."""
    of, links = catalogue(ITEMS, tokens=[]), transition_counts(contexts(sequences), ITEMS, SETTINGS).toarray()
    item, successor = np.nonzero(links + links.T)
    signals = links[item, successor], links[successor, item], np.zeros(len(item))
    events = np.bincount(np.concatenate(sequences), minlength=ITEMS)
    kept = of.domain, events, of.tokens, of.weights, of.token_hashes, of.vectors
    return Catalogue(*kept, Successors.from_pairs(ITEMS, item, successor, *signals))


def test_a_ranker_of_one_domain_ignores_events_in_others(tmp_path):
    thin, other = ring(6, 1, seed=1), ring(300, 0)
    of = served([one + two for one, two in zip(other, thin * 50, strict=True)])
    alone, helped = (
        meta_trained_ranker(written(tmp_path / name, rows), of, 1, SETTINGS, seed=0)
        for name, rows in (("a", thin), ("b", thin + other))
    )
    signals, users = PairSignals.from_catalogue(of, 1), contexts([other[0] + thin[0]])
    at_home = contexts([thin[0]])
    assert torch.equal(alone.scores(signals, users, 1), alone.scores(signals, at_home, 1))
    assert not torch.equal(helped.scores(signals, users, 1), helped.scores(signals, at_home, 1))
