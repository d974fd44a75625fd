"""Train a model's stacking network on held-out events of all domains, and decide in which domains it is used.

Four fifths of the events train it, one fifth decides. Ranks hold different events and add their gradients, so that all ranks get
the same network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.stacking import LinkFeatures, Stacking
from metarec_spark.model.ensemble.terms import AdditiveTerms
from metarec_spark.model.ensemble.unordered import UnorderedSignals
from metarec_spark.model.held_out import MAX_ROWS, HeldOutEvents, rank
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import block_rows, hide, ndcg
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.optimizer import linear_decay
from metarec_spark.training.tuning import Tuned, thinned

PASSES, RATE = 2, 3e-3
DECIDING_SHARE, MIN_DECIDING = 5, 1_000
"""One of so many events decides; and a domain with fewer deciding events keeps the plain fusion."""
_USERS = 16
log = logging.getLogger("metarec_spark")


def stack(
    model: NextItemModel,
    catalogue: Catalogue,
    held_out: list[HeldOutEvents],
    tuned: list[Tuned],
    everyone: Ranks,
    seed: int,
    names: Sequence[str],
    signals: Sequence[UnorderedSignals] = (),
) -> tuple[Stacking | None, list[bool]]:
    """Train a stacking network, and return it with whether each domain uses it.

    A domain uses it if the deciding events are ranked no worse than by the plain fusion, within a standard error. Events of
    domains with too few deciding events do not take part; if no domain has enough, nothing is trained.

    Parameters
    ----------
    held_out
        This rank's held-out events.
    tuned
        Settings by domain.
    names
        Names of the domains for the log.
    signals
        The signals that do not read the order of events, by domain; none if no domain weighs them.

    Returns
    -------
    The network, or None if none was trained; and [domains] bool.
    """
    sampled = [thinned(events, len(catalogue.of_domain[events.domain]), everyone.size) for events in held_out]
    deciding = np.zeros(len(tuned))
    for events in sampled:
        deciding[events.domain] = (events.pair % DECIDING_SHARE == 0).sum()
    enough = np.array(everyone.sum(deciding.tolist())) >= MIN_DECIDING
    if not enough.any():
        return None, [False] * len(tuned)
    with torch.no_grad():
        vectors_ID = model.eval().catalogue_vectors()
        parts = [
            _Part(model, vectors_ID, catalogue, events, tuned[events.domain], signals[events.domain] if signals else None)
            for events in sampled
            if enough[events.domain] and len(events.target)
        ]
    torch.manual_seed(seed)  # the same start on every rank
    network, random = Stacking(), np.random.default_rng([seed, everyone.rank])
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    steps = everyone.max(sum(1 for _ in _batches(parts, random)))
    for number in range(PASSES):
        total, count = 0.0, 0
        batches = _batches(parts, random)
        for step in range(steps):
            optimizer.zero_grad(set_to_none=False)
            if batch := next(batches, None):
                part, rows = batch
                loss = part.loss(network, rows)
                (loss / (_USERS * everyone.size)).backward()
                total, count = total + loss.item(), count + len(rows)
            everyone.add_gradients(list(network.parameters()), {}, {})
            optimizer.param_groups[0]["lr"] = RATE * linear_decay(number * steps + step, PASSES * steps)
            optimizer.step()
        total, all_count = everyone.sum([total, float(count)])
        if everyone.rank == 0:
            log.info("stacking, pass %d of %d: loss %.4f", number + 1, PASSES, total / all_count)
    return network.eval(), _no_worse(parts, network, len(tuned), everyone, names)


class _Part:
    """This rank's held-out events of one domain."""

    def __init__(
        self,
        model: NextItemModel,
        vectors_ID: Tensor,
        catalogue: Catalogue,
        held_out: HeldOutEvents,
        tuned: Tuned,
        signals: UnorderedSignals | None = None,
    ) -> None:
        self.model, self.fusion, self.held_out = model, tuned.fusion, held_out
        self.items = catalogue.of_domain[held_out.domain]
        events = catalogue.events[self.items]
        self.terms = AdditiveTerms(held_out.domain, self.items, events, tuned.repeats, tuned.unordered, signals)
        self.links = LinkFeatures.from_catalogue(catalogue, held_out.domain, tuned.params, tuned.fusion)
        self.vectors = vectors_ID[torch.from_numpy(self.items)]
        blocks = torch.arange(len(held_out.target)).split(block_rows(len(self.items), MAX_ROWS))
        contexts = (held_out.contexts.take(block) for block in blocks)
        self.users = torch.cat([model.user_vectors(model.encode(block), held_out.domain) for block in contexts])
        self.decides = held_out.pair % DECIDING_SHARE == 0

    def scores(self, network: Stacking | None, contexts: PackedSequences, rows: Tensor) -> Tensor:
        """h of some events by the network, or by the plain fusion if there is none, [B, D]."""
        theta_BD = self.fusion.encoder * self.model.scores(self.users[rows], self.vectors)
        if network:
            return self.terms.added(network.scores(self.links, contexts, theta_BD), contexts)
        row, target, sums = self.links.features(contexts)
        return self.terms.added(theta_BD.index_put((row, target), self.links.phi_part(sums), accumulate=True), contexts)

    def loss(self, network: Stacking, rows: Tensor) -> Tensor:
        """Sum of the softmax cross-entropies of some events' targets, seen items hidden."""
        part = self.held_out.take(rows.numpy())
        target, seen = part.local(self.items)
        scores_BD = hide(self.scores(network, part.contexts, rows), seen)
        return torch.nn.functional.cross_entropy(scores_BD, torch.from_numpy(target), reduction="sum")

    def ndcg(self, networks: Sequence[Stacking | None]) -> np.ndarray:
        """NDCG@10 of each deciding event by each of several networks, [networks, B]."""
        deciding = torch.from_numpy(np.flatnonzero(self.decides))

        def scores(contexts: PackedSequences, rows: Tensor) -> Iterator[Tensor]:
            for network in networks:
                yield self.scores(network, contexts, deciding[rows])

        return ndcg(rank(self.held_out.take(deciding.numpy()), self.items, scores, _USERS))


@torch.no_grad()
def _no_worse(parts: list[_Part], network: Stacking, domains: int, everyone: Ranks, names: Sequence[str]) -> list[bool]:
    """Whether the network ranks a domain's deciding events no worse than the plain fusion, within a standard error."""
    sums = np.zeros((domains, 4))
    for part in parts:
        plain, stacked = part.ndcg([None, network])
        sums[part.held_out.domain] = len(plain), plain.sum(), stacked.sum(), ((stacked - plain) ** 2).sum()
    sums = np.array(everyone.sum(sums.ravel().tolist())).reshape(-1, 4)
    used = [False] * domains
    for domain in np.flatnonzero(sums[:, 0]):
        count, plain, stacked, squares = sums[domain]
        mean = (stacked - plain) / count
        error = np.sqrt(max(squares / count - mean**2, 0) / count)
        used[domain] = bool(mean > -error)
        if everyone.rank == 0:
            values = names[domain], plain / count, stacked / count, error, count, "used" if used[domain] else "not used"
            log.info("platform %s: h NDCG@10 %.4f, stacked %.4f ± %.4f over %d events: %s", *values)
    return used


def _batches(parts: list[_Part], random: np.random.Generator) -> Iterator[tuple[_Part, Tensor]]:
    """All events that train, once, in batches of one domain each, in random order."""
    batches = [(part, rows) for part in parts for rows in _split(random.permutation(np.flatnonzero(~part.decides)))]
    for number in random.permutation(len(batches)):
        yield batches[number]


def _split(rows: np.ndarray) -> list[Tensor]:
    return [part for part in torch.from_numpy(rows).split(_USERS) if len(part)]
