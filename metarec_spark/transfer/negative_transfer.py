"""The negative-transfer test: a transfer is used if it beats every baseline by more than noise, and rejected otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

SEED_RANGE = 1.0
"""Standard errors around the margin within which other seeds may turn a decision that one seed made."""


@dataclass(frozen=True)
class Decision:
    """Which candidate serves the domain, and why."""

    used: str
    """The candidate that serves the domain."""
    winner: str
    """The candidate with the highest mean NDCG@100."""
    baseline: str
    """The strongest baseline: the one with the smallest lower bound of the winner's lead over it."""
    lead: float
    """NDCG@100 of the winner less that of the strongest baseline; 0 if they are the same candidate."""
    error: float
    """Standard error of the lead, over pairs and over seeds."""
    margin: float
    """Standard errors by which a transfer must be better."""

    @property
    def rejected(self) -> bool:
        """Whether a transfer has the highest mean and is not used; False too if a baseline has the highest mean."""
        return self.winner != self.used

    @property
    def close(self) -> bool:
        """Whether a transfer is ahead by so nearly the margin that more seeds may turn the decision."""
        return self.lead > 0 and abs(self.lead - self.margin * self.error) < SEED_RANGE * self.error

    @property
    def reason(self) -> str:
        """The decision as one sentence."""
        if self.winner == self.baseline:
            return f"no transfer measured above {self.baseline}"
        comparison = f"{self.winner} gains {self.lead:+.4f} ± {self.error:.4f} NDCG@100 over {self.baseline}"
        if self.rejected:
            return f"{comparison}, less than {self.margin:g} standard errors: {self.used} is used"
        return comparison


def decide(ndcg: Mapping[str, np.ndarray], baselines: AbstractSet[str], margin: float) -> Decision:
    """Choose the candidate that serves the domain.

    Parameters
    ----------
    ndcg
        Candidate → [seeds, pairs] NDCG@100 of each validation pair, the same pairs in the same order for all; the number of
        seeds may differ.
    baselines
        Names of the candidates that use no other domain; at least one is among ``ndcg``.
    margin
        Standard errors by which a transfer must be better than each baseline.

    Notes
    -----
    A paired, one-sided test. The variance of the lead is that of the mean paired difference over pairs, plus that of the seeds'
    means over seeds.
    """
    mean = {name: float(values.mean()) for name, values in ndcg.items()}
    best_baseline = max((name for name in ndcg if name in baselines), key=mean.__getitem__)
    winner = max(ndcg, key=lambda name: (mean[name], name == best_baseline))  # a tie goes to the baseline
    if winner in baselines:
        return Decision(winner, winner, winner, 0.0, 0.0, margin)
    leads = {name: (mean[winner] - mean[name], standard_error(ndcg[winner], ndcg[name])) for name in ndcg if name in baselines}
    strongest = min(leads, key=lambda name: leads[name][0] - margin * leads[name][1])
    lead, error = leads[strongest]
    used = winner if lead > margin * error else best_baseline
    return Decision(used, winner, strongest, lead, error, margin)


def standard_error(first: np.ndarray, second: np.ndarray) -> float:
    """Standard error of the mean difference of two candidates' [seeds, pairs] NDCG."""
    difference = first.mean(0) - second.mean(0)
    over_pairs = difference.var(ddof=1) / len(difference) if len(difference) > 1 else np.inf
    over_seeds = sum(values.mean(1).var(ddof=1) / len(values) for values in (first, second) if len(values) > 1)
    return float(np.sqrt(over_pairs + over_seeds))
