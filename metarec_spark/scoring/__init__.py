"""Exact top-N lists for every user, by blocks, on executors."""
