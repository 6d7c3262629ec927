"""What is written over the picture: labels with bars, raw and smoothed, and how the camera is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from edgenet.camera.frame import Frame, Ranked, Stats, Update
from edgenet.camera.opencv import shrink
from edgenet.camera.sinks.lettering import Colour, Lettering, line_height
from edgenet.image import Pixels

LONGEST, SHORTEST = 1280, 640
"""Pixels of the longer side of what is shown: larger pictures are scaled down, smaller ones up."""

_LEAST = (320, 240)  # width, height: a narrow picture gets black margins
_TEXT_EVERY_S = 0.25  # figures that change faster cannot be read
_NOTICE_S = 2.5

_NOTHING: Pixels = np.zeros((480, SHORTEST, 3), np.uint8)  # where there is no picture yet

WHITE, GREY = (255, 255, 255), (190, 190, 190)
SMOOTHED, RAW = (110, 210, 90), (60, 190, 255)
RED: Colour = (40, 30, 170)


@dataclass(frozen=True, slots=True)
class _Ground:
    """A picture to write its answer on.

    Attributes:
        image, size, mirror: of what it is a copy, and how.
        stats: what its figures say. bottom: how many pixels high they are.
        view: the copy.
        took_ns: what making it took.
    """

    image: Pixels
    size: tuple[int, int]
    mirror: bool
    stats: Stats
    view: Pixels
    bottom: int
    took_ns: int

    def suits(self, image: Pixels, size: tuple[int, int], mirror: bool, stats: Stats) -> bool:
        """Tell whether it is what is to be drawn now."""
        alike = self.image is image and (self.size, self.mirror) == (size, mirror)
        return alike and not _is_news(self.stats, stats)


class Painter:
    """Draws updates. Windows and recordings share one: what it drew last is kept.

    drew: told how long each drawing took, in nanoseconds.
    """

    def __init__(self, drew: Callable[[int], None] = lambda _: None) -> None:
        self._drew = drew
        self._lettering = Lettering()
        self._lock = threading.Lock()
        self._last: tuple[Update | None, tuple[object, ...], Pixels] = (None, (), np.zeros((1, 1, 3), np.uint8))
        self._figures: dict[int, tuple[float, Stats, list[str]]] = {}  # of each width: when, of what, and its lines
        self._notice = ("", 0.0)
        self._asked: tuple[bool, tuple[int, int] | None, int] = (False, None, 0)  # last: mirror, within, inference_ns
        self._begun: _Ground | None = None
        self._begins_ns = 0  # what the last of these took

    def begin(self, frame: Frame) -> None:
        """Draw what can be drawn of a frame while its answer is awaited, as the last update was; from any thread.

        Nothing where that may take longer than the answer: it would be said to have taken that long.
        """
        mirror, within, inference_ns = self._asked
        size = _size(frame.image, within)
        written = self._written(_canvas(size)[0])
        if written is not None and 2 * self._begins_ns < inference_ns:
            self._begun = self._begin(frame.image, size, mirror, written[0])

    def notice(self, text: str) -> None:
        """Show a line for a moment."""
        self._notice = (text, time.monotonic() + _NOTICE_S)

    @property
    def noticed(self) -> str:
        """The line that is shown at this moment; "" where there is none."""
        text, until = self._notice
        return text if time.monotonic() < until else ""

    def paint(self, update: Update, *, mirror: bool, within: tuple[int, int] | None = None) -> Pixels:
        """Draw an update: uint8 [h, w, 3] in blue, green, red, at most LONGEST a side; nobody may write to it.

        within: width and height that it has to fit in, too, as far as text leaves room.
        """
        image = update.answer.frame.image if update.answer else _NOTHING
        size = _size(image, within)
        with self._lock:
            last, how, picture = self._last
            if last is not update or how != (mirror, size, self.noticed):
                began, noticed, ground = time.perf_counter_ns(), self.noticed, self._begun
                if ground is not None and ground.suits(image, size, mirror, update.stats):
                    self._begun, earlier_ns = None, ground.took_ns
                else:
                    ground, earlier_ns = self._begin(image, size, mirror, update.stats), 0
                picture = self._paint(update, ground, noticed)
                self._last = (update, (mirror, size, noticed), picture)
                self._drew(earlier_ns + time.perf_counter_ns() - began)
            self._asked = (mirror, within, update.answer.inference_ns if update.answer else 0)
            return picture

    def _begin(self, image: Pixels, size: tuple[int, int], mirror: bool, stats: Stats) -> _Ground:
        """Copy a picture, and write below how it goes."""
        began = time.perf_counter_ns()
        view = _view(image, size, mirror)
        bottom = self._write_figures(view, stats)
        self._begins_ns = time.perf_counter_ns() - began
        return _Ground(image, size, mirror, stats, view, bottom, self._begins_ns)

    def _paint(self, update: Update, ground: _Ground, noticed: str) -> Pixels:
        view = ground.view
        height, width = view.shape[:2]
        size, panel = _text_size(width), 0
        if update.answer is not None:
            panel = self._write_labels(view[: height - ground.bottom], update.answer.top, update.answer.raw, size)
        banners = [(update.stats.trouble, RED)] if update.stats.trouble else []
        if update.paused:
            banners.append(("paused: space goes on", (0, 0, 0)))
        if noticed:
            banners.append((noticed, (0, 0, 0)))
        self._write_banners(view[max(0, min(panel + 4, height // 2)) :], banners, size)
        return view

    def _write_labels(self, view: Pixels, top: Sequence[Ranked], raw: Ranked, size: int) -> int:
        """Write the classes at the upper left: name, percentage, a bar of the smoothed and a thin one of the raw.

        Returns how many pixels high that is.
        """
        step, edge = line_height(size) + size // 2 + 6, size // 2
        width = min(view.shape[1], size * 18)
        inner = width - 2 * edge
        rows = min(len(top), (view.shape[0] - 2 * edge - step // 2) // step)
        if rows < 1 or inner < 40:
            return 0
        panel = view[: 2 * edge + rows * step + line_height(max(11, size - 3)), :width]
        _darken(panel)
        right = size * 3
        for row, one in enumerate(top[:rows]):
            y, colour = edge + row * step, WHITE if row == 0 else GREY
            self._put(panel, one.label, edge, y, size, colour, inner - right)
            self._put(panel, f"{one.smoothed:.0%}", edge + inner - right, y, size, colour, right, right=True)
            y += line_height(size)
            _bar(panel, edge, y, inner, size // 4, one.smoothed, SMOOTHED)
            _bar(panel, edge, y + size // 4 + 1, inner, max(2, size // 8), one.raw, RAW)
        now = f"this frame alone: {raw.label} {raw.raw:.0%}"
        self._put(panel, now, edge, edge + rows * step, max(11, size - 3), RAW, inner)
        return int(panel.shape[0])

    def _written(self, width: int) -> tuple[Stats, list[str]] | None:
        """Return what figures are written in pictures of a width, while they may stand."""
        known = self._figures.get(width)
        return known[1:] if known is not None and time.monotonic() - known[0] <= _TEXT_EVERY_S else None

    def _write_figures(self, view: Pixels, stats: Stats) -> int:
        """Write how it goes along the lower edge; how many pixels high that is."""
        height, width = view.shape[:2]
        size = max(11, _text_size(width) - 4)
        written = self._written(width)
        if written is None or _is_news(written[0], stats):
            now, lines = time.monotonic(), self._lettering.wrap(figures(stats), size, width - size)
            fresh = {wide: one for wide, one in self._figures.items() if now - one[0] <= _TEXT_EVERY_S}
            self._figures = {**fresh, width: (now, stats, lines)}
        else:
            lines = written[1]
        room = max(0, height // 2 // line_height(size))
        strip = view[height - line_height(size) * len(lines[:room]) - size // 2 :]
        if room:
            _darken(strip)
            for row, line in enumerate(lines[:room]):
                self._put(strip, line, size // 2, size // 4 + row * line_height(size), size, WHITE, width - size)
        return int(strip.shape[0]) if room else 0

    def _write_banners(self, view: Pixels, banners: Sequence[tuple[str, Colour]], size: int) -> None:
        y, width = 0, view.shape[1]
        for text, ground in banners:
            lines = self._lettering.wrap(text.split(), size, width - 2 * size, gap=" ")
            strip = view[y : y + len(lines) * line_height(size) + size]
            strip[:] = ground
            for row, line in enumerate(lines):
                picture = self._lettering.picture(line, size, WHITE, width)
                _lay(strip, picture, (width - picture.shape[1]) // 2, size // 2 + row * line_height(size))
            y += strip.shape[0] + 4

    def _put(
        self, ground: Pixels, text: str, x: int, y: int, size: int, colour: Colour, width: int, *, right: bool = False
    ) -> None:
        picture = self._lettering.picture(text, size, colour, width)
        _lay(ground, picture, x + width - picture.shape[1] if right else x, y)


def figures(stats: Stats) -> list[str]:
    """Say how the camera is doing, a fact an item."""
    temperature = "" if stats.temperature_c is None else f"{stats.temperature_c:.0f} °C"
    threads = "1 thread" if stats.threads == 1 else f"{stats.threads} threads"
    items = (
        f"camera {stats.camera_fps:.1f} fps",
        f"inference {stats.inference_fps:.1f} fps",
        f"age {stats.age_p50_ms:.0f} / {stats.age_p95_ms:.0f} ms (p50 / p95)" if stats.age_p95_ms else "age -",
        f"preprocess {_ms(stats.preprocess_ms)}, inference {_ms(stats.inference_ms)}, draw {_ms(stats.draw_ms)} ms",
        f"dropped {stats.dropped}",
        temperature,
        f"{stats.model} {stats.precision}, {stats.runtime}, {threads}",
        stats.source,
    )
    return [item for item in items if item]


def _is_news(known: Stats, stats: Stats) -> bool:
    return (known.trouble, known.precision) != (stats.trouble, stats.precision)


def _ms(value: float) -> str:
    return f"{value:.1f}" if value else "-"  # it did not happen


def _size(image: Pixels, within: tuple[int, int] | None) -> tuple[int, int]:
    """Choose the width and height that a picture is shown in."""
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    if max(height, width) < SHORTEST:
        scale = SHORTEST / max(height, width)
    if within is not None:
        scale = min(scale, within[0] / width, within[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _canvas(size: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height of what a picture of a width and height is drawn on: there must be room for text."""
    return max(size[0], _LEAST[0]), max(size[1], _LEAST[1])


def _text_size(width: int) -> int:
    return max(12, min(20, width // 56))


def _view(image: Pixels, size: tuple[int, int], mirror: bool) -> Pixels:
    """Copy a picture, scaled to a width and height, onto a canvas that has room for text."""
    wide, high = size
    shown = image
    if wide < image.shape[1] or high < image.shape[0]:
        shown = shrink(image, wide, high)
    elif wide > image.shape[1] or high > image.shape[0]:
        import cv2

        shown = cast(Pixels, cv2.resize(image, (wide, high), interpolation=cv2.INTER_NEAREST))
    if mirror:
        import cv2

        shown = cast(Pixels, cv2.flip(shown, 1))
    across, down = _canvas(size)
    if (across, down) == size:
        return np.array(image) if shown is image else shown
    canvas = np.zeros((down, across, 3), np.uint8)
    top, left = (canvas.shape[0] - high) // 2, (canvas.shape[1] - wide) // 2
    canvas[top : top + high, left : left + wide] = shown
    return canvas


def _darken(ground: Pixels) -> None:
    """Leave a quarter of the light: white text has a contrast of 10 on it, whatever the picture was."""
    np.right_shift(ground, 2, out=ground)


def _bar(ground: Pixels, x: int, y: int, width: int, height: int, share: float, colour: Colour) -> None:
    ground[y : y + height, x : x + round(width * min(1.0, max(0.0, share)))] = colour


def _lay(ground: Pixels, picture: Pixels, x: int, y: int) -> None:
    """Lay a text over a ground, as far as it reaches; x, y: of its upper left corner, 0 or more."""
    x, y = max(0, x), max(0, y)
    region = ground[y : y + picture.shape[0], x : x + picture.shape[1]]
    np.maximum(region, picture[: region.shape[0], : region.shape[1]], out=region)
