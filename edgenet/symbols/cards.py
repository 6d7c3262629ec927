"""A printable page of the symbols, to cut apart and hold before a camera."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from edgenet.appearing import appearing
from edgenet.errors import UsageError
from edgenet.symbols.glyphs import LABELS, mask

_DPI = 200
_PAGE_MM = (210.0, 297.0)  # A4
_COLUMNS, _ROWS = 4, 5
_CARD_MM = (48.0, 55.0)
_SYMBOL_MM = 34.0
_FORMATS = {".pdf": "PDF", ".png": "PNG"}
_CUT_GREY = 200  # light, so that the camera does not take the line for part of the symbol
_NAME_GREY = 120


def _pixels(millimetres: float) -> int:
    return round(millimetres / 25.4 * _DPI)


def page() -> Image.Image:
    """The page as an "L" image of A4 at 200 dpi: 4 x 5 cards with dotted cutting lines, each with its name."""
    width, height = _pixels(_PAGE_MM[0]), _pixels(_PAGE_MM[1])
    image = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(image)
    card_width, card_height = _pixels(_CARD_MM[0]), _pixels(_CARD_MM[1])
    left, top = (width - _COLUMNS * card_width) // 2, (height - _ROWS * card_height) // 2
    for column in range(_COLUMNS + 1):
        x = left + column * card_width
        for y in range(top, top + _ROWS * card_height, 12):
            draw.line((x, y, x, y + 5), fill=_CUT_GREY)
    for row in range(_ROWS + 1):
        y = top + row * card_height
        for x in range(left, left + _COLUMNS * card_width, 12):
            draw.line((x, y, x + 5, y), fill=_CUT_GREY)
    for index, label in enumerate(LABELS):
        row, column = divmod(index, _COLUMNS)
        _card(image, draw, index, label, (left + column * card_width, top + row * card_height))
    return image


def _card(image: Image.Image, draw: ImageDraw.ImageDraw, index: int, label: str, corner: tuple[int, int]) -> None:
    edge = _pixels(_SYMBOL_MM)
    x = corner[0] + (_pixels(_CARD_MM[0]) - edge) // 2
    y = corner[1] + _pixels(6.5)
    ink = mask(index, edge)
    image.paste(0, (x, y, x + edge, y + edge), ink)
    name = (corner[0] + _pixels(_CARD_MM[0]) // 2, corner[1] + _pixels(_CARD_MM[1] - 3.5))
    draw.text(name, label.replace("_", " "), fill=_NAME_GREY, font=ImageFont.load_default(_pixels(3)), anchor="mm")


def write_cards(out: Path) -> Path:
    """Write the page as a PDF, or as a PNG where `out` ends so; the file appears whole or not at all.

    Raises:
        UsageError: `out` ends in neither .pdf nor .png.
        EdgenetError: the file cannot be written.
    """
    kind = _FORMATS.get(out.suffix.lower())
    if kind is None:
        raise UsageError(f"{out.name!r} is neither a .pdf nor a .png: give the page one of these endings")
    with appearing(out) as draft:
        if kind == "PDF":
            page().save(draft, kind, resolution=_DPI, quality=92, title="edgenet symbols")
        else:
            page().save(draft, kind, dpi=(_DPI, _DPI))
    return out
