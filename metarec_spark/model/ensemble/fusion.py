"""The ensemble (h) as a plain fusion of encoder (f) and item transition model (g), and the objective that trains both.

h = activation(θ-part + φ-part) and L_h = Σ_i λ_i L_i(f) + Σ_i μ_i M_i(g), i over the domains. The L_i depend on θ alone and the
M_i on φ alone, so the two sums are minimised separately: the first by gradients, through :func:`objective`; the second, whose few
parameters enter by counts and powers, by a search on validation events (training/tuning.py), on which μ has no influence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

Weighting = Literal["events", "domains", "uncertainty"]


class Fusion(BaseModel):
    """Weights of the two parts of h in one domain; found on validation events alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: float = 1.0
    """Weight of the θ-part, f's scale · cosine; 0 leaves f out."""
    transitions: float = 4.0
    """Weight of the φ-part, log(1 + sharpness · g); 0 leaves g out. The default serves a domain that was never validated."""
    sharpness: float = 10.0
    """How soon the φ-part saturates. It is 0 if g is 0, and never negative."""

    def phi_part(self, scores: Tensor) -> Tensor:
        """The φ-part of h from g's scores, of any shape."""
        return self.transitions * torch.log1p(self.sharpness * scores)


def fuse(theta_part: Tensor, phi_part: Tensor, activation: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """h: the sum of the two parts, through an activation if there is one."""
    total = theta_part + phi_part
    return activation(total) if activation else total


def objective(encoder: Tensor, transitions: Tensor, encoder_weight: Tensor, transitions_weight: Tensor) -> Tensor:
    """L_h = Σ_i λ_i L_i(f) + Σ_i μ_i M_i(g).

    Parameters
    ----------
    encoder, transitions
        [domains] losses L_i of f and M_i of g.
    encoder_weight, transitions_weight
        [domains] λ_i and μ_i.
    """
    return (encoder_weight * encoder).sum() + (transitions_weight * transitions).sum()


class DomainWeights(nn.Module):
    """Weights λ of the encoder's losses, fixed or learned.

    events: every event counts the same. domains: every domain counts the same. uncertainty: λ_i = exp(-s_i) with a learned s_i
    and the penalty s_i, per event of the domain (Kendall, Gal & Cipolla, 2018).
    """

    fixed: Tensor

    def __init__(self, kind: Weighting, events: Tensor) -> None:
        super().__init__()
        self.kind = kind
        share = events.double() / events.sum().clamp(min=1)
        fixed = 1 / (share * len(events)).clamp(min=1e-9) if kind == "domains" else torch.ones_like(share)
        self.register_buffer("fixed", fixed.float(), persistent=False)
        if kind == "uncertainty":
            self.log_variance = nn.Parameter(torch.zeros(len(events)))

    def forward(self, losses: Tensor, events: Tensor) -> Tensor:
        """Σ_i λ_i L_i of the domains' summed losses L_i, [domains]; ``events`` [domains] are their numbers of terms."""
        none = losses.new_zeros(1)
        if self.kind != "uncertainty":
            return objective(losses, none, self.fixed, none)
        return objective(losses, none, torch.exp(-self.log_variance), none) + (events * self.log_variance).sum()
