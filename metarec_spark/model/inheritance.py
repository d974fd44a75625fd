"""What a model takes over from one that was trained before, on other domains or on an older catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from metarec_spark.model.bundle import Bundle
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.spectrum import NOISE
from metarec_spark.model.transformer import NextItemModel


@torch.no_grad()
def lend_parameters(base: Bundle, model: NextItemModel, manifest: dict[str, Any], catalogue: Catalogue) -> None:
    """Copy the parameters of ``base`` into ``model`` by what they stand for.

    Items are the same by index, tokens by hash, domains and event types by name; the trunk is taken whole. A domain that the
    base does not know starts as the mean of those that it knows, an item that it does not know with little more than its
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
    items = min(len(known["item.weight"]), len(mine["item.weight"]))
    mine["item.weight"][:items] = known["item.weight"][:items]
    mine["item.weight"][items:] *= NOISE
    _, ours, theirs = np.intersect1d(catalogue.token_hashes, base.catalogue.token_hashes, return_indices=True)
    mine["token.weight"][ours] = known["token.weight"][theirs]
    types = {name: place for place, name in enumerate(base.manifest["event_types"], 1)}
    for place, name in enumerate(manifest["event_types"], 1):
        if name in types:
            mine["event_type.weight"][place] = known["event_type.weight"][types[name]]
    mine["event_type.weight"][0] = known["event_type.weight"][0]
    length = min(len(known["position.weight"]), len(mine["position.weight"]))
    mine["position.weight"][:length] = known["position.weight"][:length]
    for part in ("domain.weight", "query.weight", "adapter_in", "adapter_out"):
        for place, name in enumerate(manifest["domains"]):
            mine[part][place] = known[part][base.domains.index(name)] if name in base.domains else known[part].mean(0)
    for part in ("generator_in", "generator_out"):
        if part in mine:
            mine[part].copy_(known[part])
    if "projection" in mine and manifest["vector_widths"] == base.manifest["vector_widths"]:
        mine["projection"].copy_(known["projection"])
    for part, value in mine.items():
        if part.startswith(("blocks.", "norm.", "gap.")):
            value.copy_(known[part])
