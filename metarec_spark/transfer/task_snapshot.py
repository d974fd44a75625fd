"""The training snapshot of a task, as candidates read it on the driver; whatever is derived from it stays in memory. No Spark."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from metarec_spark import columns as c
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.ensemble.pair_ranker import ContentSimilarity, PairRanker, PairSignals, content_similarity
from metarec_spark.model.held_out import HeldOutEvents
from metarec_spark.model.manifest import Manifest
from metarec_spark.training.batches import read_held_out
from metarec_spark.training.reader import Shard
from metarec_spark.training.snapshot import SEQUENCES
from metarec_spark.training.worker import read_catalogue
from metarec_spark.transfer.meta_train import ONE_HOUR, meta_trained_ranker
from metarec_spark.transfer.validation_twin import twin_catalogue
from metarec_spark.warehouse.storage import Location, local_copy


class TaskSnapshot:
    """Training sequences of some users, and the validation and test pairs of the target domain."""

    def __init__(
        self,
        folder: Location,
        manifest: Manifest,
        domain: str,
        similarity: dict[str, ContentSimilarity] | None = None,
        all_domains: TaskSnapshot | None = None,
    ) -> None:
        """Open a snapshot.

        Parameters
        ----------
        manifest
            Draft of the manifest of models that are trained on it.
        domain
            The target domain.
        similarity
            Domain → content similarity; shared by snapshots of the same items, and added to.
        all_domains
            For a snapshot of the target domain's events alone: one with the same pairs whose contexts have the users' events of
            all domains, as the transitions were counted.
        """
        self.folder, self.manifest, self.domain = folder, manifest, domain
        self.target = manifest.domains.index(domain)
        """Position of the target among the domains."""
        self._similarity = {} if similarity is None else similarity
        self._all_domains = all_domains
        self._pairs: dict[str, HeldOutEvents] = {}
        self._signals: dict[str, PairSignals] = {}

    @cached_property
    def _items(self) -> tuple[Catalogue, pa.ChunkedArray]:
        return read_catalogue(self.folder, self.manifest)

    @property
    def catalogue(self) -> Catalogue:
        """The items, with the counts of all training events."""
        return self._items[0]

    @property
    def item_ids(self) -> pa.ChunkedArray:
        """The items' external ids."""
        return self._items[1]

    @cached_property
    def twin_catalogue(self) -> Catalogue:
        """The items without the counts of the newest events, by which validation pairs are ranked; see validation_twin.py."""
        counted = self._all_domains or self
        contexts = with_context(counted.pairs(c.VALIDATION)).contexts
        return twin_catalogue(self.catalogue, contexts, counted.target, self.manifest.transitions)

    def pairs(self, split: str) -> HeldOutEvents:
        """The target's pairs of a split, those without context included."""
        if split not in self._pairs:
            parts = read_held_out(Shard(local_copy(f"{self.folder}/{split}"), 0, 1), without_context=True)
            (self._pairs[split],) = [part for part in parts if part.domain == self.target]
        return self._pairs[split]

    def signals(self, split: str) -> PairSignals:
        """The item signals with which a pair ranker ranks the pairs of a split."""
        if split not in self._signals:
            catalogue = self.twin_catalogue if split == c.VALIDATION else self.catalogue
            rows = np.unique(self.pairs(split).contexts.item.numpy())
            self._signals[split] = PairSignals.from_catalogue(catalogue, self.target, self.similarity(self.target), rows)
        return self._signals[split]

    def similarity(self, domain: int) -> ContentSimilarity:
        """Content similarity of all items to those of a domain."""
        name = self.manifest.domains[domain]
        if name not in self._similarity:
            self._similarity[name] = content_similarity(self.catalogue, domain)
        return self._similarity[name]

    def trained_ranker(self, seed: int) -> PairRanker:
        """Train a pair ranker for the target on the snapshot's sequences.

        If whole days are held out, the first event of a day is to be predicted, which mostly follows a pause: the pair ranker is
        trained on such events.
        """
        pause = ONE_HOUR if self.manifest.split.protocol == "temporal" else 0
        sequences, transitions = local_copy(f"{self.folder}/{SEQUENCES}"), self.manifest.transitions
        return meta_trained_ranker(sequences, self.catalogue, self.target, transitions, seed, self.similarity, pause)


def with_context(pairs: HeldOutEvents) -> HeldOutEvents:
    """The pairs whose context has an event; lists of users without any are ranked by popularity."""
    return pairs.take(np.flatnonzero(pairs.contexts.length.numpy()))
