"""The nightly batch recommender that learns across platforms."""

import os

__version__ = "0.1.0"

# How torch's threads wait for one another between operations. A thread that sleeps at once is woken too late for operations as
# small as ours; one that spins for long takes the core that another process needs. With a short spin, two threads trained 1.1 to
# 1.4 × as fast as one on one machine, and slower than one on another: benchmarks/step_time.py --threads 1 and 2 tell.
# Read when torch loads its OpenMP, so it is set before any module of the package can import torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
