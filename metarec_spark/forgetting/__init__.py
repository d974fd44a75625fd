"""People who ask to be forgotten."""
