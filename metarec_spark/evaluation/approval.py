"""Approve or reject a model: its NDCG@10 beside the baselines' on the same held-out pairs."""

from __future__ import annotations

import math
from typing import NamedTuple

from metarec_spark import columns as c

MARGIN = 1.645
"""Standard errors of the paired difference beyond which a model counts as worse: a one-sided test at 5 %."""


class Headline(NamedTuple):
    """Quality of one scorer on the test pairs of one platform."""

    ndcg: float
    """NDCG@10."""
    hit_rate: float
    """HR@10."""
    pairs: int
    lead: float
    """NDCG@10 of the model minus the scorer's."""
    error: float
    """Standard error of this paired difference."""


Headlines = dict[tuple[str, str], Headline]
"""By (platform, scorer)."""


class Decision(NamedTuple):
    """Whether a model may serve."""

    status: str
    """approved or rejected."""
    reason: str
    """One sentence with the figures that decide."""
    weak: bool
    """Whether a person should look at an approved model: on some platform it is not the best that there is."""


def judge(headlines: Headlines) -> Decision:
    """Approve or reject a model.

    A model is rejected only if its NDCG@10 over all pairs is worse than popularity's, by more than ``MARGIN`` standard errors of
    the paired difference, or is no number. If it is that much worse than the best baseline of a platform, it is approved, but
    ``weak``, and the reason names the platform: on few validation pairs the ensemble's weights are noise, and a first model that
    is rejected leaves people without lists.
    """
    best = {domain: best_baseline(headlines, domain) for domain in sorted({domain for domain, _ in headlines})}
    pairs = sum(headlines[domain, c.MODEL].pairs for domain in best)

    def mean(scorers: dict[str, str]) -> float:
        return sum(headlines[key].ndcg * headlines[key].pairs for key in scorers.items()) / pairs

    model, popularity = (mean(dict.fromkeys(best, scorer)) for scorer in (c.MODEL, c.POPULARITY))
    lead, error = pooled([headlines[key] for key in best.items()])
    over_popularity, noise = pooled([headlines[domain, c.POPULARITY] for domain in best])
    below = [f"{scorer} in {domain}" for domain, scorer in best.items() if _worse(headlines[domain, scorer])]
    flag = f"; below {', '.join(below)}" if below else ""
    approved = over_popularity >= -MARGIN * noise
    rule = "not worse than" if approved else f"worse by more than {MARGIN:g} standard errors than"
    rule = "no number that compares with" if math.isnan(over_popularity) else rule
    reason = (
        f"NDCG@10 {model:.4f} over all test pairs, {rule} popularity's {popularity:.4f} (difference {over_popularity:+.4f} ± "
        f"{noise:.4f}); the best baseline's {mean(best):.4f} (difference {lead:+.4f} ± {error:.4f}){flag}"
    )
    return Decision("approved" if approved else "rejected", reason, bool(below))


def best_baseline(headlines: Headlines, domain: str) -> str:
    """Return the baseline with the highest NDCG@10 on a platform."""
    return max((s for s in c.BASELINES if (domain, s) in headlines), key=lambda s: headlines[domain, s].ndcg)


def _worse(baseline: Headline) -> bool:
    return baseline.lead < -MARGIN * baseline.error


def pooled(parts: list[Headline]) -> tuple[float, float]:
    """Return the mean of the paired difference over all pairs of several platforms, and its standard error; inf of one pair."""
    pairs = sum(part.pairs for part in parts)
    lead = sum(part.lead * part.pairs for part in parts) / pairs
    # Mean squares from each part's error: error² = (mean square - lead²) / (pairs - 1).
    square = sum((part.error**2 * (part.pairs - 1) + part.lead**2) * part.pairs for part in parts) / pairs
    return lead, math.sqrt(max(square - lead**2, 0.0) / (pairs - 1)) if pairs > 1 else math.inf
