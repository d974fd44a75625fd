"""What a model takes over from one that was trained before, on other domains or on an older catalogue."""

from __future__ import annotations

import numpy as np
import torch

from metarec_spark.model.artifact import ModelArtifact
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.manifest import Manifest
from metarec_spark.model.spectral_init import NOISE


@torch.no_grad()
def warm_start(base: ModelArtifact, model: NextItemModel, manifest: Manifest, catalogue: Catalogue) -> None:
    """Copy the parameters of ``base`` into ``model`` by what they stand for.

    Items are the same by index, tokens by hash, domains and event types by name; the trunk is taken whole. What the base has no
    event of, it has learnt nothing of: such a domain starts as the mean of the others, such an item with little more than its
    content.

    Parameters
    ----------
    manifest, catalogue
        Of ``model``: its names of domains and event types, and its tokens.

    Notes
    -----
    Both must have the same width, blocks, heads, kind of state, adapter and generator.
    """
    known, mine = base.model.state_dict(), model.state_dict()
    mine["item.weight"] *= NOISE
    (learnt,) = np.nonzero(base.catalogue.events[: len(mine["item.weight"])])
    mine["item.weight"][learnt] = known["item.weight"][learnt]
    _, ours, theirs = np.intersect1d(catalogue.token_hashes, base.catalogue.token_hashes, return_indices=True)
    mine["token.weight"][ours] = known["token.weight"][theirs]
    types = {name: place for place, name in enumerate(base.manifest.event_types, 1)}
    for place, name in enumerate(manifest.event_types, 1):
        if name in types:
            mine["event_type.weight"][place] = known["event_type.weight"][types[name]]
    mine["event_type.weight"][0] = known["event_type.weight"][0]
    length = min(len(known["position.weight"]), len(mine["position.weight"]))
    mine["position.weight"][:length] = known["position.weight"][:length]
    places = {
        name: place for place, name in enumerate(base.domains) if base.catalogue.events[base.catalogue.of_domain[place]].any()
    }
    for part in ("domain.weight", "query.weight", "adapter_in", "adapter_out"):
        mean = known[part][list(places.values())].mean(0)
        for place, name in enumerate(manifest.domains):
            mine[part][place] = known[part][places[name]] if name in places else mean
    for part in ("generator_in", "generator_out"):
        if part in mine:
            mine[part].copy_(known[part])
    if "projection" in mine and manifest.vector_widths == base.manifest.vector_widths:
        mine["projection"].copy_(known["projection"])
    for part, value in mine.items():
        if part.startswith(("blocks.", "norm.", "gap.")):
            value.copy_(known[part])
