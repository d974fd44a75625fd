"""Meta-trains a pair ranker: on subsamples of other domains, each treated as a new domain, then on the domain itself."""

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
from metarec_spark.model.ensemble.pair_ranker import ContentSimilarity, PairRanker, PairSignals, content_similarity
from metarec_spark.model.held_out import local_targets
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import hide, local_indexes
from metarec_spark.training.batches import pack
from metarec_spark.training.optimizer import linear_decay
from metarec_spark.training.reader import Shard, read

PAIRS, MAX_PAIRS, MAX_SUBSAMPLES = 4_000, 1_000, 8
"""Training pairs in all subsamples of another domain, about; in one subsample, at most; and subsamples, at most."""
MAX_EVENTS = 2_000_000
ONE_HOUR = 12
"""Log-bucketed seconds; see :func:`metarec_spark.features.encoding.encoded`."""
_BATCH_USERS = 8
log = logging.getLogger("metarec_spark")


@dataclass(frozen=True)
class MetaTask:
    """Training pairs of one domain: users' events before a target, the target, and the item signals at that time."""

    domain: int
    items: np.ndarray
    """[D] the domain's items."""
    signals: PairSignals
    contexts: PackedSequences
    target: np.ndarray
    """[B] local item index of each target in the domain."""

    @classmethod
    def from_sequences(
        cls,
        sequences: PackedSequences,
        catalogue: Catalogue,
        domain: int,
        similarity: ContentSimilarity,
        settings: Transitions,
        most: int,
        random: np.random.Generator,
        pause: int = 0,
    ) -> MetaTask:
        """Make a pair of each sequence: its newest event in ``domain``, after its first event, is the target.

        With ``pause``, only events with a gap of at least ``pause`` before them are targets. At most ``most`` pairs are drawn
        at random. The newest event before the target is context, but is not counted in the signals: when a list is made, the
        newest event came after the counts too.
        """
        ends = sequences.newest(domain, pause)
        known = sequences.where(sequences.position < ends.repeat_interleave(sequences.length), ends)
        counted = known.without(known.newest(domain))
        items, target = catalogue.of_domain[domain], sequences.item[sequences.starts + ends].numpy()
        forward, backward = both_counts(counted, catalogue.size, settings)
        events = np.bincount(counted.item.numpy(), minlength=catalogue.size)
        drawn = np.sort(random.permutation(len(target))[:most])
        users = known.take(torch.from_numpy(drawn))
        rows = np.unique(users.item.numpy())
        signals = PairSignals.from_counts(forward[:, items], backward[:, items], similarity, events, items, rows)
        return cls(domain, items, signals, users, local_indexes(items, target[drawn]))


def both_counts(sequences: PackedSequences, size: int, settings: Transitions) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """What table ``item_transitions`` calls forward and backward, of all items: [I, I] each, see :func:`transition_counts`."""
    forward = transition_counts(sequences, size, settings)
    if sequences.is_target.all():
        return forward, forward.T.tocsr()
    return forward, transition_counts(sequences, size, settings, backward=True)


def transition_counts(
    sequences: PackedSequences, size: int, settings: Transitions, *, backward: bool = False
) -> sparse.csr_matrix:
    """[I, I] sum of distance ** -gap_decay over the pairs of events, at most max_gap apart, in which the column's item came
    later, or earlier if ``backward``, by an event that is more than context."""
    item, length, is_target = sequences.item.numpy(), sequences.length.numpy(), sequences.is_target.numpy()
    user = np.repeat(np.arange(len(length)), length)
    rows, columns, weights = [], [], []
    for gap in range(1, min(settings.max_gap, int(length.max(initial=1)) - 1) + 1):
        earlier, later = slice(None, -gap), slice(gap, None)
        row, column = (later, earlier) if backward else (earlier, later)
        counted = (user[earlier] == user[later]) & (item[earlier] != item[later]) & is_target[column]
        rows.append(item[row][counted])
        columns.append(item[column][counted])
        weights.append(np.full(counted.sum(), gap**-settings.gap_decay, np.float32))
    entries = [np.concatenate(part) if part else np.empty(0, np.int64) for part in (weights, rows, columns)]
    return sparse.csr_matrix((entries[0].astype(np.float32), (entries[1], entries[2])), shape=(size, size))


def train_ranker(
    pair_ranker: PairRanker, tasks: Sequence[MetaTask], passes: int, rate: float, random: np.random.Generator
) -> None:
    """Minimise the softmax cross-entropy of the targets, among all items of their domain that the user has not seen.

    AdamW; the learning rate decays linearly to a twentieth.
    """
    optimizer = torch.optim.AdamW(pair_ranker.parameters(), rate, weight_decay=1e-3)
    steps = passes * sum(-(-len(task.target) // _BATCH_USERS) for task in tasks)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: linear_decay(step, steps))
    for number in range(1, passes + 1):
        total = 0.0
        for task, rows in _batches(tasks, random):
            users = task.contexts.take(rows)
            scores = pair_ranker.scores(task.signals, users, task.domain)
            target, seen = local_targets(users, task.items[task.target[rows.numpy()]], task.items)
            loss = torch.nn.functional.cross_entropy(hide(scores, seen), torch.from_numpy(target))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        log.info("pair ranker, pass %d of %d: loss %.4f", number, passes, total / sum(len(task.target) for task in tasks))


def _batches(tasks: Sequence[MetaTask], random: np.random.Generator) -> Iterator[tuple[MetaTask, torch.Tensor]]:
    """Yield all pairs once, in batches of one task each, in random order."""
    batches = [
        (task, rows) for task in tasks for rows in torch.from_numpy(random.permutation(len(task.target))).split(_BATCH_USERS)
    ]
    for number in random.permutation(len(batches)):
        yield batches[number]


def meta_trained_ranker(
    folder: Path,
    catalogue: Catalogue,
    target: int,
    settings: Transitions,
    seed: int,
    similarity: Callable[[int], ContentSimilarity] | None = None,
    pause: int = 0,
) -> PairRanker:
    """Train a pair ranker for one domain of a snapshot: on the other domains if there are any, then on the domain itself.

    Parameters
    ----------
    folder
        Part ``sequences`` of the snapshot. A hash assigns users to its row groups; once ``MAX_EVENTS`` events are in memory, the
        remaining row groups are not read.
    target
        Position of the domain. Every other domain is subsampled to as many users as this one has.
    similarity
        Domain → its content similarity; None: it is computed here.
    pause
        Least gap before a target, as log-bucketed seconds.
    """
    similarity = similarity or partial(content_similarity, catalogue)
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    sequences = _read(folder)
    pair_ranker = PairRanker()
    users = [np.flatnonzero(sequences.newest(domain, pause).numpy() > 0) for domain in range(len(catalogue.of_domain))]
    tasks = []
    for domain, available in enumerate(users):
        if domain == target or not len(available):
            continue
        size = min(len(available), max(len(users[target]), 1))
        subsamples = min(MAX_SUBSAMPLES, -(-PAIRS // min(size, MAX_PAIRS))) if size < len(available) else 1
        for _ in range(subsamples):
            drawn = np.sort(random.permutation(available)[:size])
            part = sequences.take(torch.from_numpy(drawn))
            task = MetaTask.from_sequences(part, catalogue, domain, similarity(domain), settings, MAX_PAIRS, random, pause)
            tasks.append(task)
    if tasks:
        train_ranker(pair_ranker, tasks, 3, 3e-3, random)
    if len(users[target]):
        own = sequences.take(torch.from_numpy(users[target]))
        task = MetaTask.from_sequences(own, catalogue, target, similarity(target), settings, 6 * MAX_PAIRS, random, pause)
        train_ranker(pair_ranker, [task], 2 if tasks else 4, 1e-3 if tasks else 3e-3, random)
    if not tasks:
        pair_ranker.ignore_other_domains()
    return pair_ranker.eval()


def _read(folder: Path) -> PackedSequences:
    """The sequences of the first row groups, up to ``MAX_EVENTS`` events."""
    groups, events = [], 0
    for group in read(Shard(folder, 0, 1), [*ARRAYS, LENGTH]):
        groups.append(group)
        events += int(group[LENGTH].sum())
        if events >= MAX_EVENTS:
            log.info("the pair ranker is trained on %d events, a sample of the users", events)
            break
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    return pack(columns, np.arange(len(columns[LENGTH])))
