"""Pictures from a browser's camera: its page sends JPEGs, one at a time, and they come out as frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgenet.camera.frame import Frame, Slot, Trouble
from edgenet.camera.jpeg import head
from edgenet.image import ImageError, Pixels, decode

MAX_JPEG_BYTES = 4 << 20
MAX_SIDE = 4096  # pixels; looked at before anything is decoded
_MAX_PIXELS = 9_000_000  # a little more than 4K

_SILENT_S = 2.0  # without a picture, until the screen says so
_WAITING = "no browser sends pictures: open the page there and start its camera"
_SILENT = "the browser's camera is gone: start it again on its page"


@dataclass(frozen=True, slots=True)
class _Jpeg:
    id: int
    arrived_ns: int
    data: bytes


class FrameInbox:
    """Where the web page puts JPEGs: the newest one waits, and replaces the one before. For any thread.

    Attributes:
        refused: how many were no JPEG of a size that is taken; garbage found later, while decoding, included.
        dropped: how many gave way to the next.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.dropped = 0
        self._slot: Slot[_Jpeg] = Slot()
        self._lock = threading.Lock()
        self._next = 0

    def put_jpeg(self, data: bytes) -> int | None:
        """Take one picture; the id that its frame will have, or None where it is refused. Returns at once."""
        if not _is_sane(data):
            self.refuse()
            return None
        with self._lock:
            number, self._next = self._next, self._next + 1
            self.dropped += self._slot.put(_Jpeg(number, time.monotonic_ns(), data))
        return number

    def take(self, timeout_s: float) -> _Jpeg | None:
        """Take the newest picture, undecoded; None after the timeout."""
        return self._slot.take(timeout_s)

    def refuse(self) -> None:
        """Count one more that was no picture."""
        with self._lock:
            self.refused += 1

    def close(self) -> None:
        """Say that no more will be taken."""
        self._slot.close()

    @property
    def finished(self) -> bool:
        """It is closed, and everything was taken."""
        return self._slot.finished


class BrowserSource:
    """The camera of whoever opens the page. A `Source`; the page's server feeds `inbox`."""

    live = True

    def __init__(self) -> None:
        self.inbox = FrameInbox()
        self._size = ""

    @property
    def name(self) -> str:
        """The camera, and its size once known."""
        return f"browser camera{self._size}"

    @property
    def dropped(self) -> int:
        """How many pictures gave way to the next."""
        return self.inbox.dropped

    def frames(self, stop: threading.Event) -> Iterator[Frame | Trouble]:
        """Yield pictures as they come; see Source. It ends when it is closed, too."""
        yield Trouble(_WAITING)
        last, said = time.monotonic(), True
        while not stop.is_set() and not self.inbox.finished:
            jpeg = self.inbox.take(0.2)
            image = None if jpeg is None else self._decode(jpeg)
            if jpeg is not None and image is not None:
                last, said = time.monotonic(), False
                yield Frame(jpeg.id, jpeg.arrived_ns, image)
            elif not said and time.monotonic() - last > _SILENT_S:
                said = True
                yield Trouble(_SILENT)

    def close(self) -> None:
        """Take no more pictures; harmless twice."""
        self.inbox.close()

    def _decode(self, jpeg: _Jpeg) -> Pixels | None:
        """Decode to blue, green, red; None, and counted, for what is no whole picture."""
        import cv2

        try:
            rgb = decode(jpeg.data)
        except ImageError:
            self.inbox.refuse()
            return None
        self._size = f", {rgb.shape[1]}x{rgb.shape[0]}"
        image: Pixels = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)
        return image


def _is_sane(data: bytes) -> bool:
    """Whether this begins as a JPEG of a size that is taken; nothing is decoded."""
    if len(data) > MAX_JPEG_BYTES:
        return False
    said = head(data)
    return said is not None and max(said.width, said.height) <= MAX_SIDE and said.width * said.height <= _MAX_PIXELS
