"""What papers and libraries report on public logs: leave-one-out, full ranking, ids alone, no attributes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The figures of one model on one log."""

    log: str
    model: str
    ndcg: float
    """NDCG@10."""
    hit_rate: float | None
    """HR@10, where it is reported."""
    source: str


PUBLISHED = (
    Published("beauty", "BSARec", 0.0611, 0.1008, "Shin et al., AAAI 2024: the log of the authors' own run"),
    Published("sports", "ICSRec", 0.0335, None, "Qin et al., WSDM 2024: as claimed"),
    Published("sports", "eSASRec", 0.0323, None, "Tikhonovich et al., RecSys 2025: run again"),
    Published("toys", "ICSRec", 0.0657, None, "Qin et al., WSDM 2024: as claimed"),
    Published("toys", "eSASRec", 0.0580, None, "Tikhonovich et al., RecSys 2025: run again"),
)
"""The best that were found for each log."""
