"""What the pixels of 0..255 become before a network reads them."""

from edgenet.errors import UsageError

INPUT_RANGES = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0)}
"""What --input-range means: x = level * scale + offset."""


def affine(input_range: str) -> tuple[float, float]:
    """Return scale and offset of a range by its name; UsageError where it is none."""
    if input_range not in INPUT_RANGES:
        raise UsageError(f"input range {input_range!r}: give {' | '.join(INPUT_RANGES)}")
    return INPUT_RANGES[input_range]
