"""The ways to serve a new domain: what a candidate starts from, whose events it learns, what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Mode:
    """One way to serve a domain."""

    name: str
    says: str
    """For the reader of a log or a table."""
    start: Literal["random", "base", "meta"] | None
    """Parameters that f starts from; None: there is no f, transitions and content serve alone."""
    learns: Literal["own", "target", "uniform", "weighted"]
    """Whose events. own: the target domain's alone, and nothing else is context. target: people of the target domain, with what
    they did elsewhere as context. uniform, weighted: those and a sample of other people, drawn evenly or by likeness."""
    trained: tuple[str, ...] | None = None
    """Prefixes of the parameters that are trained; None: all."""

    meta_trained_ranker: bool = False
    """Whether g's signals are weighed by a network that was taught; see transfer/teaching.py."""

    @property
    def plain(self) -> bool:
        """Whether it takes nothing from other domains."""
        return self.learns == "own"


_ADAPTER = ("item.", "query.", "adapter_", "domain.")
ALL = (
    Mode("untrained", "transitions and content of the domain alone", None, "own"),
    Mode("scratch", "a model of the domain's own events", "random", "own"),
    Mode(
        "weighed", "signals of the domain, weighed by a network that its own events taught", None, "own", meta_trained_ranker=True
    ),
    Mode("lent", "transitions and content of all domains", None, "target"),
    Mode(
        "taught",
        "signals weighed by a network that thin cuts of the other domains taught first",
        None,
        "uniform",
        meta_trained_ranker=True,
    ),
    Mode("pooled", "one model of the domain and a sample of the others", "random", "uniform"),
    Mode("sample", "the same, others drawn by their likeness to the domain's people", "random", "weighted"),
    Mode("frozen", "the base model's trunk as it is, with the domain's own items and adapter", "base", "target", _ADAPTER),
    Mode("finetuned", "the base model, all of it trained on", "base", "target"),
    Mode("meta", "the same from a base model that was trained by episodes", "meta", "target"),
)
MODES = {mode.name: mode for mode in ALL}
