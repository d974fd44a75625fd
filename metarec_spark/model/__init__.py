"""The model: a Transformer over mixed sequences, what is lent to it, their fusion, its file. Torch, and nothing of Spark."""
