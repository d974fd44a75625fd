"""The model: encoder (f), item transitions (g), their ensemble (h), and its files. Torch, no Spark."""
