"""Training: from pinned tables to a snapshot, ranks, the loop, and a model folder."""
