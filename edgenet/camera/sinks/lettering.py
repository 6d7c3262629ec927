"""Text as small pictures: drawn once by Pillow, in whatever script, and kept; OpenCV 4 draws ASCII alone."""

from __future__ import annotations

import math
import threading
import unicodedata
from bisect import bisect_right
from collections import OrderedDict
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgenet.image import Pixels

Colour: TypeAlias = tuple[int, int, int]  # blue, green, red
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

_KEPT = 512  # texts that are known to be writable
_KEPT_BYTES = 3 << 20  # of pictures of texts: a line of figures alone can be 80 KB

# Tried in this order for what Pillow's own font lacks, which is all but ASCII; found where the system keeps fonts.
_FALLBACKS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "msyh.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc",
)  # fmt: skip


class Lettering:
    """Texts as pictures uint8 [h, w, 3], colour on black: laid over a dark ground by taking the brighter of the two."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[tuple[str, int, Colour, int], Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def picture(self, text: str, size: int, colour: Colour, width: int) -> Pixels:
        """Draw one line of text, `size` pixels high, cut to `width` pixels; nobody may write to the result."""
        key = (text, size, colour, width)
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
            picture = self._pictures[key] = _draw(text, size, colour, max(1, width))
            self._bytes += picture.nbytes
            while self._bytes > _KEPT_BYTES and len(self._pictures) > 1:
                self._bytes -= self._pictures.popitem(last=False)[1].nbytes
            return picture

    def wrap(self, items: list[str], size: int, width: int, gap: str = " · ") -> list[str]:
        """Put items into as few lines of `width` pixels as they fit in, in order; one that fits in none is broken."""
        lines: list[str] = []
        for item in items:
            longer = f"{lines[-1]}{gap}{item}" if lines else item
            words = item.split()
            if lines and _length(longer, size) <= width:
                lines[-1] = longer
            elif len(words) > 1 and max(_length(word, size) for word in words) <= width < _length(item, size):
                lines += self.wrap(words, size, width, gap=" ")
            else:
                lines.append(item)
        return lines


def line_height(size: int) -> int:
    """Pixels from one line of text to the next."""
    return round(size * 1.35)


def _draw(text: str, size: int, colour: Colour, width: int) -> Pixels:
    shown, font = _writable(" ".join(text[: 4 * width].split()), size)
    if font.getlength(shown) > width:
        fits = bisect_right(range(len(shown)), float(width), key=lambda count: font.getlength(f"{shown[:count]}.."))
        shown = f"{shown[: max(0, fits - 1)]}.."
    extent = max(1, min(width, math.ceil(font.getlength(shown))))
    canvas = Image.new("L", (extent, line_height(size)))
    draw = ImageDraw.Draw(canvas)
    if isinstance(font, ImageFont.FreeTypeFont):
        draw.text((0, size), shown, fill=255, font=font, anchor="ls")
    else:
        draw.text((0, 0), shown, fill=255, font=font)
    ink = np.asarray(canvas, np.uint16)[..., None]
    picture: Pixels = (ink * np.array(colour, np.uint16) // 255).astype(np.uint8)
    return picture


def _length(text: str, size: int) -> float:
    shown, font = _writable(text, size)
    return font.getlength(shown)


@lru_cache(maxsize=_KEPT)
def _writable(text: str, size: int) -> tuple[str, Font]:
    """Choose the first font that has every letter; without one, letters are replaced by what they are made of."""
    fonts = _fonts(size)
    for font in fonts:
        if all(_has(font, letter, size) for letter in set(text)):
            return text, font
    best = fonts[1] if len(fonts) > 1 else fonts[0]
    return "".join(letter if _has(best, letter, size) else _plain(letter) for letter in text), best


@lru_cache(maxsize=32)
def _fonts(size: int) -> tuple[Font, ...]:
    try:
        own: Font = ImageFont.load_default(size)
    except (ImportError, OSError):  # a Pillow without FreeType has one small bitmap font
        return (ImageFont.load_default(),)
    found: list[Font] = [own]
    for name in _FALLBACKS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


@lru_cache(maxsize=4096)
def _has(font: Font, letter: str, size: int) -> bool:  # noqa: ARG001 - of the key: fonts compare by identity
    if isinstance(font, ImageFont.FreeTypeFont) and not letter.isascii():
        return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010fffe"))
    return letter.isascii()


def _plain(letter: str) -> str:
    """Write a letter in ASCII: without its accents, or else as its number."""
    stripped = "".join(part for part in unicodedata.normalize("NFKD", letter) if part.isascii())
    return stripped or f"<{ord(letter):X}>"
