"""The cache of what a user need not fetch or compile again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Of what a user need not fetch or make again: ``$XDG_CACHE_HOME/metarec_spark``, by default ``~/.cache/metarec_spark``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarec_spark"
