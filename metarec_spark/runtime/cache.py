"""The user's cache folder: jars, a Java wrapper, compiled functions."""

from __future__ import annotations

import os
from pathlib import Path

from metarec_spark.errors import ConfigError


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/metarec_spark``, by default ``~/.cache/metarec_spark``.

    Raises
    ------
    ConfigError
        If neither variable is set and the user has no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarec_spark"
    except RuntimeError:
        raise ConfigError(
            f"user id {os.geteuid()} has no home folder on this machine; set HOME or XDG_CACHE_HOME to a folder that it may write"
        ) from None
