"""What the ranks of a training run read: one JSON file beside the snapshot's and the model's folders, on any file system."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_serializer, field_validator, model_validator

from metarec_spark.config.sections import Train
from metarec_spark.model.manifest import Manifest
from metarec_spark.warehouse.storage import Location, read_json, write_json


class TrainSpec(BaseModel):
    """One training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    snapshot: str
    """Folder of the training snapshot."""
    model: str
    """Folder of the model to write."""
    manifest: Manifest
    """The model's manifest so far; its sections are the run's configuration. If it has settings, the model takes them over."""
    threads: int
    """Of one rank."""
    start: str | None = None
    """Folder of the model whose parameters training starts from; None: from an initialisation."""
    previous: str | None = None
    """Folder of the earlier model whose settings the manifest inherits."""
    trained: tuple[str, ...] | None = None
    """Prefixes of the parameters that are trained; the others stay as they are. None: all are trained."""
    targets: list[int] | None = None
    """Domains whose events are predicted; None: all."""
    without_newest: int | None = None
    """Domain whose newest event is left out of each sequence that has another event; see
    :mod:`metarec_spark.transfer.validation_twin`. None: all events are learned."""
    stop_after: int | None = None
    """Epoch after which training stops, without validation, though the learning rate is planned for more; None: the last."""
    twin: str | None = None
    """Folder of the model that was measured. The run is its refit: it trains on all events, without validation, and writes
    the model that serves with the twin's networks and a copy of the twin beside it. None: no refit."""

    @property
    def settings(self) -> Train:
        """Settings of the run: those of the manifest, but a refit that starts from the twin is short."""
        train = self.manifest.train
        if self.twin is None or self.start != self.twin:
            return train
        return train.model_copy(update={"epochs": train.refit_epochs})

    @model_validator(mode="after")
    def _whole_sequences(self) -> TrainSpec:
        if self.without_newest is not None and self.manifest.train.method != "joint":
            raise ValueError("without_newest needs train.method = joint: an episode's rows end at different events")
        return self

    @field_validator("manifest", mode="before")
    @classmethod
    def _read_manifest(cls, values: object) -> object:
        return Manifest.from_json(values) if isinstance(values, dict) else values

    @field_serializer("manifest")
    def _write_manifest(self, manifest: Manifest) -> dict[str, object]:
        return manifest.to_json()

    @classmethod
    def read(cls, file: Location) -> TrainSpec:
        """Read a spec file."""
        return cls.model_validate(read_json(file))

    def write(self, file: Location) -> None:
        """Write the spec file whole."""
        write_json(file, self.model_dump(mode="json"))
