"""Benchmark results: recorded as they come, found again, compared."""
