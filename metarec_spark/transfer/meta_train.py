"""How a weigher is taught: by thin cuts of other domains, each posed as if it were the new one; then by the domain itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from metarec_spark.config.sections import Transitions
from metarec_spark.features.encoding import ARRAYS, LENGTH
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.ensemble.pair_ranker import ContentSimilarity, PairRanker, PairSignals, alike
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import places
from metarec_spark.training.loader import Shard, contexts, read
from metarec_spark.training.validation import placed

PAIRS, MOST_PAIRS, MOST_CUTS = 4_000, 1_000, 8
"""Pairs asked in all cuts of another domain, about; at most in one cut; and cuts, at most."""
MOST_EVENTS = 2_000_000
AN_HOUR = 12
"""Log-bucketed seconds; see :func:`metarec_spark.features.encoding.encoded`."""
_USERS = 8
log = logging.getLogger("metarec_spark")


@dataclass(frozen=True)
class MetaTask:
    """Users' events before one in a domain that is asked, and what they say of the items."""

    domain: int
    items: np.ndarray
    """[D] the domain's."""
    signals: PairSignals
    contexts: PackedSequences
    target: np.ndarray
    """[B] places in the domain."""

    @classmethod
    def of(
        cls,
        sequences: PackedSequences,
        catalogue: Catalogue,
        domain: int,
        likeness: ContentSimilarity,
        settings: Transitions,
        most: int,
        draw: np.random.Generator,
        pause: int = 0,
    ) -> MetaTask:
        """Ask for the newest event in ``domain`` of each sequence, of those with a gap of at least ``pause``, which has one after
        its first event; at most ``most`` of them, drawn at random. Of what is known, the newest event there is not counted, as
        it is not when a list is made: then it came after the split."""
        ends = sequences.newest(domain, pause)
        known = sequences.where(sequences.position < ends.repeat_interleave(sequences.length), ends)
        counted = known.without(known.newest(domain))
        items, target = catalogue.of_domain[domain], sequences.item[sequences.starts + ends].numpy()
        forward = followed(counted, catalogue.size, settings)
        events = np.bincount(counted.item.numpy(), minlength=catalogue.size)
        asked = np.sort(draw.permutation(len(target))[:most])
        users = known.take(torch.from_numpy(asked))
        rows = np.unique(users.item.numpy())
        signals = PairSignals.of(forward[:, items], forward.T.tocsr()[:, items], likeness, events, items, rows)
        return cls(domain, items, signals, users, places(items, target[asked]))


def followed(sequences: PackedSequences, size: int, settings: Transitions) -> sparse.csr_matrix:
    """[I, I] sum of distance ** -gap_decay over the pairs of events, at most max_gap apart, in which the column's item came
    later; what table ``item_transitions`` calls forward, of all items."""
    item, length = sequences.item.numpy(), sequences.length.numpy()
    user = np.repeat(np.arange(len(length)), length)
    rows, columns, weights = [], [], []
    for gap in range(1, min(settings.max_gap, int(length.max(initial=1)) - 1) + 1):
        kept = (user[:-gap] == user[gap:]) & (item[:-gap] != item[gap:])
        rows.append(item[:-gap][kept])
        columns.append(item[gap:][kept])
        weights.append(np.full(kept.sum(), gap**-settings.gap_decay, np.float32))
    entries = [np.concatenate(part) if part else np.empty(0, np.int64) for part in (weights, rows, columns)]
    return sparse.csr_matrix((entries[0].astype(np.float32), (entries[1], entries[2])), shape=(size, size))


def train_ranker(
    pair_ranker: PairRanker, lessons: Sequence[MetaTask], passes: int, rate: float, draw: np.random.Generator
) -> None:
    """Lower the softmax cross-entropy of the asked items, among all of their domain that the user has not seen.

    AdamW; the rate falls linearly to a twentieth.
    """
    optimizer = torch.optim.AdamW(pair_ranker.parameters(), rate, weight_decay=1e-3)
    steps = passes * sum(-(-len(lesson.target) // _USERS) for lesson in lessons)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.95 * step / steps)
    for turn in range(passes):
        total = 0.0
        for lesson, rows in _batches(lessons, draw):
            known = lesson.contexts.take(rows)
            scores = pair_ranker.scores(lesson.signals, known, lesson.domain)
            target, (row, seen) = placed(known, lesson.items[lesson.target[rows.numpy()]], lesson.items)
            scores = scores.index_put((torch.from_numpy(row), torch.from_numpy(seen)), torch.tensor(-torch.inf))
            loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(target))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        log.info("pass %d of %d: loss %.4f", turn + 1, passes, total / sum(len(lesson.target) for lesson in lessons))


def _batches(lessons: Sequence[MetaTask], draw: np.random.Generator) -> Iterator[tuple[MetaTask, torch.Tensor]]:
    """All pairs once, in batches of one lesson each, in random order."""
    parts = [
        (lesson, rows) for lesson in lessons for rows in torch.from_numpy(draw.permutation(len(lesson.target))).split(_USERS)
    ]
    for at in draw.permutation(len(parts)):
        yield parts[at]


def meta_trained_ranker(
    folder: Path,
    catalogue: Catalogue,
    target: int,
    settings: Transitions,
    seed: int,
    likeness: Callable[[int], ContentSimilarity] | None = None,
    pause: int = 0,
) -> PairRanker:
    """A weigher for one domain of a snapshot: taught by the other domains where there are any, then by the domain itself.

    Parameters
    ----------
    folder
        Part ``sequences``. People are dealt to its row groups by a hash; once ``MOST_EVENTS`` events are in memory, the other row
        groups are left out.
    target
        Position of the domain. Of every other domain, cuts with as many people as it has are posed as new.
    likeness
        What :func:`metarec_spark.model.ensemble.pair_ranker.alike` gives for a domain; None: it is made here.
    pause
        Least gap before what is asked, as log-bucketed seconds.
    """
    likeness = likeness or partial(alike, catalogue)
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    sequences = _read(folder)
    pair_ranker = PairRanker()
    people = [np.flatnonzero(sequences.newest(domain, pause).numpy() > 0) for domain in range(len(catalogue.of_domain))]
    others = [domain for domain, of in enumerate(people) if domain != target and len(of)]
    lessons = []
    for domain in others:
        known, size = likeness(domain), min(len(people[domain]), max(len(people[target]), 1))
        cuts = min(MOST_CUTS, -(-PAIRS // min(size, MOST_PAIRS))) if size < len(people[domain]) else 1
        for _ in range(cuts):
            cut = np.sort(draw.permutation(people[domain])[:size])
            part = sequences.take(torch.from_numpy(cut))
            lessons.append(MetaTask.of(part, catalogue, domain, known, settings, MOST_PAIRS, draw, pause))
    if lessons:
        train_ranker(pair_ranker, lessons, 3, 3e-3, draw)
    if len(people[target]):
        mine = sequences.take(torch.from_numpy(people[target]))
        own = MetaTask.of(mine, catalogue, target, likeness(target), settings, 6 * MOST_PAIRS, draw, pause)
        train_ranker(pair_ranker, [own], 2 if lessons else 4, 1e-3 if lessons else 3e-3, draw)
    if not lessons:
        pair_ranker.stay_at_home()
    return pair_ranker.eval()


def _read(folder: Path) -> PackedSequences:
    groups, events = [], 0
    for group in read(Shard(folder, 0, 1, "dummy"), [*ARRAYS, LENGTH]):
        groups.append(group)
        events += int(group[LENGTH].sum())
        if events >= MOST_EVENTS:
            log.info("a sample of people teaches: %d events of a longer log", events)
            break
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    return contexts(columns, np.arange(len(columns[LENGTH])))
