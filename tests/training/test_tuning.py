"""The search for transfer parameters and fusion weights."""

from __future__ import annotations

import numpy as np
from model.factories import PLAIN, catalogue, contexts, model

from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.held_out import HeldOutEvents
from metarec_spark.model.manifest import DomainSettings
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.tuning import FUSIONS, GRID, _climb, _fusion, cross_fitted, ensemble_ndcg, thinned, tune

START = [DomainSettings(params=TransitionParams(**PLAIN), fusion=Fusion(transitions=weight)) for weight in (4.0, 6.0)]


def held(domain: int, sequences: list[list[int]]) -> HeldOutEvents:
    targets = np.array([sequence[-1] for sequence in sequences])
    return HeldOutEvents(domain, contexts([sequence[:-1] for sequence in sequences]), targets, np.arange(len(targets)))


def chain() -> np.ndarray:
    """Every item is followed, now and then, by the next of its domain; a little more often by a popular one."""
    follows = np.zeros((20, 20))
    for item in range(20):
        follows[item, (item + 2) % 20] += 1.0
        follows[item, 18 + item % 2] += 1.2
    return follows


def test_a_search_finds_the_damping_that_lends_the_right_item():
    walks = [[item, (item + 2) % 20] for item in range(0, 14)]
    parts = [held(domain, [walk for walk in walks if walk[0] % 2 == domain]) for domain in (0, 1)]
    tuned = tune(model(), catalogue(transitions=chain()), parts, START, SingleProcess())
    for found in tuned:
        assert found.params.popularity_damping >= 0.3
        assert found.ndcg.transitions > 0.8 > 1 / np.log2(3), "undamped, the popular item stands first"
        assert found.ndcg.ensemble >= found.ndcg.encoder
        assert found.fusion.transitions > 0
        assert all(value in [*GRID[name], getattr(START[0].params, name)] for name, value in found.params.model_dump().items())


def test_a_transfer_that_only_harms_is_refused():
    # What is lent is always wrong; f, untrained, at least ranks by chance.
    follows = np.zeros((20, 20))
    follows[:, 18] = 1.0
    walks = [[item, 16 if item != 16 else 14] for item in range(0, 18, 2)]
    (found, other) = tune(model(), catalogue(transitions=follows), [held(0, walks)], START, SingleProcess())
    assert found.fusion.transitions == 0.0
    assert found.ndcg.ensemble == found.ndcg.encoder > found.ndcg.transitions
    assert DomainSettings(params=other.params, fusion=other.fusion) == START[1] and other.ndcg.ensemble is None, (
        "nothing was held out of the other domain"
    )


def test_the_same_pairs_give_the_same_parameters():
    parts = [held(0, [[item, (item + 2) % 20] for item in range(0, 20, 2)])]
    assert tune(model(), catalogue(transitions=chain()), parts, START, SingleProcess()) == tune(
        model(), catalogue(transitions=chain()), parts, START, SingleProcess()
    )


def test_a_search_starts_from_what_it_is_given_and_keeps_it_where_nothing_is_better():
    params, fusion = TransitionParams(**PLAIN | {"history_decay": 0.63}), Fusion(transitions=33.0, sharpness=7.0)
    assert fusion not in FUSIONS
    assert _climb(params, lambda tried: -abs(tried.history_decay - 0.63)) == params
    assert _fusion(fusion, lambda tried: np.array([float(one == fusion) for one in tried])) == fusion


def test_a_half_without_pairs_is_no_error():
    one = held(0, [[0, 2]])
    gains = cross_fitted(model(), catalogue(transitions=chain()), one, TransitionParams(**PLAIN), FUSIONS)
    assert gains.shape == (1,) and 0 <= gains[0] <= 1
    assert len(thinned(one.take(np.array([], np.int64)), 5, 1).target) == 0


def test_of_a_large_catalogue_pairs_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr("metarec_spark.training.tuning._MAX_SCORES", 40)
    pairs = held(0, [[0, 2]] * 10)
    assert thinned(pairs, 4, 1).pair.tolist() == pairs.pair.tolist()
    assert thinned(pairs, 4, 2).pair.tolist() == pairs.pair[::2].tolist(), "of two ranks each takes half"
    assert len(thinned(pairs, 1000, 1).target) == 1


def test_of_a_large_catalogue_every_pair_is_ranked_though_settings_are_found_on_fewer(monkeypatch):
    walks = held(0, [[item, (item + 2) % 20] for item in range(0, 20, 2)])
    monkeypatch.setattr("metarec_spark.training.tuning._MAX_SCORES", 30)
    assert len(thinned(walks, 10, 1).target) == 3
    of = model(), catalogue(transitions=chain()), walks, TransitionParams(**PLAIN)
    assert len(cross_fitted(*of, FUSIONS)) == len(ensemble_ndcg(*of, [Fusion()])[0]) == 10
