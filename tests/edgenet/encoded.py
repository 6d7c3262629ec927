"""A picture that is the same on every machine, its encodings, and how decoding refuses a bad one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.image import ImageError, Pixels, decode


def generated(height: int, width: int) -> Pixels:
    """Return a picture from integer arithmetic alone: gradients, edges and a fine pattern, the same everywhere."""
    y, x = np.mgrid[:height, :width]
    planes = (x * 255 // max(1, width - 1), y * 7 + x * 3, ((x // 9 + y // 5) % 2) * 200 + (x * y) % 56)
    return np.stack([plane % 256 for plane in planes], axis=2).astype(np.uint8)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(source: Path | str | bytes) -> str:
    """Return the message of the ImageError that decoding raises; it must be one line."""
    with pytest.raises(ImageError) as caught:
        decode(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SMALL = generated(61, 97)
