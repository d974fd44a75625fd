"""Search of the weights of h's terms on validation events: f, g, the repeat term, and the signals that do not read the order.

One pass over the events computes each term of every item, and keeps those of the target and of the items that a term ranks
first. On these candidates a set of weights is measured in milliseconds, so that a coordinate search can try hundreds. A full
ranking of the same events then decides between what it found and where it started. Ranks hold different events and sum their
NDCG, so that all ranks decide the same.

Shape suffixes: B events, C candidates of an event, D items of the domain, T terms.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.unordered import UnorderedSignals, UnorderedWeights, history
from metarec_spark.model.held_out import MAX_ROWS, HeldOutEvents, rank
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import CUTOFF, Seen, block_rows, hide, ndcg
from metarec_spark.model.repeats import RepeatParams, own_events
from metarec_spark.model.transitions import TransitionModel
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.tuning import Tuned, thinned

DECAYS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Decays of the repeat term that are tried."""
CERTAINTY = 0.5
"""Standard errors of the paired difference by which a change of a weight must improve the NDCG."""
_FIRST = 50
"""Items of each term's first places that are candidates."""
_ROUNDS = 4
_OF_LARGEST, _OF_CURRENT = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0), (0.5, 0.7, 1.4, 2.0)
_ENCODER, _TRANSITIONS, _NEIGHBOURS, _FACTORS, _POPULARITY = _TERMS = (
    "encoder",
    "transitions",
    "neighbours",
    "factors",
    "popularity",
)
_REPEATS = {f"repeats {decay}": decay for decay in DECAYS}
Weights = dict[str, float]
log = logging.getLogger("metarec_spark")


def search_weights(
    model: NextItemModel,
    catalogue: Catalogue,
    held_out: list[HeldOutEvents],
    tuned: list[Tuned],
    signals: Sequence[UnorderedSignals],
    everyone: Ranks,
    names: Sequence[str],
    cutoff: int = CUTOFF,
) -> list[Tuned]:
    """Search the weights of all terms of h by NDCG@cutoff, and return the settings with them, in the order of the domains.

    The search starts from the plain fusion, or from a single term that ranks better. It takes a change only if the paired
    difference is larger than ``CERTAINTY`` standard errors: with few events, fewer weights leave their start. What it finds is
    taken if it ranks all items no worse than the plain fusion does.

    Parameters
    ----------
    held_out
        This rank's validation events.
    tuned, signals
        By domain: settings with the plain fusion, and the signals that do not read the order.
    names
        Names of the domains for the log.
    """
    by_domain = {events.domain: events for events in held_out}
    vectors_ID = model.eval().catalogue_vectors() if held_out else None
    searched = []
    for domain, settings in enumerate(tuned):
        events = by_domain.get(domain)
        if not everyone.sum([float(len(events.target)) if events else 0.0])[0]:
            searched.append(settings)
            continue
        terms = _Terms(model, vectors_ID, catalogue, domain, settings, signals[domain], events, everyone, cutoff)
        searched.append(terms.searched())
        if everyone.rank == 0:
            log.info("platform %s: h with all terms NDCG@%d %.4f, %s", names[domain], cutoff, *terms.summary(searched[-1]))
    return searched


class _Terms:
    """The terms of h of one domain's candidates, [B, C] each, of this rank's events; the target is the first candidate."""

    def __init__(
        self,
        model: NextItemModel,
        vectors_ID: Tensor | None,
        catalogue: Catalogue,
        domain: int,
        start: Tuned,
        signals: UnorderedSignals,
        events: HeldOutEvents | None,
        everyone: Ranks,
        cutoff: int,
    ) -> None:
        self.model, self.domain, self.start, self.signals = model, domain, start, signals
        self.everyone, self.cutoff = everyone, cutoff
        self.items = catalogue.of_domain[domain]
        self.transitions = TransitionModel(catalogue, domain, start.params)
        self.popularity = torch.from_numpy(np.log1p(catalogue.events[self.items]).astype(np.float32))
        self.events = events and thinned(events, 8 * len(self.items), everyone.size)
        self.vectors = vectors_ID[torch.from_numpy(self.items)] if vectors_ID is not None else torch.empty(0)
        seen_allowed = everyone.max(int(bool(events and events.seen_allowed)))
        self.names = [*_TERMS, *(_REPEATS if seen_allowed else ())]
        self.candidates, self.scale = self._candidates()

    @torch.no_grad()
    def of_items(self, contexts: PackedSequences) -> dict[str, Tensor]:
        """Each term of every item, [B, D]."""
        users_BW = self.model.user_vectors(self.model.encode(contexts), self.domain)
        history_BD = history(contexts, self.domain, self.items)
        of_items = {
            _ENCODER: self.model.scores(users_BW, self.vectors),
            _TRANSITIONS: self.phi(torch.from_numpy(self.transitions.scores(contexts).toarray())),
            _NEIGHBOURS: torch.from_numpy(self.signals.neighbour_scores(history_BD).toarray()),
            _FACTORS: torch.from_numpy(self.signals.user_factors(history_BD)) @ torch.from_numpy(self.signals.factors).T,
            _POPULARITY: self.popularity.expand(len(contexts.length), -1),
        }
        for name in self.names[len(_TERMS) :]:
            own_BD = own_events(contexts, self.domain, self.items, _REPEATS[name])
            of_items[name] = torch.from_numpy(own_BD.log1p().toarray())
        return of_items

    def phi(self, scores: Tensor) -> Tensor:
        """The φ-part of weight 1."""
        return self.start.fusion.model_copy(update={"transitions": 1.0}).phi_part(scores)

    def _candidates(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Terms of the candidates, -inf for a candidate that is named twice or hidden, and the terms' standard deviations."""
        first = self.names[: len(_TERMS) + 1]  # repeat terms of any decay are of the same items
        most = min(_FIRST, len(self.items))
        parts = {name: [np.zeros((0, 1 + len(first) * most), np.float32)] for name in self.names}
        moments = {name: np.zeros(3) for name in self.names}
        for block in self._blocks():
            of_items, (target, seen) = self.of_items(block.contexts), block.local(self.items)
            for name, scores_BD in of_items.items():
                exact = scores_BD.double()
                moments[name] += scores_BD.numel(), float(exact.sum()), float((exact**2).sum())
            tops = [torch.topk(hide(of_items[name].clone(), seen), most).indices.numpy() for name in first]
            candidate_BC = np.concatenate([target[:, None], *tops], 1)
            left = _once(candidate_BC) & ~_among(candidate_BC, seen, len(self.items))
            for name, scores_BD in of_items.items():
                parts[name].append(np.where(left, np.take_along_axis(scores_BD.numpy(), candidate_BC, 1), -np.inf))
        flat = self.everyone.sum([float(value) for name in self.names for value in moments[name]])
        count_T, sum_T, squares_T = np.array(flat).reshape(-1, 3).T
        deviation_T = np.sqrt(np.maximum(squares_T / count_T - (sum_T / count_T) ** 2, 0))
        scale = dict(zip(self.names, deviation_T.tolist(), strict=True))
        return {name: np.concatenate(part) for name, part in parts.items()}, scale

    def _blocks(self) -> Iterator[HeldOutEvents]:
        """This rank's events, so many at a time as fit into memory with their scores."""
        if self.events and len(self.events.target):
            for rows in torch.arange(len(self.events.target)).split(block_rows(len(self.items), MAX_ROWS)):
                yield self.events.take(rows.numpy())

    def searched(self) -> Tuned:
        """The settings with the best weights."""
        plain = self._weights(self.start.fusion)
        alone = [{name: 1.0} for name in self.names if self.scale[name] > 0]
        if not alone:
            return self.start
        best = self._climb([plain, *alone] if plain else alone)
        settings = self._settings(best)
        encoder, before, after = self._full_ranking([{_ENCODER: 1.0}, plain, best])
        chosen, value = (settings, after) if after >= before else (self.start, before)
        return replace(chosen, ndcg=self.start.ndcg.model_copy(update={"encoder": encoder, "ensemble": value}))

    def summary(self, settings: Tuned) -> tuple[float, str]:
        """What the log says of the settings: NDCG and weights."""
        weights = {
            _ENCODER: settings.fusion.encoder,
            _TRANSITIONS: settings.fusion.transitions,
            **settings.unordered.model_dump(),
        }
        weights |= {"repeats": settings.repeats.weight}
        return settings.ndcg.ensemble or 0.0, ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items() if weight)

    def _weights(self, fusion: Fusion) -> Weights:
        """Weights of a plain fusion in units of the terms' standard deviations."""
        weights = {_ENCODER: fusion.encoder * self.scale[_ENCODER], _TRANSITIONS: fusion.transitions * self.scale[_TRANSITIONS]}
        return {name: weight for name, weight in weights.items() if weight}

    def _settings(self, weights: Weights) -> Tuned:
        """Settings by weights; f's weight is 1, unless it is 0."""
        plain = {name: weight / self.scale[name] for name, weight in weights.items() if weight}
        unit = plain.get(_ENCODER, 1.0)
        by_name = {name: weight / unit for name, weight in plain.items()}
        fusion = self.start.fusion.model_copy(
            update={"encoder": by_name.get(_ENCODER, 0.0), "transitions": by_name.get(_TRANSITIONS, 0.0)}
        )
        unordered = UnorderedWeights(**{name: by_name.get(name, 0.0) for name in UnorderedWeights.model_fields})
        repeats = [RepeatParams(weight=by_name[name], decay=decay) for name, decay in _REPEATS.items() if name in by_name]
        return replace(self.start, fusion=fusion, unordered=unordered, repeats=(repeats or [RepeatParams()])[0])

    def _climb(self, starts: list[Weights]) -> Weights:
        """Coordinate ascent from the best of several starts; of several repeat terms, one at a time has a weight."""
        known: dict[tuple[tuple[str, float], ...], np.ndarray] = {}

        def values(weights: Weights) -> np.ndarray:
            key = tuple(sorted((name, round(weight, 6)) for name, weight in weights.items() if weight))
            if key not in known:
                known[key] = self._ndcg(weights)
            return known[key]

        def best(current: Weights, others: list[Weights]) -> Weights:
            """The other weights with the largest certain gain, if there are such."""
            gains = self._certain_gains([values(other) - values(current) for other in others])
            return others[int(gains.argmax())] if len(gains) and gains.max() > 1e-9 else current

        weights = best(starts[0], starts[1:])
        groups = [[name] for name in _TERMS if self.scale[name] > 0]
        groups += [[name for name in self.names[len(_TERMS) :] if self.scale[name] > 0]]
        for _ in range(_ROUNDS):
            before = weights
            for group in groups:
                rest = {name: weight for name, weight in weights.items() if name not in group}
                largest, current = max(weights.values()), sum(weights.get(name, 0.0) for name in group)
                steps = sorted({largest * step for step in _OF_LARGEST} | {current * step for step in _OF_CURRENT if current})
                others = [rest | {name: step} for name in group for step in steps] + ([rest] if current and rest else [])
                weights = best(weights, others)
            if weights == before:
                break
        return weights

    def _certain_gains(self, differences: list[np.ndarray]) -> np.ndarray:
        """Mean of each paired difference over the events of all ranks, less ``CERTAINTY`` standard errors."""
        if not differences:
            return np.zeros(0)
        sums = [value for part in differences for value in (len(part), part.sum(), (part**2).sum())]
        count, total, squares = np.array(self.everyone.sum([float(value) for value in sums])).reshape(-1, 3).T
        mean = total / count
        return mean - CERTAINTY * np.sqrt(np.maximum(squares / count - mean**2, 0) / count)

    def _ndcg(self, weights: Weights) -> np.ndarray:
        """NDCG of this rank's events among their candidates, [B]."""
        parts = [np.float32(weight / self.scale[name]) * self.candidates[name] for name, weight in weights.items() if weight]
        score_BC = sum(parts[1:], parts[0])
        return ndcg((score_BC >= score_BC[:, :1]).sum(1), self.cutoff)

    def _full_ranking(self, tried: list[Weights]) -> list[float]:
        """Mean NDCG over the events of all ranks with each of several sets of weights, all items ranked."""
        scales = {name: scale or 1.0 for name, scale in self.scale.items()}

        def scores(contexts: PackedSequences, _: Tensor) -> Iterator[Tensor]:
            of_items = self.of_items(contexts)
            none = torch.zeros_like(of_items[_ENCODER])
            for weights in tried:
                yield sum((weight / scales[name] * of_items[name] for name, weight in weights.items()), none)

        totals = np.zeros(len(tried) + 1)
        if self.events:
            totals[:-1] = ndcg(rank(self.events, self.items, scores), self.cutoff).sum(1)
            totals[-1] = len(self.events.target)
        sums = np.array(self.everyone.sum(totals.tolist()))
        return (sums[:-1] / sums[-1]).tolist()


def _once(candidate_BC: np.ndarray) -> np.ndarray:
    """Whether each candidate is named for the first time in its row, [B, C]."""
    order = np.argsort(candidate_BC, 1, kind="stable")
    first = np.ones(candidate_BC.shape, bool)
    np.put_along_axis(first, order[:, 1:], np.diff(np.take_along_axis(candidate_BC, order, 1)) != 0, 1)
    return first


def _among(candidate_BC: np.ndarray, seen: Seen, size: int) -> np.ndarray:
    """Whether each candidate is among the row's seen items, [B, C]."""
    hidden_BD = np.zeros((len(candidate_BC), size), bool)
    hidden_BD[seen] = True
    return np.take_along_axis(hidden_BD, candidate_BC, 1)
