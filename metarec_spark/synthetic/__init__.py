"""A generated behaviour log of several platforms, for the demo, tests and benchmarks."""
