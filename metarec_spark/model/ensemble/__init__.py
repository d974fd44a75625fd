"""The ensemble (h): how the sequence encoder (f) and the item transition model (g) are combined into one score."""
