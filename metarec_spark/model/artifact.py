"""The model artifact: a folder with model.safetensors, items.parquet and manifest.json; nothing in it can carry code.

A model that has learnt all events has its twin beside these files, in folder twin: the model that was measured in its place,
since it has not learnt the held-out events.

model.safetensors holds all that scoring needs except the external item ids, which are in items.parquet: parameters, catalogue,
popularity, successors.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn

from metarec_spark.errors import DataError
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.model.ensemble.stacking import Stacking
from metarec_spark.model.ensemble.terms import AdditiveTerms
from metarec_spark.model.ensemble.unordered import UnorderedSignals
from metarec_spark.model.manifest import FORMAT, READABLE, Manifest
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.warehouse.storage import Location, atomic_write, exists, local_copy, read_json, write_json

_PAIR_RANKER_SINCE = 6
_Network = TypeVar("_Network", bound=nn.Module)
TWIN = "twin"
"""Folder of the twin in a model's folder."""
_WEIGHTS, _MANIFEST, _ITEMS = _FILES = "model.safetensors", "manifest.json", "items.parquet"


@dataclass(frozen=True)
class ModelArtifact:
    """A loaded model."""

    manifest: Manifest
    model: NextItemModel
    catalogue: Catalogue
    item_vectors: np.ndarray
    """[I, D] float32, as scores take them."""
    folder: Path
    """Its files on this machine."""
    pair_ranker: PairRanker | None = None
    """Takes the place of g; None: g is used."""
    stacking: Stacking | None = None
    """Combines f and g in the domains where it ranked no worse than the plain fusion; None: in no domain."""
    unordered: Sequence[UnorderedSignals] = ()
    """Signals that do not read the order of events, by domain; none if no domain weighs them."""

    @property
    def domains(self) -> list[str]:
        """Names of the domains; their order gives their indexes."""
        return self.manifest.domains

    @property
    def max_length(self) -> int:
        """Newest events of a user that the model reads."""
        return self.manifest.max_length

    @property
    def untuned(self) -> TransitionParams:
        """Parameters of the item transition model as configured."""
        return TransitionParams.from_settings(self.manifest.transitions)

    @cached_property
    def params(self) -> list[TransitionParams]:
        """Parameters of the item transition model, by domain."""
        return [self.manifest.tuned[name].params for name in self.domains]

    @cached_property
    def fusion(self) -> list[Fusion]:
        """Weights of f and g in h, by domain."""
        return [self.manifest.tuned[name].fusion for name in self.domains]

    @cached_property
    def terms(self) -> list[AdditiveTerms]:
        """The terms that are added to f and g in h, by domain."""
        terms = []
        for domain, (name, items) in enumerate(zip(self.domains, self.catalogue.of_domain, strict=True)):
            tuned, signals = self.manifest.tuned[name], self.unordered[domain].extended(len(items)) if self.unordered else None
            terms.append(AdditiveTerms(domain, items, self.catalogue.events[items], tuned.repeats, tuned.unordered, signals))
        return terms

    @property
    def stacked(self) -> list[bool]:
        """Whether f and g are stacked, by domain."""
        return [self.manifest.tuned[name].stacked for name in self.domains]

    def item_ids(self) -> pa.ChunkedArray:
        """External id of each item in the folder, [I] strings."""
        return pq.read_table(self.folder / _ITEMS, columns=["item_id"])["item_id"]

    def extended(self, catalogue: Catalogue) -> ModelArtifact:
        """The same parameters over a catalogue with added items, which have content and no id embedding."""
        settings, state = self.manifest.model, self.model.state_dict()
        model = NextItemModel(settings, self.manifest.shape, catalogue)
        none = torch.zeros(catalogue.size - self.catalogue.size, settings.dim)
        model.load_state_dict(state | {"item.weight": torch.cat([state["item.weight"], none])})
        vectors = model.eval().catalogue_vectors(first=self.catalogue.size).numpy()
        return replace(self, model=model, catalogue=catalogue, item_vectors=np.concatenate([self.item_vectors, vectors]))


def save(
    location: Location,
    manifest: Manifest,
    model: NextItemModel,
    catalogue: Catalogue,
    item_ids: pa.ChunkedArray,
    pair_ranker: PairRanker | None = None,
    stacking: Stacking | None = None,
    unordered: Sequence[UnorderedSignals] = (),
    twin: Location | None = None,
) -> None:
    """Write a model folder whole, in place of what was there; with a copy of its ``twin`` if there is one."""
    successors = {f"successors.{field.name}": getattr(catalogue.successors, field.name) for field in fields(Successors)}
    tensors = {f"state.{name}": value.detach().numpy() for name, value in model.state_dict().items()}
    tensors |= {
        "item_vectors": model.catalogue_vectors().numpy(),
        "catalogue.domain": catalogue.domain,
        "catalogue.events": catalogue.events,
        "catalogue.tokens": catalogue.tokens,
        "catalogue.weights": catalogue.weights,
        "catalogue.token_hashes": catalogue.token_hashes,
    } | successors
    for part, network in (("pair_ranker", pair_ranker), ("stacking", stacking)):
        if network:
            tensors |= {f"{part}.{name}": value.detach().numpy() for name, value in network.state_dict().items()}
    for domain, signals in enumerate(unordered):
        tensors |= {f"unordered.{domain}.{name}": value for name, value in signals.tensors().items()}
    if catalogue.vectors.size:
        tensors["catalogue.vectors"] = catalogue.vectors
    with atomic_write(location) as folder:
        folder.mkdir(exist_ok=True)
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / _WEIGHTS)
        pq.write_table(pa.table({"item_id": item_ids}), folder / _ITEMS)
        checksums = {name: _sha256(folder / name) for name in (_WEIGHTS, _ITEMS)}
        if twin:
            shutil.copytree(local_copy(twin, _FILES), folder / TWIN, dirs_exist_ok=True)
        write_json(folder / _MANIFEST, manifest.model_copy(update={"format": FORMAT, "sha256": checksums}).to_json())


def saved(location: Location) -> bool:
    """Whether there is a whole model folder."""
    return exists(f"{location}/{_MANIFEST}")


def measured(location: str) -> str:
    """Folder of the model whose quality a model's figures are: of its twin, or of itself if it has not learnt held-out events."""
    return f"{location}/{TWIN}" if read_manifest(location).refitted else location


def read_manifest(location: Location) -> Manifest:
    """Read and check a model's manifest.

    Raises
    ------
    DataError
        If it is missing, of a format that this version does not read, or not what its format says.
    """
    try:
        values = read_json(f"{location}/{_MANIFEST}")
    except ValueError as error:
        raise DataError(f"model {location}: {_MANIFEST} is not JSON ({error}): restore it or train again") from None
    except FileNotFoundError:
        raise DataError(f"model {location}: no {_MANIFEST}; the folder is not a whole model: train again") from None
    if values.get("format") not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise DataError(f"model {location}: format {values.get('format')}, this version reads {known}: train again")
    try:
        return Manifest.from_json(values)
    except (ValidationError, KeyError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": error.args, "msg": "missing"}
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"model {location}: {_MANIFEST}, {where}: {first['msg']}: restore it or train again") from None


def token_hashes(location: Location) -> np.ndarray:
    """Hashes of the tokens that a model knows, int64, without loading the model."""
    with safe_open(local_copy(location, _FILES) / _WEIGHTS, framework="np") as file:
        return file.get_tensor("catalogue.token_hashes")[1:]


def checked(location: Location) -> Manifest:
    """Read a model's manifest after checking that its files are those that were saved.

    Raises
    ------
    DataError
        If a file is missing or its checksum differs; as :func:`read_manifest`.
    """
    manifest, folder = read_manifest(location), local_copy(location, _FILES)
    for name, expected in manifest.sha256.items():
        checksum = _sha256(folder / name) if (folder / name).exists() else "nothing"
        if checksum != expected:
            raise DataError(
                f"model {location}: {name} has sha256 {checksum}, the manifest says {expected}: restore it or train again"
            )
    return manifest


def load(location: Location) -> ModelArtifact:
    """Load a model; raises as :func:`checked`."""
    manifest, folder = checked(location), local_copy(location, _FILES)
    tensors = load_file(folder / _WEIGHTS)
    part = {name: tensors[f"catalogue.{name}"] for name in ("domain", "events", "tokens", "weights", "token_hashes")}
    successors = Successors(**{field.name: tensors[f"successors.{field.name}"] for field in fields(Successors)})
    vectors = tensors.get("catalogue.vectors", np.zeros((len(part["domain"]), 0), np.float32))
    catalogue = Catalogue(**part, vectors=vectors, successors=successors)
    model = NextItemModel(manifest.model, manifest.shape, catalogue)
    model.load_state_dict(_part(tensors, "state."))
    ranker = _part(tensors, "pair_ranker.") or _part(tensors, "weigher.")  # its name until format 6
    if ranker and manifest.format < _PAIR_RANKER_SINCE:
        raise DataError(f"model {location}: a pair ranker of format {manifest.format}, which read other features: adapt again")
    stacking = _part(tensors, "stacking.")
    networks = _network(PairRanker(), ranker), _network(Stacking(), stacking)
    parts = [_part(tensors, f"unordered.{domain}.") for domain in range(len(manifest.domains))]
    unordered = [UnorderedSignals.from_tensors(part) for part in parts if part]
    return ModelArtifact(manifest, model.eval(), catalogue, tensors["item_vectors"], folder, *networks, unordered)


def _network(network: _Network, weights: dict[str, torch.Tensor]) -> _Network | None:
    """Give a network its weights; None if there are none."""
    if not weights:
        return None
    network.load_state_dict(weights)
    return network.eval()


def _part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): torch.from_numpy(value) for name, value in tensors.items() if name.startswith(prefix)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
