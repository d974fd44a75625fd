"""The modes: what a candidate for a domain starts from, whose events it is trained on, and which parameters are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarec_spark.config.renamed import OLD_VALUES


@dataclass(frozen=True)
class Mode:
    """One way to make a candidate."""

    name: str
    description: str
    start: Literal["random", "base"] | None
    """Parameters that the sequence encoder (f) starts from; None: the candidate has no encoder."""
    events: Literal["own", "users", "uniform", "weighted"]
    """Whose events. own: the domain's alone, which are also the only context. users: all events of the domain's users, those
    elsewhere as context. uniform, weighted: the same and a sample of other users, drawn uniformly or by importance weights."""
    trained: tuple[str, ...] | None = None
    """Prefixes of the encoder's parameters that are trained; None: all."""
    pair_ranker: bool = False
    """Whether a pair ranker is trained in place of g; see transfer/meta_train.py."""
    episodes: bool = False
    """Whether the base model must have been trained by episodes (train.method)."""

    @property
    def baseline(self) -> bool:
        """Whether it uses nothing of other domains."""
        return self.events == "own"

    @property
    def samples(self) -> bool:
        """Whether it is trained on users who have no event in the domain."""
        return self.events in ("uniform", "weighted")

    @property
    def seeded(self) -> bool:
        """Whether the candidate depends on the seed."""
        return self.start is not None or self.pair_ranker


_ADAPTER = ("item.", "query.", "adapter_", "domain.")
ALL = (
    Mode("heuristic", "transitions and content of the domain, with tuned parameters", None, "own"),
    Mode("ranker", "a pair ranker, trained on the domain's events", None, "own", pair_ranker=True),
    Mode("from_scratch", "an encoder, trained on the domain's events", "random", "own"),
    Mode("cross_domain_heuristic", "transitions and content of all domains, with tuned parameters", None, "users"),
    Mode("meta_trained_ranker", "a pair ranker, meta-trained on the other domains", None, "uniform", pair_ranker=True),
    Mode("joint", "an encoder, trained on the domain and a uniform sample of the others", "random", "uniform"),
    Mode("importance_sampled", "the same; the sample is drawn by importance weights", "random", "weighted"),
    Mode("frozen_encoder", "the base model; only the domain's items and adapter are trained", "base", "users", _ADAPTER),
    Mode("fine_tuned", "the base model, all of it trained further", "base", "users"),
    Mode("fine_tuned_from_meta", "the same, from a base model that was trained by episodes", "base", "users", episodes=True),
)
MODES = {mode.name: mode for mode in ALL}
BASELINES = tuple(mode for mode in ALL if mode.baseline)
OLD_NAMES = {"untrained": "heuristic", "weighed": "ranker", "scratch": "from_scratch", **OLD_VALUES["adapt.modes"]}
"""Name of a mode in earlier versions → its name; ``transfer_runs`` may hold the earlier names."""
