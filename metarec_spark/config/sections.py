"""The sections of the configuration: every key with its meaning, unit, range, default and tier."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from metarec_spark.config.base import Advanced, Count, Experimental, Section, Zone
from metarec_spark.config.inputs import Cap, File, ItemList, ItemSource, Source

__all__ = ["Cap", "File", "ItemList", "ItemSource", "Section", "Source"]

Transfer = Literal[
    "meta_trained_ranker",
    "fine_tuned",
    "cross_domain_heuristic",
    "joint",
    "importance_sampled",
    "frozen_encoder",
    "fine_tuned_from_meta",
]


class Split(Section):
    """Which events are held out from training, to tune and to judge the model."""

    protocol: Literal["none", "leave_one_out", "temporal"] = "leave_one_out"
    """leave_one_out: the newest event of each user on each platform is the test event, and the one before it the validation
    event. temporal: the test event is the first event of each user on each platform within the last `test_days` days, and the
    validation event the first one within the `validation_days` days before them. none: nothing is tuned and nothing is measured.
    With each, the model that serves has learnt all events; see `train.refit_epochs`."""
    test_days: Advanced[Count] = 1
    """Days at the end of the log from which temporal takes test events."""
    validation_days: Advanced[Count] = 1
    """Days before the test days from which temporal takes validation events."""


class Platforms(Section):
    """Names of platforms."""

    alias: dict[str, str] = Field(default_factory=dict)
    """Name in the inputs = name in the product, for platforms that some inputs name otherwise: `{ store = "shop" }`. It holds for
    logs, items and lists alike; commands and the other keys take the product's name."""

    @field_validator("alias")
    @classmethod
    def _no_chain(cls, alias: dict[str, str]) -> dict[str, str]:
        for old, new in alias.items():
            if not old.strip() or not new.strip() or new in alias:
                why = "a name is blank" if not old.strip() or not new.strip() else f"{new!r} has an alias itself"
                raise ValueError(f"{old!r} = {new!r}: {why}; give each name the one by which the product knows the platform")
        return alias


class Features(Section):
    """Cleaning of events, and users' sequences."""

    max_length: Count = 100
    """Newest events of a user that a sequence holds, over all platforms."""
    min_user_events: Advanced[Count] = 1
    """Users with fewer events are neither trained on nor get lists."""
    late_days: Advanced[Annotated[int, Field(ge=0)]] = 2
    """Days by which a row may arrive after its event, in a source with `day_column`; later rows are rejected."""
    max_events_per_hour: Advanced[Count] = 1000
    """A user with more events than this within one clock hour counts as a bot in that hour: these events are rejected."""
    first_day: Advanced[Annotated[date, Field(strict=False)]] = date(1995, 1, 1)
    """First plausible day: an earlier event time is rejected as `bad_time`."""
    day_zone: Advanced[Zone] = "UTC"
    """Time zone of the days: of `--ds`, of arrival days, and of the days by which tables are divided. Times stay in UTC. If it is
    changed, all files that are there are read again."""
    event_types: list[str] = Field(default_factory=list)
    """Event types to accept; rows of other types are rejected. Empty: all types are accepted."""
    dislike_below: dict[str, float] = Field(default_factory=dict)
    """Platform = least `value` of an event that is no dislike, such as `{ films = 3 }` where `value` is a rating from 1 to 5.
    Models do not learn from dislikes, and nothing is measured by them; their items count as seen. Platforms that are not named
    have no dislikes."""
    dislike_types: Advanced[dict[str, list[str]]] = Field(default_factory=dict)
    """Platform = event types that are dislikes, whatever their `value`, such as `{ films = ["thumbs_down"] }`."""
    context_types: dict[str, list[str]] = Field(default_factory=dict)
    """Platform = event types that say what a user looks for but are not what lists are for, such as `{ shop = ["view"] }`. Models
    read these events, and are neither trained nor measured to predict them: the popularity of an item, the events that are held
    out, the items that count as seen and the feedback are those of the other types."""


class Quality(Section):
    """When a day has lost so many rows that it is stopped: not published until it is mended or accepted (`metarec accept`). When
    names of a catalogue or a list do not meet those of the log."""

    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Largest share of a source's rows of the day that may be rejected, and of each platform's rows in the source. Duplicates and
    bots do not count, and fewer than 100 rows are never refused."""
    min_events_share: Advanced[Annotated[float, Field(ge=0)]] = 0.0
    """Least number of events that a source must bring to a platform on the day, as a share of the median of the seven days
    before. 0: no such limit."""
    max_lost_share: Advanced[Annotated[float, Field(ge=0, le=1)]] = 0.1
    """Largest share of a day's stored events that a source with `delivery = "complete"` may remove."""
    min_known_share: Advanced[Annotated[float, Field(ge=0, le=1)]] = 0.01
    """Least share of the rows of a platform's catalogue that name an item with events (or, if those are fewer, of the items with
    events that have a row), and of the rows of a list (`[[allow]]`, `[[block]]`, `[[cap]]`) that name a known item. Below it,
    their ids are not those of the log, and the run stops. Fewer than 100 rows are never refused. What does not match is counted
    and told in any case."""


class Transitions(Section):
    """The item transition model (g): which item follows, precedes or resembles which.

    max_gap, gap_decay, common_items and successors shape the table item_transitions. The other keys weight its signals. If
    `train.tune` is true, each platform's weights are found on held-out events, starting from the newest approved model's weights
    or from these.
    """

    max_gap: Advanced[Count] = 24
    """Longest distance, in events of one user, at which two items count as a transition."""
    gap_decay: Advanced[Annotated[float, Field(ge=0)]] = 0.25
    """Two items at distance d add d ** -gap_decay to the transition's count."""
    common_items: Advanced[Count] = 1000
    """A content token that more items than this have does not make two items similar."""
    successors: Advanced[Count] = 256
    """Strongest neighbours stored per item and platform of the neighbour."""
    backward: Advanced[Annotated[float, Field(ge=0, le=1)]] = 0.3
    """Weight of transitions from the later to the earlier item, relative to the forward ones."""
    popularity_damping: Advanced[Annotated[float, Field(ge=0, le=1)]] = 0.3
    """Weights are divided by the following item's number of events to this power."""
    source_damping: Advanced[Annotated[float, Field(ge=0, le=1)]] = 0.1
    """Weights are divided by the preceding item's number of events to this power."""
    similarity: Advanced[Annotated[float, Field(ge=0)]] = 0.4
    """Weight of the content similarity of two items."""
    history: Advanced[Count] = 20
    """Newest events of a user on the platform, and as many on other platforms, whose neighbours are scored."""
    history_decay: Advanced[Annotated[float, Field(gt=0, le=1)]] = 0.7
    """The k-th newest of these events, counted from 0, has the weight history_decay ** k."""
    across_domains: Advanced[Annotated[float, Field(ge=0, le=1)]] = 0.3
    """Weight of events on other platforms. It is 1 for a user who has no event on the platform."""


class Model(Section):
    """Shape of the sequence encoder (f)."""

    dim: Advanced[Annotated[int, Field(ge=2, le=1024)]] = 128
    """Width of item vectors and user vectors."""
    blocks: Advanced[Count] = 1
    """Number of Transformer blocks."""
    heads: Advanced[Count] = 1
    """Attention heads; must divide `dim`."""
    state: Experimental[Literal["attention", "recurrent"]] = "attention"
    """How a user's state follows from the events. attention: self-attention over all of them. recurrent: a learned update, event
    by event."""
    dropout: Advanced[Annotated[float, Field(ge=0, lt=1)]] = 0.5
    """Dropout probability on the input and on the branches of each block."""
    scale: Advanced[Annotated[float, Field(gt=0)]] = 16.0
    """Logits are scale · cosine(user, item): the inverse temperature of the softmax."""
    cosine: Advanced[bool] = True
    """Score by cosine. false: by the dot product, without `scale`."""
    id_dropout: Experimental[Annotated[float, Field(ge=0, lt=1)]] = 0.0
    """Probability that a training step sees an item without its id embedding, by its content alone. It prepares the content
    parameters for items that have no events yet. Items without content always keep their id embedding."""
    generator: Experimental[Annotated[int, Field(ge=0)]] = 0
    """Hidden width of a network that generates an item's initial embedding from its content; train it with `id_dropout` above 0.
    0: the content vector is used as it is."""
    time_gaps: Advanced[bool] = True
    """Whether the model sees the time between events."""
    adapter: Advanced[Annotated[int, Field(ge=0)]] = 8
    """Rank of each platform's own low-rank map of the user state. 0: none."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        return self


class Train(Section):
    """The training run."""

    processes: Count = 1
    """Horovod ranks. 1: train in this process, without Horovod."""
    launcher: Literal["local", "spark"] = "local"
    """Where the ranks run. local: on this host. spark: on Spark's executors, one rank per task."""
    method: Experimental[Literal["joint", "reptile", "fomaml"]] = "joint"
    """What a step learns from. joint: events of all platforms at once. reptile, fomaml: meta-training by episodes, in which the
    network adapts to users of one platform. fomaml takes the gradient of how well other users are then predicted; reptile moves
    towards the adapted parameters. Each rank has its own episode of batch_tokens / processes events, and a step averages over
    them."""
    inner_rate: Experimental[Annotated[float, Field(gt=0)]] = 0.02
    """Step size of the adaptation within an episode: plain gradient descent on the mean loss."""
    inner_steps: Experimental[Count] = 2
    """Steps of the adaptation within an episode. reptile alternates between the two halves of the episode; fomaml takes all steps
    on the first half."""
    epochs: Advanced[Literal["auto"] | Count] = "auto"
    """Passes over the snapshot. auto: at most `max_epochs`, stopped early on the validation events if there are any."""
    max_epochs: Advanced[Count] = 14
    """Length of the learning-rate schedule if `epochs` is auto."""
    patience: Advanced[Count] = 3
    """If `epochs` is auto: epochs in a row that are worse than the best one by more than its standard error, before a platform's
    events are no longer trained on, and before training stops."""
    seed: Advanced[Annotated[int, Field(ge=0)]] = 0
    """Random seed. The same seed, data and a single process give the same model file."""
    batch_tokens: Advanced[Annotated[int, Field(ge=16)]] = 1024
    """Events to predict per step, over all ranks together: the training is the same for any number of ranks."""
    full_softmax: Advanced[Annotated[int, Field(ge=0)]] = 4_096
    """Platforms with at most this many items are trained with the full softmax."""
    negatives: Advanced[Count] = 4_096
    """Negatives drawn per step for a platform with more items than `full_softmax`."""
    precision: Advanced[Literal["auto", "float32", "bfloat16"]] = "auto"
    """Number format of the products with the catalogue. auto: bfloat16 if the processor has instructions for it."""
    domain_weights: Experimental[Literal["events", "domains", "uncertainty"]] = "events"
    """Weights λ of the platforms in the objective: every event counts the same, every platform counts the same, or weights are
    learned by homoscedastic uncertainty."""
    spectral_init: Advanced[bool] = True
    """Initialise item embeddings with the eigenvectors of the transition matrix instead of with noise alone."""
    token_init: Experimental[bool] = False
    """Initialise token embeddings with the singular vectors of the item × token matrix of all platforms, items without events
    included."""
    learning_rate: Advanced[Annotated[float, Field(gt=0)]] = 2e-3
    """Peak learning rate: linear warm-up over 5 % of the steps, then linear decay to 5 % of the peak."""
    refit_epochs: Advanced[Annotated[int, Field(ge=0)]] = 2
    """Passes over all events, those held out included, after tuning. They make the model that serves; the model before them, its
    twin, is what `metarec evaluate` measures. If more than half of all events were held out, the model that serves is trained
    anew instead, for as many epochs as its twin. 0: the twin itself serves, and nobody's held-out events are ever learnt."""
    tune: Advanced[bool] = True
    """Search each platform's transition weights and ensemble weights on held-out events; without held-out events, take those of
    the newest approved model of an earlier day. false: use those of [transitions] and the default ensemble. `metarec adapt`
    always searches."""
    validation_pairs: Advanced[Count] = 6_000
    """Held-out (user, platform) pairs per platform, at most, that the search ranks."""
    stacking_pairs: Advanced[Annotated[int, Field(ge=0)]] = 20_000
    """Held-out pairs per platform, at most, that train the stacking network of the ensemble (h). It is used on platforms where it
    ranks no worse than the plain combination, within noise, and that have at least 5,000 such pairs. 0: nowhere. Needs `tune`."""
    epoch_pairs: Advanced[Count] = 4_000
    """Held-out pairs of all platforms together, at most, that are ranked after each epoch."""
    every_days: Count = 7
    """`metarec nightly` trains if the newest approved model is at least this many days old, or if there is none."""
    timeout_seconds: Advanced[Count] = 120
    """Longest wait for all ranks to start, in seconds."""
    threads: Advanced[Literal["auto"] | Count] = "auto"
    """Threads per rank. auto: the cores that the process may use divided by the ranks, or the cores of a Spark task."""


class Evaluate(Section):
    """The evaluation on held-out events."""

    cutoffs: Advanced[list[Count]] = Field(default_factory=lambda: [5, 10, 20])
    """List lengths k of the metrics @k, ascending."""
    few_events: Advanced[Count] = 5
    """A user with at most this many training events on a platform belongs to its segment few_events."""
    long_events: Advanced[Count] = 20
    """A user with at least this many training events on a platform belongs to its segment long_user."""

    @field_validator("cutoffs")
    @classmethod
    def _sorted_unique(cls, cutoffs: list[int]) -> list[int]:
        if not cutoffs or cutoffs != sorted(set(cutoffs)):
            raise ValueError("cutoffs must be ascending, without repeats, and at least one")
        return cutoffs


def _default_transfers() -> list[Transfer]:
    return ["meta_trained_ranker", "fine_tuned"]


class Adapt(Section):
    """Candidates that `metarec adapt` trains for a new or thin platform, and what they may cost."""

    modes: Advanced[list[Transfer]] = Field(default_factory=_default_transfers)
    """Transfer candidates to try, beside the baselines, which use the platform's own events alone. The default has those that
    have beaten the baselines by more than noise; docs/new-platform.md describes all of them."""
    training_events: Advanced[Count] = 1_000_000
    """Training events, about, that a candidate of the last round sees; the rounds before see a quarter and a half of them."""
    source_events: Advanced[Count] = 200_000
    """Events of other platforms' users, at most, that a jointly trained candidate sees beside the platform's own."""
    seeds: Advanced[Count] = 3
    """Seeds of the best transfer candidate and of the strongest baseline, if the first seed leaves the decision unclear."""
    margin: Advanced[Annotated[float, Field(ge=0)]] = 1.645
    """Standard errors by which a transfer must beat every baseline, or it is rejected. 1.645: a one-sided test at 5 %."""
    validation_pairs: Advanced[Count] = 6_000
    """Held-out (user, platform) pairs of the platform, at most, on which candidates are compared."""
    predictor: Experimental[bool] = False
    """Predict the gain of each transfer candidate from earlier adaptations, if there are eight or more, and leave out hopeless
    ones. Needs scikit-learn: `pip install "metarec-spark[predictor]"`."""


ExcludeSeen = bool | Literal["auto"] | dict[str, bool | Literal["auto"]]


class Recommend(Section):
    """The nightly lists."""

    top_n: Count = 100
    """Items per user and platform."""
    exclude_seen: ExcludeSeen = "auto"
    """Leave out items that the user has had an event with: on all platforms, or platform = true, false or auto (others: auto).
    auto: unless a fifth or more of the platform's held-out events were with such items, as training found; true if it held out
    nothing."""
    mode: Advanced[Literal["auto", "full"]] = "auto"
    """full: score every user. auto: score only the users whose inputs changed, if that gives the same table."""
    users: Literal["active", "all"] = "active"
    """active: a list on each platform where the user has events. all: a list on every platform, by events on other platforms
    (kind cold) or, if there are none, by popularity."""
    min_score: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    """Platform = least score of an item in its lists. Lists by popularity, whose scores are counts, are exempt."""

    @field_validator("exclude_seen", mode="before")
    @classmethod
    def _known_choice(cls, value: object) -> object:
        choices = value.values() if isinstance(value, dict) else [value]
        if not all(isinstance(choice, bool) or choice == "auto" for choice in choices):
            raise ValueError("expected true, false or auto, or one of them for each platform")
        return value


def excludes_seen(setting: ExcludeSeen, domain: str, *, auto: bool) -> bool:
    """Return whether a platform's lists leave out seen items; ``auto`` stands in for the choice auto."""
    choice = setting.get(domain, "auto") if isinstance(setting, dict) else setting
    return auto if choice == "auto" else bool(choice)


class Feedback(Section):
    """How lists are compared with later events."""

    days: Advanced[Count] = 7
    """Days after a list was published in which an event with a recommended item counts as a hit."""
    retrain_new_items: Advanced[Annotated[float, Field(ge=0, le=1)]] = 0.2
    """A platform is reported for retraining if more than this share of the day's events is with items that the model does not
    know."""


class Maintain(Section):
    """Table upkeep."""

    retention_days: Annotated[int, Field(ge=7)] = 30
    """Table versions younger than this stay readable. At least 7, since running readers and writers need their versions."""


class Lock(Section):
    """The lock that lets one job at a time write to the warehouse."""

    timeout_seconds: Advanced[Count] = 21_600
    """Longest wait for another job to end. A job that waited longer ends with exit code 5 and has done nothing."""


class Spark(Section):
    """The Spark session of the `metarec` command. Jobs under spark-submit take spark-submit's settings instead."""

    master: str = "local[*]"
    """Spark master URL."""
    conf: dict[str, str] = Field(default_factory=dict)
    """Any Spark settings, by Spark's own names."""
