"""The guard: a transfer is used where it beats the plain models by more than noise, and refused elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decision:
    """What is used, and why."""

    used: str
    """The candidate that serves the domain."""
    winner: str
    """The one that measured best."""
    plain: str
    """Of those that take nothing from other domains, the one that the winner is least surely better than."""
    gain: float
    """NDCG@100 of the winner less that of the plain one; 0 where they are the same."""
    noise: float
    """Standard error of the gain, over pairs and over seeds."""
    margin: float
    """Standard errors by which it must be better."""

    @property
    def refused(self) -> bool:
        """Whether a transfer measured best and is not used."""
        return self.winner != self.used

    @property
    def reason(self) -> str:
        """One sentence."""
        if self.winner == self.plain:
            return f"no transfer measured above {self.plain}"
        said = f"{self.winner} gains {self.gain:+.4f} ± {self.noise:.4f} NDCG@100 over {self.plain}"
        return f"{said}, less than {self.margin:g} standard errors: {self.used} is used" if self.refused else said


def judge(gains: Mapping[str, np.ndarray], plain: set[str], margin: float) -> Decision:
    """Choose among candidates.

    Parameters
    ----------
    gains
        Candidate → [seeds, pairs] NDCG@100 of each validation pair, the same pairs in the same order for all; the number of
        seeds may differ.
    plain
        Names of those that take nothing from other domains; at least one is among the candidates.
    margin
        Standard errors by which a transfer must be better than each plain candidate.

    Notes
    -----
    Pairs are compared one by one. The variance of the gain is that of the mean paired difference over pairs, plus that of the
    seeds' means over seeds.
    """
    mean = {name: float(of.mean()) for name, of in gains.items()}
    best_plain = max((name for name in gains if name in plain), key=mean.__getitem__)
    # Of equals, the plain one wins.
    winner = max(gains, key=lambda name: (mean[name], name == best_plain))
    if winner in plain:
        return Decision(winner, winner, winner, 0.0, 0.0, margin)
    beside = {name: (mean[winner] - mean[name], standard_error(gains[winner], gains[name])) for name in gains if name in plain}
    closest = min(beside, key=lambda name: beside[name][0] - margin * beside[name][1])
    gain, noise = beside[closest]
    used = winner if gain > margin * noise else best_plain
    return Decision(used, winner, closest, gain, noise, margin)


def standard_error(one: np.ndarray, other: np.ndarray) -> float:
    """Of the mean difference of two candidates' [seeds, pairs] gains."""
    difference = one.mean(0) - other.mean(0)
    over_pairs = difference.var(ddof=1) / len(difference) if len(difference) > 1 else np.inf
    over_seeds = sum(of.mean(1).var(ddof=1) / len(of) for of in (one, other) if len(of) > 1)
    return float(np.sqrt(over_pairs + over_seeds))
