"""A transfer task: a domain, the base model, and the snapshots that candidates are trained on, written from pinned tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from metarec_spark import __version__, registry
from metarec_spark import columns as c
from metarec_spark.config.fingerprint import fingerprint
from metarec_spark.errors import ConfigError, DataError
from metarec_spark.features.as_of import transitions_as_of, users_as_of
from metarec_spark.features.catalogue import TOKENS, TRANSITIONS, VECTORS
from metarec_spark.features.split import NOTHING_HELD_OUT, held_out, train_part
from metarec_spark.job import Job, log
from metarec_spark.model.ensemble.pair_ranker import ContentSimilarity
from metarec_spark.model.manifest import FORMAT, Manifest
from metarec_spark.registry import ModelRow
from metarec_spark.training import snapshot
from metarec_spark.training.manifest import PINNED, KnownNames, draft, known_names
from metarec_spark.transfer.task_features import task_meta_features
from metarec_spark.transfer.task_snapshot import TaskSnapshot
from metarec_spark.transfer.user_sampling import importance_weights, is_user_of, sample_users
from metarec_spark.warehouse.storage import Location, exists, read_json, write_json

_MIN_PAIRS = 20


@dataclass(frozen=True)
class Task:
    """One adaptation of the base model to a domain."""

    job: Job
    domain: str
    base: ModelRow
    """The newest approved base model."""
    versions: dict[str, int]
    """Table = version that is read."""
    run: str
    """Id of the adaptation: it follows from day, data, base model, configuration and code."""
    users: DataFrame
    """All users' sequences, with the events that are held out."""
    tables: dict[str, DataFrame]
    """items, item_content and item_transitions."""
    draft: Manifest
    """What the manifests of all candidates have in common."""
    pairs: int
    """Validation pairs of the domain."""
    source_events: int
    """Events of users who have none in the domain."""
    _similarity: dict[str, ContentSimilarity] = field(default_factory=dict)
    _opened: dict[tuple[str, bool], TaskSnapshot] = field(default_factory=dict)

    @classmethod
    def from_tables(cls, job: Job, domain: str) -> Task:
        """Read what the tables say of the task.

        Raises
        ------
        ConfigError
            If nothing is held out.
        DataError
            If the domain has no items, or too few validation pairs to choose on.
        ModelRejected
            If there is no approved base model.
        """
        config = job.config
        if config.split.protocol == "none":
            raise ConfigError("split.protocol = none: adapt chooses on held-out events; set it to leave_one_out or temporal")
        base = registry.newest_approved(job)
        versions = {name: job.warehouse.version(name) for name in PINNED}
        tables = {name: job.warehouse.read(name, versions[name]) for name in (c.ITEMS, c.ITEM_CONTENT)}
        sequences = users_as_of(job, job.ds, versions, config.features)
        known = known_names(sequences, tables[c.ITEMS], config)
        if domain not in known.domains:
            raise DataError(f"domain {domain!r} has no item; known are {', '.join(known.domains)}: extract its log first")
        users = held_out(sequences, config.split, job.ds, config.features)
        has_pair = F.exists("targets", lambda target: (target["domain"] == domain) & (target["split"] == c.VALIDATION))
        elsewhere = F.when(~is_user_of(domain), F.size(c.ITEM_IDX)).otherwise(0)
        ((pairs, source_events),) = users.agg(F.count(F.when(has_pair, 1)), F.sum(elsewhere)).collect()
        if pairs < _MIN_PAIRS:
            raise DataError(
                f"domain {domain!r} has {pairs} held-out validation events, {_MIN_PAIRS} are needed to choose on: wait for "
                "more events; until then the base model serves it"
            )
        sections = [config.split, config.features, config.transitions, config.model, config.train, config.adapt]
        # Without the version of events: every extract writes one, and what is trained on is the sequences.
        inputs = {name: version for name, version in versions.items() if name != c.EVENTS}
        run = fingerprint(*sections, domain, base.model_id, inputs, job.ds.isoformat(), __version__, FORMAT)
        adapted = {"kind": "adapted", "parent": base.model_id, "serves": [domain]}
        manifest = draft(job, "", versions, known, 0).model_copy(update=adapted)
        task = cls(job, domain, base, versions, run, users, tables, manifest, pairs, source_events)
        tables[c.ITEM_TRANSITIONS] = transitions_as_of(job, users, config.split, versions, f"{task.work}/{c.ITEM_TRANSITIONS}")
        return task

    @property
    def work(self) -> str:
        """Folder of everything that is temporary."""
        return self.job.warehouse.path(f"_training/adapt-{self.run}")

    def meta_features(self) -> dict[str, float]:
        """Task meta-features; see :func:`metarec_spark.transfer.task_features.task_meta_features`."""
        return task_meta_features(train_part(self.users), self.tables[c.ITEM_CONTENT], self.domain)

    def snapshots(self, events: Iterable[str]) -> dict[str, TaskSnapshot]:
        """Write the snapshots of :attr:`metarec_spark.transfer.modes.Mode.events`, unless they are there, and open them."""
        return {name: self._snapshot(name) for name in dict.fromkeys(events)}

    def all_events(self, events: str) -> TaskSnapshot:
        """Write a snapshot in which the held-out events are training events as well, unless it is there, and open it."""
        return self._snapshot(events, all_events=True)

    def _snapshot(self, events: str, *, all_events: bool = False) -> TaskSnapshot:
        key = events, all_events
        if key in self._opened:
            return self._opened[key]
        all_domains = self._snapshot("users") if events == "own" and not all_events else None
        folder = f"{self.work}/{events}-all" if all_events else f"{self.work}/{events}"
        done = f"{folder}.json"
        if not exists(done):
            write_json(done, self._write(events, folder, all_events).to_json())
        manifest = Manifest.from_json(read_json(done))
        self._opened[key] = TaskSnapshot(folder, manifest, self.domain, self._similarity, all_domains)
        return self._opened[key]

    def _write(self, events: str, folder: str, all_events: bool) -> Manifest:
        """Write a snapshot and return the draft of its candidates' manifests."""
        config = self.job.config
        domains = [self.domain] if events == "own" else self.draft.domains
        known = replace(KnownNames.of_model(self.draft), domains=domains)
        own_users = self.users.where(is_user_of(self.domain))
        trained = own_users
        if events in ("uniform", "weighted"):
            trained = own_users.unionByName(self._sampled(weighted=events == "weighted").select(*own_users.columns))
        pairs = {"validation_pairs": config.adapt.validation_pairs, "stacking_pairs": 0, "method": "joint"}
        train, tables = config.train.model_copy(update=pairs), self.tables
        # A candidate that starts from the base model knows the items of everybody's events.
        counted = self.users if events == "users" else trained
        if all_events:
            frames = (trained, counted, self.users)
            trained, counted, everybody = (held_out(frame, NOTHING_HELD_OUT, self.job.ds) for frame in frames)
            scratch = f"{self.work}/all/{c.ITEM_TRANSITIONS}"
            transitions = transitions_as_of(self.job, everybody, NOTHING_HELD_OUT, self.versions, scratch)
            tables = tables | {c.ITEM_TRANSITIONS: transitions}
        splits = () if all_events else (c.VALIDATION, c.TEST)
        same: dict[str, Location] = {}
        for (_, counts_all), other in self._opened.items():
            same |= dict.fromkeys((TOKENS, VECTORS), other.folder)
            same |= {TRANSITIONS: other.folder} if counts_all == all_events else {}
        rows, size = snapshot.write(folder, trained, own_users, tables, known, [self.domain], train, splits, counted, same)
        log.info("snapshot %s: %d sequences, %d events", folder.rpartition("/")[2], rows, size)
        return self.draft.model_copy(update={"domains": domains, "sequences": rows, "training_events": size})

    def _sampled(self, weighted: bool) -> DataFrame:
        """Users without an event in the domain, with ``adapt.source_events`` events at most."""
        config = self.job.config
        others, weight = self.users.where(~is_user_of(self.domain)), None
        if weighted:
            weights = importance_weights(self.users, self.tables[c.ITEM_CONTENT], self.domain)
            others, weight = others.join(weights, c.USER_ID), F.col("weight")
        return sample_users(others, config.adapt.source_events, weight, config.train.seed)
