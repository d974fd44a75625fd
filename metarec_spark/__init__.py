"""The nightly batch recommender that learns across platforms."""

import os

__version__ = "0.1.0"

# A thread that waits by spinning takes the core that another one needs: torch beside a JVM, or several ranks on one host.
# Read when torch loads its OpenMP, so it is set before any module of the package can import torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
