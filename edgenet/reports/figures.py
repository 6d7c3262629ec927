"""How a table writes a time, a ratio or a size."""

from __future__ import annotations


def figure(value: float) -> str:
    """Write two decimals, and of what is smaller than a tenth its first two digits."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def megabytes(count: int) -> str:
    """Write bytes as MB, by figure."""
    return f"{figure(count / 1e6)} MB"
