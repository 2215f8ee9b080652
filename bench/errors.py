"""The one error of the benchmarks."""


class BenchError(Exception):
    """One line: what is wrong, and what to do."""
