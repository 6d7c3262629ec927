from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.image import Preprocessing, decode, fit, load

from .encoded import SMALL, encoded, generated, refusal


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}),
     ("WEBP", {"lossless": True})],
)  # fmt: skip
def test_lossless_kinds_come_back_exactly(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    content = encoded(Image.fromarray(SMALL), kind, **options)
    file = tmp_path / "picture"
    file.write_bytes(content)
    assert (decode(content) == SMALL).all()
    assert (decode(file) == SMALL).all()
    assert (decode(str(file)) == SMALL).all()


def test_lossy_kinds_come_back_nearly() -> None:
    smooth = fit(generated(8, 12), Preprocessing(61, 97, "squash"))
    for kind in ("JPEG", "WEBP"):
        result = decode(encoded(Image.fromarray(smooth), kind, quality=98))
        assert np.abs(result.astype(int) - smooth).mean() < 4


def test_grey_one_bit_and_palette() -> None:
    grey = SMALL[..., 1]
    assert (decode(encoded(Image.fromarray(grey), "PNG")) == grey[..., None]).all()
    assert (decode(encoded(Image.fromarray(grey), "PPM")) == grey[..., None]).all()
    mask = grey > 127
    assert (decode(encoded(Image.fromarray(mask), "PNG")) == mask[..., None] * 255).all()
    palette = Image.fromarray(SMALL).quantize(32)
    assert (decode(encoded(palette, "PNG")) == np.asarray(palette.convert("RGB"))).all()


def test_sixteen_bits_keep_the_high_byte() -> None:
    deep = np.arange(60_000, 60_000 - 64 * 900, -900, dtype=np.int64).astype(np.uint16).reshape(8, 8)
    for kind in ("PNG", "TIFF", "PPM"):
        assert (decode(encoded(Image.fromarray(deep), kind)) == (deep >> 8)[..., None]).all(), kind
    colour = b"P6 2 1 65535\n" + np.array([0xFFFF, 0x8000, 0x00FF, 0x1234, 0x0100, 0xFEFF], ">u2").tobytes()
    expected = np.array([[[255, 128, 1, 18, 1, 254]]]).reshape(1, 2, 3)
    assert np.abs(decode(colour).astype(int) - expected).max() <= 1  # Pillow rounds here


def test_sixteen_bits_may_count_from_white_and_hold_one_clear_grey() -> None:
    deep = np.arange(60_000, 60_000 - 64 * 900, -900, dtype=np.int64).astype(np.uint16).reshape(8, 8)
    negative = encoded(Image.fromarray(deep), "TIFF", tiffinfo={262: 0})
    assert (decode(negative) == 255 - (deep >> 8)[..., None]).all()
    clear = decode(encoded(Image.fromarray(deep), "PNG", transparency=int(deep[2, 3])))
    expected = deep >> 8
    expected[2, 3] = 255
    assert (clear == expected[..., None]).all()


def test_float_pixels_from_0_to_1_are_read_and_others_refused() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert (decode(encoded(Image.fromarray(values), "TIFF")) == np.rint(values * 255)[..., None]).all()
    assert "from -1 to 0" in refusal(encoded(Image.fromarray(values - 1), "TIFF"))
    assert "0..1" in refusal(encoded(Image.fromarray(values * 255), "TIFF"))
    values[0, 0] = np.nan
    assert "0..1" in refusal(encoded(Image.fromarray(values), "TIFF"))


def test_32_bit_integers_are_refused() -> None:
    assert "no agreed white" in refusal(encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"))


def test_transparency_lies_over_white() -> None:
    rgba = np.dstack([SMALL, np.full(SMALL.shape[:2], 255, np.uint8)])
    rgba[:10, :, 3] = 0
    rgba[10:20, :, 3] = 128
    result = decode(encoded(Image.fromarray(rgba), "PNG"))
    assert (result[:10] == 255).all()
    half = (SMALL[10:20].astype(int) * 128 + 255 * 127) / 255
    assert np.abs(result[10:20] - half).max() <= 1
    assert (result[20:] == SMALL[20:]).all()
    grey = Image.fromarray(rgba).convert("LA")
    assert (decode(encoded(grey, "PNG"))[:10] == 255).all()
    keyed = Image.new("P", (2, 1))
    keyed.putpalette([10, 20, 30, 40, 50, 60])
    keyed.putpixel((1, 0), 1)
    assert decode(encoded(keyed, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    assert decode(encoded(keyed, "GIF", transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_and_ycck() -> None:
    cyan = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    assert np.abs(decode(cyan).astype(int) - [0, 255, 255]).max() <= 2
    # Adobe's YCCK of red: the luma and chroma of the inverted inks, cyan, with the Adobe marker's transform at 2.
    inks = Image.new("CMYK", (16, 16), (255 - 179, 255 - 171, 255 - 1, 0))
    content = bytearray(encoded(inks, "JPEG", quality=100, subsampling=0))
    content[content.index(b"Adobe") + 11] = 2
    assert np.abs(decode(bytes(content)).astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if kind == "WEBP" else {}
    result = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert result.shape == (10, 20, 3)
    assert (result == [255, 0, 0]).all()


STORED = {  # EXIF orientation -> how an upright picture lies in the file (EXIF 2.32, tag 0112)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
    9: lambda a: a,
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_rotation_is_undone(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](SMALL))
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    options = options if kind in ("WEBP", "JPEG") else {}
    result = decode(encoded(Image.fromarray(stored), kind, exif=exif.tobytes(), **options))
    assert result.shape == SMALL.shape
    if kind == "JPEG":
        assert np.abs(result.astype(int) - SMALL).max() <= 4
    else:
        assert (result == SMALL).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of it
def test_a_damaged_exif_block_does_not_spoil_the_picture() -> None:
    for block in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"):
        assert decode(encoded(Image.fromarray(SMALL), "JPEG", exif=block)).shape == SMALL.shape


def test_smallest_and_8k() -> None:
    assert decode(encoded(Image.new("RGB", (1, 1), "#010203"), "PNG")).tolist() == [[[1, 2, 3]]]
    large = encoded(Image.new("RGB", (7680, 4320), "#010203"), "PNG", compress_level=1)
    assert (load(large, Preprocessing(96, 96)) == [1, 2, 3]).all()
