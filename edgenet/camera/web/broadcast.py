"""The newest update, for all who watch: encoded once, only while somebody is ready for it, and never queued.

What a camera sent as a JPEG goes on as it is, where browsers show that alike: on a Raspberry Pi encoding is most of
what viewers cost.

The pipeline's thread publishes; where a viewer waits for the picture it is encoded at once, in a thread of its own, and
only then the event loop of the server's thread wakes up, in which everything else happens. Each viewer asks for
something newer than it last had whenever it is ready, so one that is slow skips frames and holds nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import cast

from edgenet.camera.frame import Controls, Frame, Ranked, Update
from edgenet.camera.jpeg import head
from edgenet.camera.opencv import shrink
from edgenet.image import Pixels

MAX_VIEWERS = 64
_QUALITY = 80
_BEAT_S = 1.0  # without news, until viewers hear the last ones again: silence means that the server has vanished
_GOODBYE_S = 0.1  # for it to be said, then, that all was shown
_NOTICE_S = 3.0  # that a page is told of a line; it shows it as long as it likes
_MAX_WIDTH, _MAX_HEIGHT = 1280, 4096  # pixels
_MOST_BITS = 2  # a pixel, of a camera's own JPEG: what is larger is encoded anew, for the network's sake


class Full(Exception):
    """There are MAX_VIEWERS already."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An update and its number; numbers grow, and skip what nobody was there for."""

    number: int
    update: Update

    @property
    def frame(self) -> Frame | None:
        """Its picture."""
        return self.update.answer.frame if self.update.answer else None


@dataclass(frozen=True, slots=True)
class Notice:
    """A line that is shown for a moment, until time.monotonic(); its number tells it from the one before."""

    number: int
    text: str
    until_s: float

    def shown(self) -> dict[str, object] | None:
        """Return what the page gets of it; None once the moment is over."""
        return {"number": self.number, "text": self.text} if time.monotonic() < self.until_s else None


class Broadcast:
    """Holds the newest update and its picture; see above.

    Attributes:
        viewers: how many watch. watched: set once anybody does.
        encoded: how many pictures were encoded since the start.
        closing: set when nothing more comes; all_shown: as the source has ended.
        farewell_s: for the last picture of all to be drawn, by who watches from afar.
    """

    farewell_s = 0.3

    def __init__(self, controls: Controls) -> None:
        self.controls = controls
        self.viewers = 0
        self.watched = threading.Event()
        self.encoded = 0
        self.closing = asyncio.Event()
        self.all_shown = False
        self._newest: Shown | None = None
        self._latest: Shown | None = None  # that viewers may have: the newest, but for one that comes while
        self._busy = False  # a picture is encoded, and then the loop wakes up
        self._waiting: list[Callable[[], bool]] = []  # viewers: whether it is for a picture, as it is
        self._notice = Notice(int(time.time() * 1000), "", 0.0)  # no page takes it for another server's
        self._state: tuple[int, bytes] = (-1, b"")
        self._pictures: dict[bool, tuple[Frame, Future[bytes]]] = {}  # the newest: as it is, and mirrored
        self._pool = ThreadPoolExecutor(1, "edgenet-web-jpeg")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beating: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._lock = threading.RLock()

    def publish(self, update: Update) -> None:
        """Take the newest update; from any thread, returns at once."""
        with self._lock:
            self._publish(update)

    def notice(self, text: str) -> None:
        """Show a line for a moment, with the update that is the newest already or with the first; from any thread."""
        with self._lock:
            self._notice = Notice(self._notice.number + 1, text, time.monotonic() + _NOTICE_S)
            if self._newest is not None:
                self._publish(self._newest.update)

    def _publish(self, update: Update) -> None:
        self._newest = Shown(self._newest.number + 1 if self._newest else 0, update)
        if not self._busy:
            self._offer(self._newest)

    def _offer(self, shown: Shown) -> None:
        """Let viewers have an update: at once, or where one waits for its picture as soon as that is encoded."""
        self._busy = True
        if self._loop is None or shown.frame is None or not any(wanted() for wanted in tuple(self._waiting)):
            return self._give(shown)
        return self._encoded(shown.frame, mirror=False).add_done_callback(lambda _: self._give(shown))

    def _give(self, shown: Shown) -> None:
        with self._lock:
            if self._latest is None or shown.number > self._latest.number:  # or else it is the last one already
                self._latest = shown
            self._busy = self._loop is not None and self.viewers > 0
            if self._loop is not None and self._busy:
                with contextlib.suppress(RuntimeError):  # the loop has just ended
                    self._loop.call_soon_threadsafe(self._wake)

    def open(self) -> None:
        """Begin, in the event loop that serves."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._news, self.closing = asyncio.Event(), asyncio.Event()
        self._beating = asyncio.create_task(self._beat())

    async def close(self) -> None:
        """Tell everybody that nothing more comes; in the event loop. Who saw all may see the last of it, too."""
        with self._lock:
            self._loop, self._latest = None, self._newest
        self.closing.set()
        self._news.set()
        if self._beating is not None:
            self._beating.cancel()
        until = time.monotonic() + self.farewell_s + _GOODBYE_S
        while self.all_shown and self.viewers and time.monotonic() < until:
            await asyncio.sleep(0.005)
        self._pool.shutdown(wait=False)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Count a viewer, as long as the block lasts. Raises Full."""
        if self.viewers >= MAX_VIEWERS:
            raise Full
        self.viewers += 1
        self.watched.set()
        try:
            yield
        finally:
            self.viewers -= 1

    @property
    def latest(self) -> Shown | None:
        """The newest update; None until there is one."""
        return self._latest

    async def newer(self, number: int, wanted: Callable[[], bool]) -> Shown | None:
        """Wait for an update newer than `number`; None where no more will come.

        wanted: whether its picture is, not mirrored; asked from any thread. It is encoded before the update comes.
        """
        while True:
            news, ends = self._news, self.closing.is_set()
            if self._latest is not None and self._latest.number > number and (self.all_shown or not ends):
                return self._latest
            if ends:
                return None
            self._waiting.append(wanted)
            try:
                await news.wait()
            finally:
                self._waiting.remove(wanted)

    def state(self, shown: Shown) -> bytes:
        """Return an update as JSON, made once for all viewers."""
        if self._state[0] != shown.number:
            state = as_state(shown.update, self.controls)
            state["notice"] = self._notice.shown()
            self._state = (shown.number, json.dumps(state).encode())
        return self._state[1]

    async def picture(self, frame: Frame, *, mirror: bool = False) -> bytes:
        """Return a frame as JPEG: the camera's own, or encoded once for all viewers, in a thread of its own.

        mirror: as in a mirror, for who does not mirror it himself: encoded once for all of those.
        """
        with self._lock:
            encoded = self._encoded(frame, mirror=mirror)
        if encoded.done():
            return encoded.result()
        return await asyncio.shield(asyncio.wrap_future(encoded))  # one who leaves cancels nobody else's picture

    def _encoded(self, frame: Frame, *, mirror: bool) -> Future[bytes]:
        known = self._pictures.get(mirror)
        if known is None or known[0] is not frame:
            sent = None if mirror else as_sent(frame)
            if sent is None:
                known = (frame, self._pool.submit(encode, frame.image, mirror))
                self.encoded += 1
            else:
                known = (frame, Future())
                known[1].set_result(sent)
            self._pictures[mirror] = known
        return known[1]

    async def _beat(self) -> None:
        while True:
            before = self._newest
            await asyncio.sleep(_BEAT_S)
            with self._lock:
                if before is not None and self._newest is before:
                    self._publish(before.update)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
        asyncio.get_running_loop().call_soon(self._catch_up)  # when all who waited have taken what they waited for

    def _catch_up(self) -> None:
        with self._lock:
            self._busy = False
            if self._newest is not None and self._newest is not self._latest:
                self._offer(self._newest)


def as_sent(frame: Frame) -> bytes | None:
    """Return the JPEG that a camera sent, if every browser shows it as it was seen, and it is small enough."""
    height, width = frame.image.shape[:2]
    if frame.jpeg is None or width > _MAX_WIDTH or height > _MAX_HEIGHT:
        return None
    said = head(frame.jpeg)
    alike = said is not None and said.plain and (said.width, said.height) == (width, height)
    return frame.jpeg if alike and 8 * len(frame.jpeg) <= _MOST_BITS * width * height else None


def encode(image: Pixels, mirror: bool = False) -> bytes:
    """Encode a picture, uint8 [h, w, 3] in OpenCV's order, as JPEG of at most 1280 x 4096 pixels."""
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, _MAX_WIDTH / width, _MAX_HEIGHT / height)
    if scale < 1:
        image = shrink(image, max(1, round(width * scale)), max(1, round(height * scale)))
    if mirror:
        image = cast(Pixels, cv2.flip(image, 1))
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes()


def as_state(update: Update, controls: Controls) -> dict[str, object]:
    """Return what a page shows beside the picture, as what JSON can hold."""
    answer = update.answer
    return {
        "frame": None if answer is None else answer.frame.id,
        "top": [] if answer is None else [_ranked(ranked) for ranked in answer.top],
        "raw": None if answer is None else _ranked(answer.raw),
        "stats": {field.name: getattr(update.stats, field.name) for field in fields(update.stats)},  # asdict copies
        "paused": update.paused,
        "mirror": update.mirror,
        "rotate": controls.rotate,
    }


def _ranked(ranked: Ranked) -> dict[str, object]:
    return {
        "index": ranked.index,
        "label": ranked.label,
        "raw": _share(ranked.raw),
        "smoothed": _share(ranked.smoothed),
    }


def _share(probability: float) -> float:
    """JSON knows no NaN, which a broken model may answer."""
    return round(float(probability), 5) if math.isfinite(probability) else 0.0
