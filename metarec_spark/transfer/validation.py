"""Ranks the target's pairs with a candidate: validation NDCG with cross-fitted settings, and test NDCG with final settings.

Shape suffixes: B pairs, F fusions, D items of the domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from metarec_spark import columns as c
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion, fuse
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.model.held_out import HeldOutEvents, rank
from metarec_spark.model.manifest import DomainSettings, ValidationNdcg
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import CUTOFF, local_indexes, ndcg, ranks
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.tuning import (
    ENCODER_ALONE,
    FUSIONS,
    TRANSITIONS_ALONE,
    Tuned,
    cross_fitted,
    ensemble_ndcg,
    tune,
)
from metarec_spark.transfer.task_snapshot import TaskSnapshot, with_context

RANKER_FUSIONS = [*(Fusion(transitions=weight) for weight in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)), TRANSITIONS_ALONE]
"""Fusions of f and a pair ranker. Both are log-odds, so their weights are of one size."""
CUTOFFS = {c.VALIDATION: 100, c.TEST: CUTOFF}
"""Cutoff of the NDCG of a split's pairs. Settings and candidates are chosen at the length of a list: at 10, fewer of a thin
domain's pairs are hit, and the noise is larger."""


def tuned_and_measured(
    snapshot: TaskSnapshot, model: NextItemModel, pair_ranker: PairRanker | None, start: DomainSettings, encoder: bool
) -> tuple[Tuned, np.ndarray]:
    """Return the target's best settings, and the validation NDCG@100 of each pair, [B] in the order of their numbers.

    The settings are those that rank all validation pairs best; each pair is measured with the settings that rank the other half
    of the pairs best. Pairs without context are ranked by popularity, as they are served.

    Parameters
    ----------
    snapshot
        The snapshot that the model was trained on.
    pair_ranker
        Scores pairs in place of g; None: g is tuned.
    start
        Start of the search.
    encoder
        Whether the candidate has an encoder (f).
    """
    pairs = with_context(snapshot.pairs(c.VALIDATION))
    if pair_ranker:
        fusions = RANKER_FUSIONS if encoder else [TRANSITIONS_ALONE]
        ndcg_FB = _ranker_ndcg(snapshot, model, pair_ranker, c.VALIDATION, pairs, fusions)
        mean_F = ndcg_FB.mean(1) if len(pairs.pair) else np.zeros(len(fusions))
        measured = {fusion: float(mean) for fusion, mean in zip(fusions, mean_F, strict=True)}
        best = fusions[int(mean_F.argmax())]
        alone = ValidationNdcg(
            encoder=measured.get(ENCODER_ALONE), transitions=measured[TRANSITIONS_ALONE], ensemble=measured[best]
        )
        return Tuned(start.params, best, alone), _in_order(snapshot, c.VALIDATION, lambda _: _cross_fitted(ndcg_FB, pairs.pair))
    catalogue, cutoff = snapshot.twin_catalogue, CUTOFFS[c.VALIDATION]
    starts = [start] * len(snapshot.manifest.domains)
    tuned = tune(model, catalogue, [pairs], starts, SingleProcess(), None if encoder else [TRANSITIONS_ALONE], cutoff)
    fusions = FUSIONS if encoder else [TRANSITIONS_ALONE]

    def ranked(part: HeldOutEvents) -> np.ndarray:
        return cross_fitted(model, catalogue, part, start.params, fusions, cutoff)

    return tuned[snapshot.target], _in_order(snapshot, c.VALIDATION, ranked)


def test_ndcg(
    snapshot: TaskSnapshot, model: NextItemModel, pair_ranker: PairRanker | None, settings: DomainSettings | Tuned
) -> np.ndarray:
    """Test NDCG@10 of each of the target's pairs with given settings, [B] in the order of their numbers."""

    def ranked(pairs: HeldOutEvents) -> np.ndarray:
        if pair_ranker:
            return _ranker_ndcg(snapshot, model, pair_ranker, c.TEST, pairs, [settings.fusion])[0]
        return ensemble_ndcg(model, snapshot.catalogue, pairs, settings.params, [settings.fusion])[0]

    return _in_order(snapshot, c.TEST, ranked)


def _in_order(snapshot: TaskSnapshot, split: str, ranked: Callable[[HeldOutEvents], np.ndarray]) -> np.ndarray:
    """NDCG of a split's pairs by their numbers: those with context by ``ranked``, the others by popularity."""
    pairs = snapshot.pairs(split)
    values, known = np.empty(len(pairs.target)), pairs.contexts.length.numpy() > 0
    values[known] = ranked(with_context(pairs))
    items, target = snapshot.catalogue.of_domain[snapshot.target], pairs.target[~known]
    popularity = torch.from_numpy(snapshot.catalogue.events[items]).expand(len(target), -1)
    values[~known] = ndcg(ranks(popularity, local_indexes(items, target)), CUTOFFS[split])
    return values[np.argsort(pairs.pair)]


def _cross_fitted(ndcg_FB: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """NDCG of each pair with the fusion that ranks the other half of the pairs best, [B]."""
    values = np.zeros(len(pair))
    for half in (0, 1):
        inside = pair % 2 == half
        values[inside] = ndcg_FB[ndcg_FB[:, ~inside].sum(1).argmax(), inside]
    return values


@torch.no_grad()
def _ranker_ndcg(
    snapshot: TaskSnapshot,
    model: NextItemModel,
    pair_ranker: PairRanker,
    split: str,
    pairs: HeldOutEvents,
    fusions: list[Fusion],
) -> np.ndarray:
    """NDCG of pairs with each of several fusions of f and the pair ranker, [F, B]."""
    items, signals = snapshot.catalogue.of_domain[snapshot.target], snapshot.signals(split)
    vectors = model.eval().catalogue_vectors()[torch.from_numpy(items)]

    def scores(contexts: PackedSequences, _: torch.Tensor) -> Iterator[torch.Tensor]:
        encoder_BD = model.scores(model.user_vectors(model.encode(contexts), snapshot.target), vectors)
        ranker_BD = pair_ranker.scores(signals, contexts, snapshot.target)
        for fusion in fusions:
            yield fuse(fusion.encoder * encoder_BD, fusion.transitions * ranker_BD)

    return ndcg(rank(pairs, items, scores), CUTOFFS[split])
