"""Warm start: a model takes over the parameters of one that was trained before, on other domains or an older catalogue."""

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
    """Copy the parameters of ``base`` into ``model`` by their meaning.

    Items are matched by index, tokens by hash, domains and event types by name; the blocks are copied whole. Parameters of what
    the base model has no event of are not copied: such a domain starts as the mean of the others, such an item with little more
    than its content.

    Parameters
    ----------
    manifest, catalogue
        Of ``model``: its names of domains and event types, and its tokens.

    Notes
    -----
    Both models must have the same width, blocks, heads, kind of state, adapter and generator.
    """
    trained, state = base.model.state_dict(), model.state_dict()
    state["item.weight"] *= NOISE
    (items,) = np.nonzero(base.catalogue.events[: len(state["item.weight"])])
    state["item.weight"][items] = trained["item.weight"][items]
    _, tokens, base_tokens = np.intersect1d(catalogue.token_hashes, base.catalogue.token_hashes, return_indices=True)
    state["token.weight"][tokens] = trained["token.weight"][base_tokens]
    types = {name: index for index, name in enumerate(base.manifest.event_types, 1)}
    for index, name in enumerate(manifest.event_types, 1):
        if name in types:
            state["event_type.weight"][index] = trained["event_type.weight"][types[name]]
    state["event_type.weight"][0] = trained["event_type.weight"][0]
    length = min(len(trained["position.weight"]), len(state["position.weight"]))
    state["position.weight"][:length] = trained["position.weight"][:length]
    domains = {
        name: index for index, name in enumerate(base.domains) if base.catalogue.events[base.catalogue.of_domain[index]].any()
    }
    for part in ("domain.weight", "query.weight", "adapter_in", "adapter_out"):
        mean = trained[part][list(domains.values())].mean(0)
        for index, name in enumerate(manifest.domains):
            state[part][index] = trained[part][domains[name]] if name in domains else mean
    for part in ("generator_in", "generator_out"):
        if part in state:
            state[part].copy_(trained[part])
    if "projection" in state and manifest.vector_widths == base.manifest.vector_widths:
        state["projection"].copy_(trained["projection"])
    for part, value in state.items():
        if part.startswith(("blocks.", "norm.", "gap.")):
            value.copy_(trained[part])
