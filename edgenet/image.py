"""THE preprocessing: any picture file -> uint8 RGB [height, width, 3]. The one home of it.

Training, calibration, verification, evaluation and the camera all call this module. Decoding and resizing are Pillow's,
whose 8-bit resize works in fixed point: the same bytes on every processor. Nothing is normalised here; that is
inside the model file.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

# The plugins are imported by name: Image.open then never imports one lazily in the middle of a pool of threads, and
# never meets the formats that start another program (EPS calls Ghostscript).
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from edgenet.blocks import MOST, block_means
from edgenet.errors import EdgenetError

Pixels: TypeAlias = npt.NDArray[np.uint8]

SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
MAX_PIXELS = 178_956_970  # where Pillow itself refuses, too; 0.54 GB as RGB

_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
)
_FORMATS = tuple(str(plugin.format) for plugin in _PLUGINS)

# What Pillow's plugins raise on a damaged file. Warning: where the caller turns warnings into errors.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RuntimeError,
    AssertionError, MemoryError, Warning, struct.error, zlib.error,
)  # fmt: skip

_PHOTOMETRIC_TAG = 262
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {  # EXIF orientation -> what sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(EdgenetError):
    """A picture cannot be used; the message is one line with the file, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes a model's input: uint8 RGB [height, width, 3].

    height, width: pixels, 1 or more. crop: "center" takes the largest centred rectangle of the target's aspect ratio,
    "squash" takes the whole picture. interpolation: "area-bilinear" averages whole blocks of pixels (integer factor)
    and then resizes bilinearly with antialiasing. Raises EdgenetError for anything else.
    """

    height: int
    width: int
    crop: Literal["center", "squash"] = "center"
    interpolation: Literal["area-bilinear"] = "area-bilinear"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise EdgenetError(f"preprocessing: {self.width}x{self.height} is no picture size; give 1x1 or more")
        if self.crop not in ("center", "squash"):
            raise EdgenetError(f"preprocessing: unknown crop {self.crop!r}; known are center and squash")
        if self.interpolation != "area-bilinear":
            raise EdgenetError(f"preprocessing: unknown interpolation {self.interpolation!r}; known is area-bilinear")

    def sha256(self) -> str:
        """Return the hash of these parameters: of their JSON with sorted keys and no spaces."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), default=int)  # numpy's
        return hashlib.sha256(text.encode()).hexdigest()


def load(source: Path | str | bytes, prep: Preprocessing) -> Pixels:
    """Decode a picture and fit it to a model's input: uint8 RGB [height, width, 3]. Raises ImageError."""
    return fit(decode(source), prep)


def decode(source: Path | str | bytes) -> Pixels:
    """Decode a picture file (a path, or its bytes): uint8 RGB [h, w, 3], read-only, EXIF orientation applied.

    Animations give their first frame. Transparency is laid over white. CMYK is converted without its colour profile.
    16 bits a channel keep their high byte (Pillow's own conversion of grey would clip). Float pixels must lie in 0..1.
    Raises ImageError for anything that is not a whole picture of at most MAX_PIXELS: never a half-grey one.
    """
    if isinstance(source, bytes):
        return _decode_stream(io.BytesIO(source), f"<image of {len(source)} bytes>", len(source))
    path = Path(source)
    name = str(path) if str(path).isprintable() else repr(str(path))
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: a folder, not an image; name a file")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise ImageError(f"{name}: not a regular file; copy the image to one")
        with path.open("rb") as stream:
            return _decode_stream(stream, name, status.st_size)
    except FileNotFoundError as exc:
        raise ImageError(f"{name}: no such image; check the path") from exc
    except PermissionError as exc:
        raise ImageError(f"{name}: no permission to read this image; try: chmod +r") from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise ImageError(f"{name}: cannot be read ({_one_line(exc)}); check the path and the disk") from exc


def fit(image: Pixels, prep: Preprocessing, *, channels: Literal["RGB", "BGR"] = "RGB") -> Pixels:
    """Crop and resize an upright picture, uint8 [h, w, 3], to uint8 RGB [prep.height, prep.width, 3].

    channels: the order in which the picture has them. The crop has whole-pixel edges; of an odd margin the smaller half
    lies left or above. The result is always a new array. Raises ImageError for another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(
            f"an array of {image.dtype} {list(image.shape)} is no picture; give uint8 RGB [height, width, 3]"
        )
    view = _crop(image, prep)
    if view.shape[:2] == (prep.height, prep.width):
        return np.array(view if channels == "RGB" else view[..., ::-1], order="C")
    # What Pillow's own `reducing_gap=1.0` does, in fewer copies.
    rows, columns = max(1, view.shape[0] // prep.height), max(1, view.shape[1] // prep.width)
    if rows * columns > MOST:
        picture = _picture(view, channels).reduce((columns, rows))
    else:
        picture = _picture(block_means(view, rows, columns) if rows * columns > 1 else view, channels)
    box = (0, 0, view.shape[1] / columns, view.shape[0] / rows)
    resized = picture.resize((prep.width, prep.height), Image.Resampling.BILINEAR, box)
    result: Pixels = np.array(resized)
    return result


def _picture(pixels: Pixels, channels: str) -> Image.Image:
    """Copy pixels into a picture of Pillow's, whose order is always RGB."""
    height, width = pixels.shape[:2]
    return Image.frombuffer("RGB", (width, height), np.ascontiguousarray(pixels), "raw", channels, 0, 1)


def _crop(image: Pixels, prep: Preprocessing) -> Pixels:
    """Return a view of what the resize shall see, without a copy."""
    if prep.crop == "squash":
        return image
    height, width = image.shape[:2]
    if width * prep.height >= height * prep.width:  # wider than the target: full height
        rows, columns = height, max(1, (2 * height * prep.width + prep.height) // (2 * prep.height))
    else:
        rows, columns = max(1, (2 * width * prep.height + prep.width) // (2 * prep.width)), width
    rows, columns = min(rows, height), min(columns, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def _decode_stream(stream: IO[bytes], name: str, size: int) -> Pixels:
    """Decode an open file of `size` bytes. Every error of Pillow becomes an ImageError here, and only here."""
    if size == 0:
        raise ImageError(f"{name}: empty (0 bytes); fetch the image again or delete it")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(
            f"{name}: not decoded, because PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set and would pass half pictures; "
            "set it to False"
        )
    try:
        with Image.open(stream, formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(name, f"{picture.width}x{picture.height} pixels")
            picture.load()
            return np.asarray(_upright(_to_rgb(picture, name), _orientation(picture)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_large(name, _one_line(exc)) from exc
    except UnidentifiedImageError as exc:
        raise ImageError(
            f"{name}: not an image of a known kind ({', '.join(_FORMATS)}), or without its beginning or end; convert "
            "it to JPEG or PNG, fetch it again, or delete it"
        ) from exc
    except _DECODER_ERRORS as exc:
        raise ImageError(
            f"{name}: damaged or cut short ({_one_line(exc)}); fetch the image again or delete it"
        ) from exc


def _too_large(name: str, what: str) -> ImageError:
    return ImageError(f"{name}: {what}: over the limit of {MAX_PIXELS // 10**6} million; scale the image down")


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Return the picture in mode RGB; what Pillow's own convert would spoil is done here."""
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", "PPM")):  # 0..65535
        return _deep_grey(picture)
    if mode == "F":
        pixels = np.asarray(picture)
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # so written that NaN fails, too
            raise ImageError(
                f"{name}: float pixels from {pixels.min():.4g} to {pixels.max():.4g}, where 0..1 is the only agreed "
                "range; save it with 8 or 16 bits"
            )
        return _grey(np.rint(pixels * 255))
    if mode == "I":
        raise ImageError(f"{name}: 32-bit integer pixels have no agreed white; save the image with 8 or 16 bits")
    if picture.has_transparency_data:
        overlay = picture.convert("RGBA")
        paper = Image.new("RGB", overlay.size, "white")
        paper.paste(overlay, mask=overlay.getchannel("A"))
        return paper
    return picture.convert("RGB")


def _deep_grey(picture: Image.Image) -> Image.Image:
    """Keep the high byte of 16 bits, as their file means it: Pillow hands them over as they are stored."""
    stored = np.asarray(picture).astype(np.int64)
    levels = (stored >> 8).clip(0, 255)
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == 0:  # of a TIFF: 0 is white
        levels = 255 - levels
    clear = picture.info.get("transparency")
    return _grey(np.where(stored == clear, 255, levels) if isinstance(clear, int) else levels)


def _grey(pixels: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1..8; 1 (upright) where there is none, or the EXIF block alone is damaged."""
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
