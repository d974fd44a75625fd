"""The configuration: one TOML file, its sections, and how both are checked."""

from metarec_spark.config.loader import Config, load, overridden, parse

__all__ = ["Config", "load", "overridden", "parse"]
