"""What cameras ask of OpenCV, in one place: that it is there and quiet, and that its pictures are uint8 BGR."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgenet.camera.jpeg import jpeg_pixels
from edgenet.errors import SourceError
from edgenet.image import MAX_PIXELS, Pixels

_DEPTHS = (10, 12, 14, 16)  # of cameras that give more than 8 bits, in the lower ones of 16

_TURNS = {90: "ROTATE_90_CLOCKWISE", 180: "ROTATE_180", 270: "ROTATE_90_COUNTERCLOCKWISE"}

_environment = threading.Lock()


@cache
def opencv() -> Any:
    """Return cv2, which then keeps its warnings to itself (they hold addresses, passwords too, and tear a screen).

    Raises SourceError with the command that installs it. OPENCV_LOG_LEVEL, where set, is respected.
    """
    try:
        import cv2
    except ModuleNotFoundError as exc:
        wanted = "pip install 'edgenet[camera]', or without a screen 'edgenet[camera-headless]'"
        raise SourceError(f"OpenCV is not installed; try: {wanted}") from exc
    except ImportError as exc:
        from devices.doctor import opencv_cure

        raise SourceError(f"OpenCV cannot be loaded ({exc}); try: {opencv_cure()}") from exc
    if "OPENCV_LOG_LEVEL" not in os.environ:
        (getattr(cv2.utils, "logging", None) or cv2).setLogLevel(0)  # silent; 4.10 has it in cv2 itself
    return cv2


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for what OpenCV reads in a constructor, and take them back; the user's own stay."""
    with _environment:
        ours = {name: value for name, value in values.items() if name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                os.environ.pop(name, None)


def to_bgr(image: npt.NDArray[Any]) -> Pixels:
    """Return a picture as uint8 BGR [h, w, 3]; as it is where it is that already.

    image: grey [h, w] or [h, w, 1], BGR, or BGR with a fourth channel, which is dropped; uint8, or uint16, of which the
    highest 8 bits are kept that a camera of 10, 12, 14 or 16 bits uses. Raises ValueError for anything else.
    """
    if image.dtype == np.uint16:
        used = int(image.max(initial=0)).bit_length()
        bits = next(depth for depth in _DEPTHS if used <= depth)
        image = (image >> (bits - 8)).astype(np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"{image.dtype} {list(image.shape)} is no picture")
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return image if image.shape[2] == 3 and image.flags.c_contiguous else np.ascontiguousarray(image[..., :3])


def shrink(image: Pixels, width: int, height: int) -> Pixels:
    """Make a picture smaller, for people to look at: uint8 [h, w, 3] to a new one [height, width, 3], no larger.

    It is halved as often as that leaves enough, and then resized bilinearly: a fifth of what averaging areas of another
    size than whole pixels takes OpenCV, and fine patterns become grey all the same.
    """
    cv2 = opencv()
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = cv2.resize(image[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def turned(image: Pixels, degrees: int) -> Pixels:
    """Turn a picture clockwise by a multiple of 90 degrees; itself where that leaves it as it is."""
    turn = _TURNS.get(degrees % 360)
    if turn is None:
        return image
    cv2 = opencv()
    return cast(Pixels, cv2.rotate(image, getattr(cv2, turn)))


def decode_jpeg(data: bytes) -> Pixels | None:
    """Decode a JPEG of any kind: uint8 BGR [h, w, 3]; None where it is damaged, cut short, or absurdly large.

    What is cut short is refused by its missing end: libjpeg would make up the rest in grey.
    """
    pixels = jpeg_pixels(data)
    if not 0 < pixels <= MAX_PIXELS or data.rfind(b"\xff\xd9", -4096) < 0:
        return None
    cv2 = opencv()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else to_bgr(image)
