"""Which candidates are trained before a decision; their measurements are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from metarec_spark.config.sections import Adapt, Train, Transitions
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.manifest import ValidationNdcg
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.tuning import Tuned
from metarec_spark.transfer.candidates import Candidate, Candidates, Evaluation
from metarec_spark.transfer.halving import compare, final_comparison, successive_halving
from metarec_spark.transfer.modes import MODES, Mode

BASELINES = [MODES[name] for name in ("heuristic", "ranker")]
TRANSFERS = [MODES[name] for name in ("cross_domain_heuristic", "meta_trained_ranker")]
ENCODERS = [MODES[name] for name in ("joint", "importance_sampled", "frozen_encoder", "fine_tuned")]
PAIRS = 400


@dataclass
class Measured(Candidates):
    """Candidates whose mean NDCG is given; their pairs are spread about it, alike for all but for a noise of their own."""

    means: dict[str, float] = field(default_factory=dict)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        if candidate not in self.evaluations:
            noise = np.random.default_rng([*MODES].index(candidate.mode.name)).standard_normal(PAIRS)
            ndcg = self.means[candidate.mode.name] + 0.1 * (noise - noise.mean())
            tuned = Tuned(TransitionParams.from_settings(self.transitions), Fusion(), ValidationNdcg())
            self.evaluations[candidate] = Evaluation(ndcg, ndcg, tuned, None, 0.0)
        return self.evaluations[candidate]

    def seeds(self) -> dict[str, int]:
        names = [candidate.mode.name for candidate in self.evaluations if candidate.share == 1.0]
        return {name: names.count(name) for name in self.means if name in names}

    def shares(self, modes: list[Mode]) -> dict[str, list[float]]:
        return {mode.name: [known.share for known in self.evaluations if known.mode == mode] for mode in modes}


def measured(**means: float) -> Measured:
    nowhere = Path("nowhere")
    return Measured("run", "2026-01-01", nowhere, nowhere, {}, Transitions(), Train(), Adapt(seeds=3), 1, means=means)


@pytest.mark.parametrize(
    ("ahead", "used", "seeds"),
    [(0.003, "ranker", 1), (0.01, "ranker", 3), (0.015, "meta_trained_ranker", 3), (0.03, "meta_trained_ranker", 1)],
)
def test_more_seeds_are_trained_only_if_the_first_leaves_the_decision_unclear(ahead, used, seeds):
    candidates = measured(heuristic=0.1, ranker=0.2, cross_domain_heuristic=0.1, meta_trained_ranker=0.2 + ahead)
    assert final_comparison(candidates, TRANSFERS, BASELINES).used == used  # the noise of the difference is 0.007
    expected = {"heuristic": 1, "ranker": seeds, "cross_domain_heuristic": 1, "meta_trained_ranker": seeds}
    assert candidates.seeds() == expected


def test_a_candidate_that_does_not_depend_on_the_seed_is_evaluated_once():
    candidates = measured(heuristic=0.2, ranker=0.1, cross_domain_heuristic=0.21, meta_trained_ranker=0.1)
    assert final_comparison(candidates, TRANSFERS, BASELINES).winner == "cross_domain_heuristic"
    assert set(candidates.seeds().values()) == {1}


def test_a_transfer_that_is_behind_costs_no_more_seeds():
    candidates = measured(heuristic=0.1, ranker=0.3, cross_domain_heuristic=0.1, meta_trained_ranker=0.2)
    decision = final_comparison(candidates, TRANSFERS, BASELINES)
    assert (decision.used, decision.winner) == ("ranker", "ranker")
    assert set(candidates.seeds().values()) == {1}


def test_without_transfers_the_best_baseline_is_used():
    candidates = measured(heuristic=0.1, ranker=0.3, cross_domain_heuristic=0.1, meta_trained_ranker=0.2)
    assert final_comparison(candidates, [], BASELINES).used == "ranker"
    assert candidates.seeds() == {"heuristic": 1, "ranker": 1}


def test_the_better_half_goes_on_with_twice_the_budget():
    candidates = measured(joint=0.1, importance_sampled=0.1, frozen_encoder=0.4, fine_tuned=0.5)
    assert successive_halving(candidates, ENCODERS) == [MODES["fine_tuned"]]
    out = [0.25]
    expected = {"joint": out, "importance_sampled": out, "frozen_encoder": [0.25, 0.5], "fine_tuned": [0.25, 0.5, 1.0]}
    assert candidates.shares(ENCODERS) == expected


def test_a_single_mode_gets_the_whole_budget_at_once():
    candidates = measured(fine_tuned=0.1)
    assert successive_halving(candidates, [MODES["fine_tuned"]]) == [MODES["fine_tuned"]]
    assert candidates.shares([MODES["fine_tuned"]]) == {"fine_tuned": [1.0]}


def test_candidates_without_an_encoder_are_evaluated_before_those_that_are_fused_with_them():
    names = ["heuristic", "ranker", "from_scratch", "meta_trained_ranker", "fine_tuned"]
    candidates = measured(**dict.fromkeys(names, 0.1) | {"fine_tuned": 0.2})
    assert compare(candidates, [MODES["fine_tuned"], MODES["meta_trained_ranker"]]).used == "fine_tuned"
    order = [candidate.mode.name for candidate in candidates.evaluations]
    assert sorted(order) == sorted(names), "each once"
    assert order.index("meta_trained_ranker") < min(order.index("from_scratch"), order.index("fine_tuned"))
