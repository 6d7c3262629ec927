from __future__ import annotations

import os
import random
import stat
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from edgenet.image import MAX_PIXELS, ImageError, Preprocessing, decode, load

from .encoded import SMALL, encoded, refusal

KINDS: dict[str, bytes] = {
    "jpeg": encoded(Image.fromarray(SMALL), "JPEG"),
    "progressive": encoded(Image.fromarray(SMALL), "JPEG", progressive=True),
    "cmyk": encoded(Image.fromarray(SMALL).convert("CMYK"), "JPEG"),
    "png": encoded(Image.fromarray(SMALL), "PNG"),
    "png16": encoded(Image.fromarray(SMALL[..., 0].astype(np.uint16) * 257), "PNG"),
    "gif": encoded(Image.fromarray(SMALL).quantize(64), "GIF"),
    "webp": encoded(Image.fromarray(SMALL), "WEBP"),
    "bmp": encoded(Image.fromarray(SMALL), "BMP"),
    "tiff": encoded(Image.fromarray(SMALL), "TIFF"),
    "tiff-lzw": encoded(Image.fromarray(SMALL), "TIFF", compression="tiff_lzw"),
    "ppm": encoded(Image.fromarray(SMALL), "PPM"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # as users run it: Pillow may warn and go on
def test_a_truncated_picture_is_never_half_grey(kind: str) -> None:
    content = KINDS[kind]
    whole, refused = decode(content), 0
    for length in range(1, len(content), max(1, len(content) // 60)):
        try:
            result = decode(content[:length])
        except ImageError:
            refused += 1
        else:
            assert (result == whole).all(), length  # nothing but trailing bytes was cut
    assert refused > 50
    assert any(
        words in refusal(content[: len(content) // 2]) for words in ("cut short", "without its beginning or end")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_pictures_never_escape_as_another_error(kind: str) -> None:
    draw = random.Random(7)
    for _ in range(60):
        content = bytearray(KINDS[kind])
        for _ in range(draw.choice([1, 3, 20])):
            content[draw.randrange(len(content) if draw.random() < 0.5 else 150)] = draw.randrange(256)
        with suppress(ImageError):
            assert decode(bytes(content)).dtype == np.uint8


def test_truncated_pictures_are_not_let_through_by_a_global_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "set it to False" in refusal(KINDS["jpeg"][:-200])


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.png") == f"{tmp_path / 'x.png'}: no such image; check the path"
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert "empty (0 bytes)" in refusal(tmp_path / "empty.jpg")
    assert "<image of 0 bytes>: empty" in refusal(b"")
    (tmp_path / "text.jpg").write_text("<html>404 Not Found</html>")
    assert "not an image of a known kind (JPEG, PNG" in refusal(tmp_path / "text.jpg")
    assert "not an image" in refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would call Ghostscript
    (tmp_path / "folder.png").mkdir()
    assert "folder.png: a folder, not an image" in refusal(tmp_path / "folder.png")
    assert "cannot be read" in refusal("a\0b.png")
    (tmp_path / "new\nline.png").write_bytes(b"GIF89a")
    assert r"new\nline.png" in refusal(tmp_path / "new\nline.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    writer = os.open(tmp_path / "pipe.png", os.O_RDWR | os.O_NONBLOCK)
    os.write(writer, KINDS["jpeg"])
    hang_up = threading.Timer(5, os.close, [writer])  # so that a reader fails here instead of hanging
    hang_up.start()
    assert "not a regular file" in refusal(tmp_path / "pipe.png")
    hang_up.cancel()
    os.close(writer)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be a user whom permissions bind: root, as which containers run the tests, may read everything."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("runs as root without the right to become another user: permissions do not bind here")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_without_permission(tmp_path: Path) -> None:
    file = tmp_path / "secret.png"
    file.write_bytes(KINDS["png"])
    file.chmod(stat.S_IWUSR)
    with unprivileged():
        message = refusal(file)
    assert message == f"{file}: no permission to read this image; try: chmod +r"


def png_of(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + crc

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_decompression_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"limit of {MAX_PIXELS // 10**6} million" in refusal(png_of(60_000, 60_000))
    assert "over the limit" in refusal(png_of(10_000, 10_000))  # Pillow only warns here; the tests make it an error
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # where the user switched Pillow's guard off
    assert "60000x60000 pixels: over the limit" in refusal(png_of(60_000, 60_000))
    text = zlib.compress(bytes(100_000_000), 9)
    bomb = KINDS["png"][:33] + len(b"k\0\0" + text).to_bytes(4, "big") + b"zTXtk\0\0" + text
    bomb += zlib.crc32(b"zTXtk\0\0" + text).to_bytes(4, "big") + KINDS["png"][33:]
    assert "\n" not in refusal(bomb)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    refusal(content)


def test_real_photographs(data: Path) -> None:
    for file in sorted((data / "photos").iterdir()):
        if file.suffix in (".jpg", ".png"):
            assert load(file, Preprocessing(224, 224)).std() > 10
