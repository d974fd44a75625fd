"""Successive halving of the transfers with an encoder, and the final comparison of transfers with baselines. No Spark.

Successive halving (Jamieson & Talwalkar, 2016): candidates are trained with a part of the budget, the better half of them goes on
with more, until one is left, which gets all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarec_spark.transfer.candidates import Candidate, Candidates
from metarec_spark.transfer.modes import BASELINES, MODES, Mode
from metarec_spark.transfer.negative_transfer import Decision, decide

SHARES = (0.25, 0.5, 1.0)
"""Share of the training budget in each round."""
log = logging.getLogger("metarec_spark")


def successive_halving(candidates: Candidates, modes: Sequence[Mode]) -> list[Mode]:
    """Return the mode that is left of some; it was trained with the whole budget. A single mode gets the budget at once."""
    remaining = list(modes)
    for share in SHARES:
        if share < 1.0 and len(remaining) < 2:
            continue
        mean = {mode: candidates.evaluate(Candidate(mode, share)).mean for mode in remaining}
        remaining = sorted(remaining, key=lambda mode: -mean[mode])[: max(1, len(remaining) // 2)]
    return remaining


def compare(candidates: Candidates, transfers: Sequence[Mode], baselines: Sequence[Mode] = BASELINES) -> Decision:
    """Evaluate baselines and transfers, and decide which candidate serves the domain.

    Candidates without an encoder come first: those with one are fused with the best of them.
    """
    without_encoder = [mode for mode in transfers if not mode.start]
    for mode in sorted((*baselines, *without_encoder), key=lambda mode: mode.start is not None):
        candidates.evaluate(Candidate(mode))
    remaining = successive_halving(candidates, [mode for mode in transfers if mode.start])
    return final_comparison(candidates, [*without_encoder, *remaining], baselines)


def final_comparison(candidates: Candidates, transfers: Sequence[Mode], baselines: Sequence[Mode] = BASELINES) -> Decision:
    """Decide between the best transfer and the baselines.

    If the transfer is ahead, but so little that other seeds may turn the decision, it and the strongest baseline are trained
    with ``adapt.seeds`` seeds.
    """
    best = max(transfers, key=lambda mode: candidates.evaluate(Candidate(mode)).mean, default=None)
    compared = {mode.name: [Candidate(mode)] for mode in (*baselines, *([best] if best else []))}
    decision = _decision(candidates, compared)
    if decision.close:
        for name in (decision.winner, decision.baseline):
            if MODES[name].seeded:
                compared[name] = [Candidate(MODES[name], seed=seed) for seed in range(candidates.adapt.seeds)]
        decision = _decision(candidates, compared)
    return decision


def _decision(candidates: Candidates, compared: dict[str, list[Candidate]]) -> Decision:
    """The decision by all seeds of the compared candidates."""
    ndcg = {name: np.stack([candidates.evaluate(seed).ndcg for seed in seeds]) for name, seeds in compared.items()}
    return decide(ndcg, {mode.name for mode in BASELINES}, candidates.adapt.margin)


@dataclass(frozen=True)
class CandidateRecord:
    """A candidate's columns in table ``transfer_runs``; schemas/transfer_runs.json says what each means."""

    mode: str
    share: float
    seed: int
    seconds: float
    ndcg: float
    test_ndcg: float
    gain: float
    used: bool


def records(candidates: Candidates, decision: Decision) -> list[CandidateRecord]:
    """One record for each candidate that was evaluated."""
    evaluations = candidates.evaluations
    baseline = max(e.mean for candidate, e in evaluations.items() if candidate.mode.baseline and candidate.share == 1.0)
    return [
        CandidateRecord(
            mode=candidate.mode.name,
            share=candidate.share,
            seed=candidate.seed,
            seconds=round(evaluation.seconds, 1),
            ndcg=evaluation.mean,
            test_ndcg=float(evaluation.test_ndcg.mean()),
            gain=evaluation.mean / baseline - 1 if baseline else 0.0,
            used=candidate.mode.name == decision.used and candidate.share == 1.0,
        )
        for candidate, evaluation in evaluations.items()
    ]
