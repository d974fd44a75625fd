"""The search of the weights of h's terms."""

from __future__ import annotations

import numpy as np
import pytest
from model.factories import PLAIN, catalogue, contexts, model
from scipy import sparse
from training.ranks import as_threads

from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.unordered import UnorderedSignals
from metarec_spark.model.held_out import HeldOutEvents
from metarec_spark.model.manifest import ValidationNdcg
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.tuning import Tuned
from metarec_spark.training.weights import search_weights

NAMES = ["books", "films"]
PLAIN_FUSION = Tuned(TransitionParams(**PLAIN), Fusion(), ValidationNdcg(transitions=0.1))


def held(sequences: list[list[int]], *, seen_allowed: bool = False) -> HeldOutEvents:
    targets = np.array([sequence[-1] for sequence in sequences])
    pairs = np.arange(1, len(targets) + 1)
    return HeldOutEvents(0, contexts([sequence[:-1] for sequence in sequences]), targets, pairs).listable(seen_allowed)


def found(*parts: HeldOutEvents, users: np.ndarray | None = None, ranks=SingleProcess()) -> list[Tuned]:
    size = np.zeros((1, 10)) if users is None else users
    signals = [UnorderedSignals.fit(sparse.csr_matrix(matrix.astype(np.float32))) for matrix in (size, np.zeros((1, 10)))]
    return search_weights(model(), catalogue(), list(parts), [PLAIN_FUSION] * 2, signals, ranks, NAMES)


def pairs_of_items(draw: np.random.Generator) -> list[list[int]]:
    """People like one of five pairs of items, in either order."""
    return [[int(item) for item in draw.permutation([4 * pair, 4 * pair + 2])] for pair in draw.integers(0, 5, 60)]


def test_what_is_bought_together_is_found_without_any_order():
    users = np.zeros((60, 10))
    for user, pair in enumerate(pairs_of_items(np.random.default_rng(1))):
        users[user, [item // 2 for item in pair]] = 1
    tuned, other = found(held(pairs_of_items(np.random.default_rng(0))), users=users)
    assert tuned.unordered.any
    assert tuned.ndcg.ensemble > 0.9 > tuned.ndcg.encoder + 0.2
    assert other == PLAIN_FUSION, "nothing was held out there"


def test_own_items_come_back_where_lists_may_hold_them():
    draw = np.random.default_rng(0)
    sequences = [[int(item) for item in 2 * draw.choice(10, 5, replace=False)] for _ in range(60)]
    again = held([[*sequence, sequence[-1]] for sequence in sequences], seen_allowed=True)
    (tuned, _) = found(again)
    assert tuned.repeats.weight > 0 and tuned.ndcg.ensemble > 0.99
    first_time = held([[*sequence, 2 * int(draw.choice(10))] for sequence in sequences])
    assert found(first_time)[0].repeats.weight == 0


def test_popular_items_come_first_if_nothing_else_is_known():
    (tuned, _) = found(held([[2 * (user % 4), 18 - 2 * (user % 2)] for user in range(40)]))
    assert tuned.unordered.popularity > 0 and tuned.ndcg.ensemble > 0.7


def test_where_chance_rules_h_is_no_worse_than_the_plain_fusion():
    draw = np.random.default_rng(0)
    (tuned, _) = found(held([[int(item) for item in 2 * draw.choice(10, 3, replace=False)] for _ in range(30)]))
    assert tuned.ndcg.ensemble >= tuned.ndcg.encoder, "g links nothing here, so f alone is the plain fusion"


def test_ranks_with_different_events_decide_the_same():
    everyone = pairs_of_items(np.random.default_rng(0))
    users = np.zeros((5, 10))
    users[np.arange(5), 2 * np.arange(5)] = users[np.arange(5), 2 * np.arange(5) + 1] = 1
    (alone, _) = found(held(everyone), users=users)

    def by_ranks(parts: list[list[HeldOutEvents]]) -> list[list[Tuned]]:
        results: list[list[Tuned]] = [[], []]

        def work(ranks) -> None:
            results[ranks.rank] = found(*parts[ranks.rank], users=users, ranks=ranks)

        as_threads(2, work)
        return results

    first, second = by_ranks([[held(everyone[:20])], [held(everyone[20:])]])
    assert first == second and first[0].ndcg.ensemble == pytest.approx(alone.ndcg.ensemble)
    first, second = by_ranks([[held(everyone)], []])
    assert first == second and first[0].ndcg.ensemble == pytest.approx(alone.ndcg.ensemble)
