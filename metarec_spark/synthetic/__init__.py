"""A made-up behaviour log of several platforms, for demonstrations, tests and benchmarks."""
