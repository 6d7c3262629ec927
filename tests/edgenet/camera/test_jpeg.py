"""What a JPEG's head says: its size, and whether browsers show the picture as OpenCV decodes it."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from edgenet.camera.jpeg import Head, head

RED = np.full((48, 64, 3), (200, 20, 30), np.uint8)


def saved(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def without(data: bytes, marker: int) -> bytes:
    """Cut segments out of a JPEG's head."""
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept += b"" if data[at + 1] == marker else data[at:end]
        at = end
    return kept + data[at:]


def read(data: bytes) -> Head:
    said = head(data)
    assert said is not None
    return said


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, True),
        ({"quality": 20}, True),
        ({"optimize": True}, True),
        ({"subsampling": "4:2:2", "restart_marker_rows": 1, "comment": "of a camera"}, True),
        ({"progressive": True}, False),
        ({"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}, False),
        ({"icc_profile": b"a profile"}, False),
    ],
)
def test_sizes_of_sound_jpegs_are_read(options: dict[str, object], plain: bool) -> None:
    said = read(saved(Image.fromarray(RED), **options))
    assert (said.width, said.height, said.plain) == (64, 48, plain)


def test_what_opencv_writes_is_plain_and_what_decoders_read_otherwise_is_not() -> None:
    assert read(cv2.imencode(".jpg", RED)[1].tobytes()).plain
    assert read(saved(Image.fromarray(RED).convert("L"))).plain
    assert not read(saved(Image.new("CMYK", (64, 48)))).plain  # Adobe's own
    tables = 0xC4  # many webcams leave them out; OpenCV knows the usual ones, not every browser does
    bare = without(saved(Image.fromarray(RED)), tables)
    assert cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_COLOR) is not None
    assert not read(bare).plain


def test_unsound_heads_say_nothing() -> None:
    whole = saved(Image.fromarray(RED))
    size = whole.index(b"\xff\xc0")
    twice = whole[:size] + whole[size : size + 19] + whole[size:]
    padded = whole[:2] + b"\xff\xff" + whole[2:]
    for data in (b"", b"RIFF", whole[:2], whole[:size], twice, padded, without(whole, 0xC0)):
        assert head(data) is None
