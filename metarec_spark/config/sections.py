"""The sections of the configuration: every field with its meaning, unit, range and default."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from metarec_spark import columns as c

Format = Literal["parquet", "json", "csv", "delta"]
Count = Annotated[int, Field(ge=1)]
Transfer = Literal["lent", "taught", "pooled", "sample", "frozen", "finetuned", "meta"]


class Section(BaseModel):
    """A table of the configuration file: frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class File(Section):
    """What every input has: a place, a format, and the names of its columns."""

    path: str
    """Where it lies: any URI that Spark reads; folders and globs are allowed."""
    format: Format = "parquet"
    """parquet, json (one object a line), csv (with a header line) or delta."""
    domain: str | None = None
    """Domain of every row, where there is no domain column."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name = the file's column name, for columns that are called something else there."""

    mappable: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _one_domain(self) -> Self:
        if self.domain is not None and c.DOMAIN in self.columns:
            raise ValueError(f"domain = {self.domain!r} and columns.domain = {self.columns[c.DOMAIN]!r}: give one of them")
        return self

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, mapping: dict[str, str]) -> dict[str, str]:
        for name in mapping:
            if name not in cls.mappable:
                raise ValueError(f"no column {name!r} to map{nearest(name, cls.mappable)}; columns are {', '.join(cls.mappable)}")
        return mapping


class Source(File):
    """One behaviour log."""

    user_namespace: str | None = None
    """Put before each user id (``namespace:id``), where ids of this log do not mean the people of the other logs."""
    time_unit: Literal["s", "ms", "us"] = "s"
    """Unit of a numeric event time, counted from 1970-01-01 UTC."""
    day_column: str | None = None
    """Column (often a partition folder) with the day on which a row arrived. Without it, the log is read as one whole."""

    mappable = (c.USER_ID, c.ITEM_ID, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE)


class ItemSource(File):
    """Optional information on items: title, attributes, a content vector."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.TITLE, c.ATTRIBUTES, c.CONTENT)


class ItemList(File):
    """Items, a row each, in an allow or a block list."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.LISTED)


class Cap(File):
    """Groups of items, such as brands or attributes, of which no list holds more than a few."""

    at_most: Count
    """Items of one group in a list. An item may be in several groups; one without a group is not held back."""

    mappable = (c.ITEM_ID, c.DOMAIN, c.GROUP)


class Split(Section):
    """Which events are held out from training."""

    protocol: Literal["none", "leave_one_out", "temporal"] = "none"
    """none: train on everything. leave_one_out: the newest event of each user and domain is the test, the one before it
    the validation. temporal: the first event of each user and domain in the last days is."""
    test_days: Count = 1
    """Days at the end that the temporal test covers."""
    validation_days: Count = 1
    """Days before those that the temporal validation covers."""


class Features(Section):
    """Cleaning and sequences."""

    max_length: Count = 50
    """Newest events kept per user, over all domains."""
    min_user_events: Count = 1
    """Users with fewer events are neither trained on nor recommended to."""
    late_days: Annotated[int, Field(ge=0)] = 2
    """Days that a row may arrive after its event; a day's run reads that far back."""
    max_events_per_hour: Count = 1000
    """A user with more events in one clock hour is a bot in that hour; those rows are rejected."""
    event_types: list[str] = Field(default_factory=list)
    """Event types to accept; others are rejected. Empty: all are accepted."""


class Quality(Section):
    """When a day has lost so much that it is not published."""

    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of a source's rows of the day that may be rejected, and of each domain's in it, copies and bots aside; fewer
    than a hundred rows say nothing."""
    min_events_share: Annotated[float, Field(ge=0)] = 0.0
    """Events of the day that a source must bring to a domain, as a share of the median over the seven days before."""


class Transitions(Section):
    """The transfer model g: which item follows or resembles which.

    max_gap, gap_decay, common_items and successors shape ``item_transitions``. The others say how its signals are weighed; with
    ``train.tune``, each domain finds its own on the validation split. It starts from what an earlier model found, or from these.
    """

    max_gap: Count = 24
    """Longest distance, in events, between two items that count as a transition."""
    gap_decay: Annotated[float, Field(ge=0)] = 0.25
    """A pair at distance g weighs g ** -gap_decay."""
    common_items: Count = 1000
    """A content token of more items than this makes no two of them alike."""
    successors: Count = 256
    """Strongest successors kept per item and domain of the successor."""
    backward: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Weight of later → earlier, relative to earlier → later."""
    popularity_damping: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Weights are divided by the successor's event count to this power."""
    source_damping: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weights are divided by the predecessor's event count to this power."""
    similarity: Annotated[float, Field(ge=0)] = 0.4
    """Weight of content similarity."""
    history: Count = 20
    """Newest events of a user in the domain, and as many elsewhere, that vote for successors."""
    history_decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    """The k-th newest of either votes with history_decay ** k."""
    across_domains: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Weight of the votes from elsewhere; they count in full for a person who has no event in the domain."""


class Model(Section):
    """Shape of the base model f."""

    dim: Annotated[int, Field(ge=2, le=1024)] = 128
    """Width of item and user vectors."""
    blocks: Count = 1
    """Transformer blocks."""
    heads: Count = 1
    """Attention heads; divides dim."""
    state: Literal["attention", "recurrent"] = "attention"
    """How a user's state follows from the events. attention: over all of them. recurrent: by a learnt rule, event by event."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout on the input and on the branches of each block."""
    scale: Annotated[float, Field(gt=0)] = 16.0
    """Logits are scale · cosine(user, item)."""
    cosine: bool = True
    """Score by cosine; false: by the scalar product, without scale."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a step sees an item without its id embedding, by its content alone; items without content keep theirs.
    It prepares content for items that have no events yet."""
    generator: Annotated[int, Field(ge=0)] = 0
    """Hidden width of a network that makes an item's start embedding from its content; id_dropout is what teaches it. 0: the
    content as it is."""
    time_gaps: bool = True
    """Whether the model sees the time between events."""
    adapter: Annotated[int, Field(ge=0)] = 8
    """Rank of each domain's own map of the user state; 0: none."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        return self


class Train(Section):
    """The training run."""

    processes: Count = 1
    """Horovod ranks; 1 trains in this process, without Horovod."""
    launcher: Literal["local", "spark"] = "local"
    """local: ranks on this host. spark: ranks on Spark's executors."""
    method: Literal["joint", "reptile", "fomaml"] = "joint"
    """What a step learns from. joint: all events, one model over all domains at once. reptile, fomaml: meta-training by
    episodes, in which the network adapts to users of one domain; fomaml learns from how other users are then predicted, reptile
    from the way there. Each rank has its own episode of batch_tokens / processes events, and a step averages over them."""
    inner_rate: Annotated[float, Field(gt=0)] = 0.02
    """Step size of the adaptation within an episode: plain gradient descent on the mean loss."""
    inner_steps: Count = 2
    """Steps of it. reptile takes them on the two halves of an episode in turn, so one step is joint training on half the
    events; fomaml takes them all on the first half."""
    epochs: Literal["auto"] | Count = "auto"
    """Passes over the snapshot; auto: at most max_epochs, ended early by the validation split where there is one."""
    max_epochs: Count = 14
    """Length of the learning-rate schedule where epochs is auto."""
    patience: Count = 3
    """Epochs that measure worse than the best, by more than its standard error, before auto stops: first to learn a domain's
    events, then altogether."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Same seed, same data, one process: the same model file."""
    batch_tokens: Annotated[int, Field(ge=16)] = 1024
    """Events to predict in one step over all ranks: the same training, whatever the number of ranks."""
    full_softmax: Annotated[int, Field(ge=0)] = 4_096
    """A domain with at most so many items is learnt by the full softmax."""
    negatives: Count = 4_096
    """Of a domain with more items, so many are drawn a step."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products with the catalogue. auto: bfloat16 where the processor has instructions for it."""
    domain_weights: Literal["events", "domains", "uncertainty"] = "events"
    """λ of the objective: every event counts the same, every domain counts the same, or learned by uncertainty."""
    spectral_start: bool = True
    """Start item embeddings from the spectrum of the transitions instead of from noise alone."""
    token_start: bool = False
    """Start token embeddings from the spectrum of items × tokens, of all domains and of items without events too."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Peak of the learning rate: 5 % linear warm-up, then linear decay to 5 %."""
    tune: bool = True
    """Search each domain's transfer parameters and fusion weights on the validation split; where there is none, take those of
    the newest approved model of an earlier day. false: those of [transitions] hold, and the default fusion.
    ``adapt`` searches all the same."""
    validation_pairs: Count = 6_000
    """Validation (user, domain) pairs of a domain, at most, that the search ranks."""
    stacking_pairs: Annotated[int, Field(ge=0)] = 20_000
    """Validation pairs of a domain, at most, that teach a network to stack f and g, and decide where it is used: where it
    ranks no worse than the plain fusion, beyond noise; not with fewer than 5,000 pairs. 0: nowhere. Needs ``tune``."""
    epoch_pairs: Count = 4_000
    """Of those of all domains, how many are ranked after each epoch, at most."""
    every_days: Count = 7
    """The nightly run trains when the newest approved model is this old, or when there is none."""
    timeout_seconds: Count = 120
    """Longest wait for all ranks to start."""
    threads: Literal["auto"] | Count = "auto"
    """Threads of a rank; auto: the host's cores shared by its ranks, or the cores of a Spark task."""
    reader_pool: Literal["process", "dummy"] = "dummy"
    """Petastorm's reader pool: dummy reads in the rank itself, process in one more process."""


class Evaluate(Section):
    """The evaluation."""

    cutoffs: list[Count] = Field(default_factory=lambda: [5, 10, 20])
    """List lengths k of the metrics @k."""
    few_events: Count = 5
    """A user with at most this many training events in a domain belongs to its segment few_events."""
    long_events: Count = 20
    """A user with at least this many belongs to the segment long_user."""

    @field_validator("cutoffs")
    @classmethod
    def _sorted_unique(cls, cutoffs: list[int]) -> list[int]:
        if not cutoffs or cutoffs != sorted(set(cutoffs)):
            raise ValueError("cutoffs must be ascending, without repeats, and at least one")
        return cutoffs


class Adapt(Section):
    """What is tried for a new or thin domain, and what it may cost."""

    modes: list[Transfer] = Field(default_factory=lambda: list(get_args(Transfer)))
    """Transfers to try (see transfer/modes.py), beside untrained, weighed and scratch, which take nothing from other domains."""
    events: Count = 1_000_000
    """Training events that a candidate of the last round sees, about; those of the rounds before see a quarter and a half."""
    source_events: Count = 200_000
    """Events of other domains' people that a pooled candidate learns beside the domain's own, at most."""
    seeds: Count = 3
    """Seeds of the best transfer and the best plain candidate, where the transfer is ahead with the first."""
    margin: Annotated[float, Field(ge=0)] = 1.645
    """Standard errors by which a transfer must beat each plain candidate, or it is refused; 1.645 is a one-sided test at 5 %."""
    validation_pairs: Count = 6_000
    """Validation pairs of the domain, at most, that candidates are compared on."""


class Recommend(Section):
    """The nightly lists."""

    top_n: Count = 100
    """Items per user and domain."""
    exclude_seen: bool = True
    """Leave out items that the user has had an event with."""
    mode: Literal["auto", "full"] = "auto"
    """full: score every user. auto: the cheapest mode that gives the same table."""
    users: Literal["active", "all"] = "active"
    """active: lists in the domains where a user has events. all: lists in every domain, by events elsewhere (kind cold) or,
    without any, by popularity."""
    min_score: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    """Domain = least score of an item in its lists; lists by popularity, whose scores are counts, are not held to it."""


class Feedback(Section):
    """How lists are held against what happened next."""

    days: Count = 7
    """Days after a list was published in which an event counts as following it."""
    retrain_new_items: Annotated[float, Field(ge=0, le=1)] = 0.2
    """A domain where more than this share of the day's events is with items that the model lacks should be trained again."""


class Maintain(Section):
    """Table upkeep."""

    retention_days: Annotated[int, Field(ge=7)] = 30
    """Old table versions younger than this stay readable; 7 at least, as readers and writers of today need theirs."""


class Spark(Section):
    """The Spark session of the ``metarec`` command; spark-submit takes its own settings instead."""

    master: str = "local[*]"
    """Spark master URL."""
    conf: dict[str, str] = Field(default_factory=dict)
    """Any Spark settings, by their own names."""


def nearest(name: str, known: Sequence[str]) -> str:
    """ ", did you mean …?" where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""
