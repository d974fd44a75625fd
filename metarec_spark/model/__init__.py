"""The model: a Transformer over mixed sequences, its loss, its file. Torch, and nothing of Spark."""
