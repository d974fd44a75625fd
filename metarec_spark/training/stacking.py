"""Teach a model's stacking on held-out events of all domains; and find the domains where it is no worse than the plain fusion.

Four fifths of the pairs teach, one fifth decides. Ranks hold different pairs and add their gradients, so all of them learn alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.stacking import LinkFeatures, Stacking
from metarec_spark.model.ranking import ranks
from metarec_spark.training.distributed import Ranks
from metarec_spark.training.loader import HeldOutEvents
from metarec_spark.training.tuning import Tuned, thinned
from metarec_spark.training.validation import blocks, gain, placed

PASSES, RATE = 2, 3e-3
DECIDES, FEWEST = 5, 1_000
"""Of so many pairs one decides; and where fewer decide, the plain fusion stays."""
_USERS = 16
log = logging.getLogger("metarec_spark")


class _Part:
    """This rank's pairs of one domain."""

    def __init__(
        self, model: NextItemModel, vectors_ID: Tensor, catalogue: Catalogue, held: HeldOutEvents, tuned: Tuned, ranks: int
    ) -> None:
        self.model, self.fusion, self.domain = model, tuned.fusion, held.domain
        self.items = catalogue.of_domain[held.domain]
        self.held = thinned(held, len(self.items), ranks)
        self.linked = LinkFeatures.of(catalogue, held.domain, tuned.params, tuned.fusion)
        self.vectors = vectors_ID[torch.from_numpy(self.items)]
        self.users = torch.cat([users for _, _, users in blocks(model, self.held, len(self.items))])
        self.decides = self.held.pair % DECIDES == 0

    def scores(self, network: Stacking | None, rows: Tensor) -> tuple[Tensor, np.ndarray]:
        """h of some pairs, seen items hidden, and the targets' places; without a network, by the plain fusion."""
        contexts = self.held.contexts.take(rows)
        place, (row, seen) = placed(contexts, self.held.target[rows.numpy()], self.items)
        theta_BD = self.fusion.encoder * self.model.scores(self.users[rows], self.vectors)
        if network:
            scores = network.scores(self.linked, contexts, theta_BD)
        else:
            row_n, place_n, sums = self.linked.features(contexts)
            scores = theta_BD.index_put((row_n, place_n), self.linked.phi_part(sums), accumulate=True)
        return scores.index_put((torch.from_numpy(row), torch.from_numpy(seen)), torch.tensor(-torch.inf)), place

    def gains(self, network: Stacking | None) -> np.ndarray:
        """NDCG@10 of each of the pairs that decide."""
        return np.concatenate([gain(ranks(*self.scores(network, rows))) for rows in _split(np.flatnonzero(self.decides))])


@torch.no_grad()
def _parts(model: NextItemModel, catalogue: Catalogue, held: list[HeldOutEvents], tuned: list[Tuned], ranks: int) -> list[_Part]:
    vectors_ID = model.catalogue_vectors() if held else None
    return [_Part(model, vectors_ID, catalogue, of, tuned[of.domain], ranks) for of in held if len(of.target)]


def stack(
    model: NextItemModel, catalogue: Catalogue, held: list[HeldOutEvents], tuned: list[Tuned], everyone: Ranks, seed: int
) -> tuple[Stacking, list[bool]]:
    """A stacking of f and g as tuned, and whether it is used, by domain: where pairs that did not teach it are ranked no worse.

    Parameters
    ----------
    held
        This rank's held-out pairs.
    """
    parts = _parts(model.eval(), catalogue, held, tuned, everyone.size)
    torch.manual_seed(seed)  # the same start on every rank
    network, random = Stacking(), np.random.default_rng([seed, everyone.rank])
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    steps = everyone.max(sum(1 for _ in _batches(parts, random)))
    for turn in range(PASSES):
        total, count = 0.0, 0
        batches = _batches(parts, random)
        for step in range(steps):
            optimizer.zero_grad(set_to_none=False)
            if batch := next(batches, None):
                part, rows = batch
                scores, place = part.scores(network, rows)
                loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(place), reduction="sum")
                (loss / (_USERS * everyone.size)).backward()
                total, count = total + loss.item(), count + len(rows)
            everyone.add_gradients(list(network.parameters()), {}, {})
            optimizer.param_groups[0]["lr"] = RATE * (1 - 0.95 * (turn * steps + step) / (PASSES * steps))
            optimizer.step()
        total, count = everyone.sum([total, float(count)])
        if everyone.rank == 0 and count:
            log.info("stacking, pass %d of %d: loss %.4f", turn + 1, PASSES, total / count)
    return network.eval(), _no_worse(parts, network, len(tuned), everyone)


@torch.no_grad()
def _no_worse(parts: list[_Part], network: Stacking, domains: int, everyone: Ranks) -> list[bool]:
    """Whether enough pairs decide, and the mean gain over the plain fusion is above minus its standard error; by domain."""
    found = np.zeros((domains, 4))
    for part in parts:
        if part.decides.any():
            plain, stacked = part.gains(None), part.gains(network)
            found[part.domain] = len(plain), plain.sum(), stacked.sum(), ((stacked - plain) ** 2).sum()
    found = np.array(everyone.sum(found.ravel().tolist())).reshape(-1, 4)
    used = []
    for domain, (pairs, plain, stacked, squares) in enumerate(found):
        mean = (stacked - plain) / max(pairs, 1)
        noise = np.sqrt(max(squares / max(pairs, 1) - mean**2, 0) / max(pairs, 1))
        used.append(bool(pairs >= FEWEST and mean > -noise))
        if everyone.rank == 0 and pairs:
            said = (domain, pairs, plain / pairs, stacked / pairs, noise, "used" if used[-1] else "not used")
            log.info("domain %d, %d pairs: h %.4f, stacked %.4f ± %.4f, %s", *said)
    return used


def _batches(parts: list[_Part], random: np.random.Generator) -> Iterator[tuple[_Part, Tensor]]:
    """All pairs that teach, once, in batches of one domain each, in random order."""
    found = [(part, rows) for part in parts for rows in _split(random.permutation(np.flatnonzero(~part.decides)))]
    for at in random.permutation(len(found)):
        yield found[at]


def _split(rows: np.ndarray) -> list[Tensor]:
    return [part for part in torch.from_numpy(rows).split(_USERS) if len(part)]
