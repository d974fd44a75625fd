"""The nightly batch recommender that learns across platforms."""

import os

__version__ = "0.1.0"

# How torch's threads wait for one another between operations. A thread that sleeps at once is woken too late for operations as
# small as ours (two threads train 0.7 to 1.1 × as fast as one); one that spins for long takes the core that another process
# needs (0.1 ×). A short spin: 1.1 to 1.4 ×, beside a busy process 0.5 ×; benchmarks/step_time.py shows it.
# Read when torch loads its OpenMP, so it is set before any module of the package can import torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
