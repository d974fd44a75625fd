"""Fingerprints of settings: whether a table or a model was made with the same ones."""

from __future__ import annotations

import hashlib
import json

from metarec_spark.config.sections import Section


def fingerprint(*parts: object) -> str:
    """Twelve hex digits that follow from sections and other JSON values; the same in every process."""
    plain = [part.model_dump(mode="json") if isinstance(part, Section) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
