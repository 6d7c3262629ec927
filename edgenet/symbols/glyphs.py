"""The symbols as one table of polygons and strokes, drawn by Pillow; no font is needed.

They were chosen so that no two look alike under perspective and up to 15 degrees of rotation: no 6 beside 9, no
0 or 1, no diamond beside the square, no C beside the crescent. The labels are in alphabetical order, so that a
reader that sorts class folders by name finds the same indices. Digits are named in words, because a class folder
called `2` would read as an index.
"""

from functools import lru_cache
from math import cos, radians, sin
from typing import NamedTuple

from PIL import Image, ImageDraw

Points = tuple[tuple[float, float], ...]

_SUPERSAMPLING = 4
_PEN = 0.15  # stroke width of the digits, the check mark, the cross and the plus
_ROUND = 48  # segments a full turn is drawn with


class Glyph(NamedTuple):
    """One symbol inside the unit square, x to the right and y downwards."""

    label: str
    shapes: tuple[Points, ...] = ()  # filled polygons
    strokes: tuple[Points, ...] = ()  # lines of the width `pen`, round at joints and ends
    pen: float = _PEN


def _arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> Points:
    """Points on an ellipse from `start` to `stop` degrees, clockwise from the right when stop > start."""
    steps = max(2, round(abs(stop - start) / 360 * _ROUND))
    angles = [radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return tuple((x + rx * cos(a), y + ry * sin(a)) for a in angles)


def _star(points: int, outer: float, inner: float) -> Points:
    """A regular star around the centre, one tip up."""
    radii = (outer, inner) * points
    angles = [radians(-90 + 180 * i / points) for i in range(2 * points)]
    return tuple((0.5 + r * cos(a), 0.53 + r * sin(a)) for r, a in zip(radii, angles, strict=True))


_ARROW: Points = (
    (0.5, 0.04), (0.92, 0.48), (0.63, 0.48), (0.63, 0.96), (0.37, 0.96), (0.37, 0.48), (0.08, 0.48),
)  # fmt: skip


def _turned(points: Points, quarters: int) -> Points:
    """The same points turned clockwise around the centre by quarter turns."""
    for _ in range(quarters):
        points = tuple((1 - y, x) for x, y in points)
    return points


GLYPHS: tuple[Glyph, ...] = (
    Glyph("arrow_down", shapes=(_turned(_ARROW, 2),)),
    Glyph("arrow_left", shapes=(_turned(_ARROW, 3),)),
    Glyph("arrow_right", shapes=(_turned(_ARROW, 1),)),
    Glyph("arrow_up", shapes=(_ARROW,)),
    Glyph("check", strokes=(((0.11, 0.56), (0.38, 0.83), (0.89, 0.2)),), pen=0.16),
    Glyph("circle", shapes=(_arc(0.5, 0.5, 0.45, 0.45, 0, 360),)),
    Glyph("crescent", shapes=(_arc(0.54, 0.5, 0.46, 0.46, 54.4, 305.6) + _arc(0.74, 0.5, 0.38, 0.38, 280.3, 79.7),)),
    Glyph("cross", strokes=(((0.15, 0.15), (0.85, 0.85)), ((0.85, 0.15), (0.15, 0.85))), pen=0.19),
    Glyph(
        "eight",
        strokes=(_arc(0.5, 0.295, 0.2, 0.195, 0, 360), _arc(0.5, 0.7, 0.235, 0.205, 0, 360)),
    ),
    Glyph(
        "five",
        strokes=(((0.71, 0.12), (0.33, 0.12), (0.29, 0.46)), _arc(0.47, 0.64, 0.25, 0.25, -138, 130)),
    ),
    Glyph("four", strokes=(((0.78, 0.66), (0.2, 0.66), (0.6, 0.1), (0.6, 0.9)),)),
    Glyph(
        "heart",
        shapes=(
            _arc(0.275, 0.31, 0.225, 0.225, 152, 360) + _arc(0.725, 0.31, 0.225, 0.225, 180, 388) + ((0.5, 0.94),),
        ),
    ),
    Glyph(
        "lightning",
        shapes=(((0.44, 0.03), (0.78, 0.03), (0.6, 0.37), (0.82, 0.37), (0.3, 0.97), (0.44, 0.54), (0.2, 0.54)),),
    ),
    Glyph("plus", strokes=(((0.5, 0.11), (0.5, 0.89)), ((0.11, 0.5), (0.89, 0.5))), pen=0.19),
    Glyph("seven", strokes=(((0.24, 0.12), (0.76, 0.12), (0.42, 0.9)),)),
    Glyph("square", shapes=(((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)),)),
    Glyph("star", shapes=(_star(5, 0.5, 0.2),)),
    Glyph(
        "three",
        strokes=(_arc(0.47, 0.295, 0.21, 0.195, -150, 90), _arc(0.47, 0.7, 0.24, 0.21, -90, 145)),
    ),
    Glyph("triangle", shapes=(((0.5, 0.08), (0.96, 0.9), (0.04, 0.9)),)),
    Glyph(
        "two",
        strokes=((*_arc(0.5, 0.33, 0.22, 0.22, -165, 40), (0.27, 0.89), (0.76, 0.89)),),
    ),
)

LABELS: tuple[str, ...] = tuple(glyph.label for glyph in GLYPHS)


def _stroke(draw: ImageDraw.ImageDraw, points: Points, pen: float, edge: int) -> None:
    """A line with round joints and ends: Pillow's own joints leave notches on tight curves."""
    radius = pen * edge / 2
    scaled = [(x * edge, y * edge) for x, y in points]
    draw.line(scaled, fill=255, width=round(2 * radius))
    for x, y in scaled:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


@lru_cache(maxsize=256)
def mask(index: int, edge: int) -> Image.Image:
    """Ink coverage of symbol `index`: an "L" image [edge, edge], 255 where there is ink. Shared: do not draw on it."""
    glyph = GLYPHS[index]
    large = edge * _SUPERSAMPLING
    image = Image.new("L", (large, large))
    draw = ImageDraw.Draw(image)
    for shape in glyph.shapes:
        draw.polygon([(x * large, y * large) for x, y in shape], fill=255)
    for stroke in glyph.strokes:
        _stroke(draw, stroke, glyph.pen, large)
    return image.reduce(_SUPERSAMPLING)
