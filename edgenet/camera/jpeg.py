"""What a JPEG says of itself before its first scan, without decoding it."""

from __future__ import annotations

from dataclasses import dataclass

_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame: C4, C8 and CC lie between and are not
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_SCAN = 0xDA
_BASELINE, _HUFFMAN, _QUANTIZATION = 0xC0, 0xC4, 0xDB
_NEEDED = frozenset({_BASELINE, _HUFFMAN, _QUANTIZATION})
_HARMLESS = frozenset({0xE0, 0xDD, 0xFE})  # JFIF, restart interval, comment


@dataclass(frozen=True, slots=True)
class Head:
    """What lies before the first scan (ITU T.81, annex B).

    Attributes:
        width, height: pixels.
        markers: of all segments, their second bytes.
    """

    width: int
    height: int
    markers: frozenset[int]

    @property
    def plain(self) -> bool:
        """Whether every browser shows the picture as OpenCV decodes it.

        It is baseline, brings its own tables, which some webcams leave out, and nothing that turns it or changes its
        colours (EXIF, ICC, Adobe) or tells where it was taken.
        """
        return self.markers >= _NEEDED and self.markers <= _NEEDED | _HARMLESS


def head(data: bytes) -> Head | None:
    """Read a JPEG's head; None where it is no sound one.

    Junk in it, or a second size, which decoders read in ways of their own, makes it unsound.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at, size, markers = 2, (0, 0), set[int]()
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SCAN:
            return Head(*size, frozenset(markers)) if all(size) else None
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _SIZES:
            if size != (0, 0) or at + 9 > len(data):
                return None
            height, width = (int.from_bytes(data[at + skip : at + skip + 2], "big") for skip in (5, 7))
            size = width, height
        if length < 2 or marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:  # fill, or what has no length
            return None
        markers.add(marker)
        at += 2 + length
    return None


def jpeg_pixels(data: bytes) -> int:
    """Return width times height that a JPEG claims; 0 where it is none. What `head` finds unsound may be a webcam's."""
    if data[:2] != b"\xff\xd8":
        return 0
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SIZES:
            return int.from_bytes(data[at + 5 : at + 7], "big") * int.from_bytes(data[at + 7 : at + 9], "big")
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0
