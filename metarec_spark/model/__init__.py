"""The model: a Transformer over mixed sequences, its loss, its file. Torch, and nothing of Spark."""

import os

# A thread that waits by spinning takes the core that another one needs: torch beside a JVM, or several ranks on one host.
# Read when torch loads its OpenMP, so it is set before any module here imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
