"""The nightly batch recommender that learns across platforms."""

__version__ = "0.1.0"
