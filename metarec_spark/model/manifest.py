"""The manifest of a model: what it was made from, which settings were found, how training went. File manifest.json."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from metarec_spark.config.renamed import with_new_names
from metarec_spark.config.sections import ExcludeSeen, Features, Model, Split, Train, Transitions
from metarec_spark.model.encoder import Shape
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.unordered import UnorderedWeights
from metarec_spark.model.repeats import RepeatParams
from metarec_spark.model.transitions import TransitionParams

FORMAT, READABLE = 8, (3, 4, 5, 6, 7, 8)
"""3 has no pair ranker, 3 and 4 no stacking; before 6 a pair ranker read other features, before 7 settings had other names; 8
added signals that do not read the order of events."""

_NAMES_SINCE = 7


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)


class DomainSettings(_Record):
    """The settings of the item transition model (g) and of the ensemble (h) in one domain."""

    params: TransitionParams
    """Parameters of g."""
    fusion: Fusion
    """Weights of f and g in h."""
    stacked: bool = False
    """Whether the stacking network makes h here, in place of the plain fusion."""
    repeats: RepeatParams = RepeatParams()
    """The repeat term of h."""
    unordered: UnorderedWeights = UnorderedWeights()
    """Weights of the signals that do not read the order of events."""
    seen_allowed: bool = False
    """Whether held-out events were ranked as in lists that may hold seen items."""


class ValidationNdcg(_Record):
    """Validation NDCG of a domain; None where it was not measured."""

    encoder: float | None = None
    """Of the sequence encoder (f) alone."""
    transitions: float | None = None
    """Of the item transition model (g) alone, or of the pair ranker in its place."""
    ensemble: float | None = None
    """Of the ensemble (h)."""


class Epoch(_Record):
    """What one pass over the snapshot came to."""

    loss: float | None
    """Mean over the events that were predicted; None if there was none."""
    loss_by_domain: list[float | None]
    """The same, in the model's order of domains."""
    validation_ndcg: float | None = Field(validation_alias="validation_ndcg@10", serialization_alias="validation_ndcg@10")
    """Mean NDCG@10 over the validation pairs; None without any."""
    validation_ndcg_by_domain: list[float | None]
    """The same, in the model's order of domains."""
    seconds: float
    sequences: float
    """Sequences read, over all ranks."""
    steps: int


class TrainingMetrics(_Record):
    """How training went; zeros and None for a model without training. Of a refitted model: how the training of its twin went, but
    the times are of both."""

    epochs: int = 0
    """Passes over the snapshot."""
    kept_epoch: int = 0
    """The pass whose parameters the model has, from 1."""
    validation_ndcg: float | None = Field(
        default=None, validation_alias="validation_ndcg@10", serialization_alias="validation_ndcg@10"
    )
    """f's NDCG@10 after the kept epoch."""
    loss: float | None = None
    """Mean loss of the kept epoch."""
    seconds: float = 0.0
    """Of all epochs, those before a resumption included."""
    wall_seconds: float = 0.0
    """Of the run that ended, tuning included."""
    cpu_seconds: float = 0.0
    """The same, over all ranks' processors."""
    history: list[Epoch] = []
    validation: dict[str, ValidationNdcg] = {}
    """By domain, with the settings that were found."""

    def with_refit(self, refit: TrainingMetrics) -> TrainingMetrics:
        """These metrics, which are the twin's, with the time that the refit took as well."""
        times = ("seconds", "wall_seconds", "cpu_seconds")
        return self.model_copy(update={name: round(getattr(self, name) + getattr(refit, name), 1) for name in times})

    def summary(self) -> dict[str, Any]:
        """Plain JSON values without the history, as table ``models`` and result lines have them."""
        return self.model_dump(mode="json", exclude={"history"})


class Manifest(_Record):
    """All that is recorded of a model beside its tensors. Before training, it is a draft without settings and metrics."""

    format: int = FORMAT
    model_id: str = ""
    """Day and fingerprint of data, configuration and code."""
    kind: Literal["base", "adapted"] = "base"
    parent: str | None = None
    """Id of the base model from which it was adapted."""
    mode: str | None = None
    """How it was adapted; see :mod:`metarec_spark.transfer.modes`."""
    serves: list[str]
    """Domains whose lists it may make."""
    domains: list[str]
    """Domains that it knows; their order gives their indexes."""
    event_types: list[str]
    """Event types that it knows; their order gives their indexes, from 1."""
    items: int
    """Items that it knows: those with an index below this."""
    max_length: int
    """Newest events of a user that it reads."""
    gap_buckets: int
    """Buckets of the time between two events."""
    vector_widths: list[int] = []
    """Widths of the given content vectors, in the order of their columns."""
    ds: date
    """Logical day of the training."""
    code_version: str
    table_versions: dict[str, int]
    """Table = version that it was trained on."""
    items_table: str | None = None
    """Identity of table ``items``; models of older versions do not have it."""
    sequences: int = 0
    """Rows of the training snapshot."""
    refitted: bool = False
    """Whether it has learnt the held-out events as well. Its figures are then those of its twin, which has not, and which lies in
    the folder twin beside its files."""
    training_events: int = 0
    """Events in these rows; 0 in models of older versions."""
    model: Model
    transitions: Transitions
    split: Split
    features: Features
    train: Train
    exclude_seen: ExcludeSeen = True
    """As configured: the lists that the settings are found for."""
    stack: dict[str, str] = {}
    """Library = version that it was made with."""
    inherited_from: str | None = None
    """Id of the earlier model whose settings it starts from."""
    inherited: dict[str, DomainSettings] = {}
    """These settings, by domain."""
    tuned: dict[str, DomainSettings] = {}
    """The settings that it has, by domain."""
    metrics: TrainingMetrics = TrainingMetrics()
    sha256: dict[str, str] = {}
    """File = checksum."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        """Read plain JSON values of any readable format.

        Raises
        ------
        pydantic.ValidationError
            If a value is missing, unknown or of a wrong type.
        KeyError
            If a value of an older format is missing.
        """
        values, _ = with_new_names(values, "manifest")  # configuration keys, which may be older than the format
        return cls.model_validate(values if values.get("format", 0) >= _NAMES_SINCE else _upgraded(values))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, which :meth:`from_json` reads."""
        return self.model_dump(mode="json")

    @property
    def shape(self) -> Shape:
        """Sizes of the encoder that follow from the data."""
        return Shape(len(self.domains), len(self.event_types), self.gap_buckets, self.max_length)

    @property
    def initial_settings(self) -> list[DomainSettings]:
        """What the search of settings starts from, in the order of domains: what is inherited, or else configured."""
        configured = DomainSettings(params=TransitionParams.from_settings(self.transitions), fusion=Fusion())
        inherited = [self.inherited.get(name, configured) for name in self.domains]
        return [settings.model_copy(update={"stacked": False}) for settings in inherited]

    @property
    def validated_settings(self) -> dict[str, DomainSettings]:
        """By domain, the settings that a later model inherits: those found on validation events, or inherited before."""
        measured = {name for name, ndcg in self.metrics.validation.items() if ndcg.ensemble is not None}
        return {name: settings for name, settings in self.tuned.items() if name in measured | self.inherited.keys()}


def _upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Give the values of formats 3 to 6 the names that format 7 has."""

    def by_domain(settings: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {
                "params": old["lending"],
                "fusion": {
                    "encoder": old["fusion"]["base"],
                    "transitions": old["fusion"]["transfer"],
                    "sharpness": old["fusion"]["sharpness"],
                },
                "stacked": old.get("stacked", False),
            }
            for name, old in settings.items()
        }

    def ndcg(old: dict[str, float]) -> dict[str, float | None]:
        return {"encoder": old.get("base"), "transitions": old.get("transfer"), "ensemble": old.get("fused")}

    new = dict(values)
    metrics = dict(new.pop("metrics", {}))
    metrics["validation"] = {name: ndcg(old) for name, old in metrics.get("validation", {}).items()}
    renamed = {"loss_of": "loss_by_domain", "validation_ndcg@10_of": "validation_ndcg_by_domain"}
    metrics["history"] = [
        {renamed.get(name, name): value for name, value in epoch.items()} for epoch in metrics.get("history", [])
    ]
    events = new.pop("learnt_events", 0)
    tuned, inherited = (by_domain(new.pop(name, {})) for name in ("tuned", "inherited"))
    return new | {"tuned": tuned, "inherited": inherited, "metrics": metrics, "training_events": events}
