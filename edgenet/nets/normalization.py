"""What the pixels of 0..255 become before a network reads them."""

INPUT_RANGES = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0)}
"""What --input-range means: x = level * scale + offset."""
