"""A live camera as a Source: read in a thread of its own, only the newest picture kept, opened again when it is lost.

    camera.open -> camera.read, again and again -> the newest one -> frames()
         ^              | Lost
         +-- 0.5 .. 8 s -+

The thread is why `frames` ends at once when it shall, however long a camera keeps its reader waiting. It must have left
OpenCV's code before the interpreter ends: a thread that comes back from there later is unwound through C++, which
aborts the whole process. So what still runs at exit is waited for, unless the process is ended without (`ended` tells).
"""

from __future__ import annotations

import atexit
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from edgenet.camera.frame import Frame, Trouble
from edgenet.camera.opencv import decode_jpeg
from edgenet.errors import SourceError
from edgenet.image import Pixels

FIRST_RETRY_S, LAST_RETRY_S = 0.5, 8.0
SLACK_S = 0.2  # that a camera's own timeout comes first
STALLED_S = 2.0 + SLACK_S  # without a picture
_LOOK_S = 0.1  # how often `frames` looks at what may have changed meanwhile
_CLOSE_S = 0.15  # how long `close` waits for the reader
_EXIT_S = 12.0  # how long the interpreter's end does; a V4L2 read can take 10 s


class Lost(Exception):
    """The camera cannot be opened, or gives no more pictures: why, in a few words, and what to do where it is known."""

    def __init__(self, why: str, cure: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Shot:
    """What a camera gave.

    Attributes:
        captured_ns: time.monotonic_ns() of its arrival.
        image: uint8 BGR [h, w, 3]; None: not decoded yet.
        jpeg: the same as the camera sent it; None where it sent no JPEG.
    """

    captured_ns: int
    image: Pixels | None
    jpeg: bytes | None = None


class Camera(Protocol):
    """What LiveSource reads. `open`, `read` and `close` are called by one thread at a time, `interrupt` by any."""

    @property
    def title(self) -> str:
        """What it is, for people: "camera 0"."""

    @property
    def patience_s(self) -> float:
        """How long the first picture may take after `open`."""

    @property
    def waits_s(self) -> float:
        """How long `read` waits before it raises Lost by itself; 0: as long as it is not interrupted."""

    def open(self) -> None:
        """Open it, or open it again after Lost. Raises Lost."""

    def read(self) -> Shot:
        """Wait for the next picture. Raises Lost."""

    def interrupt(self) -> None:
        """Make an `open` or a `read` that waits in another thread raise Lost soon, if there is a way."""

    def close(self) -> None:
        """Let go of it; harmless twice, and when it was never opened."""


class LiveSource:
    """A camera as a Source. Opens it at once and keeps reading: a picture is never older than the newest.

    Raises SourceError if it cannot be opened. What is lost later is opened again, for ever.
    """

    live = True

    def __init__(self, camera: Camera) -> None:
        self.dropped = 0
        self._camera = camera
        self._size = ""
        self._next = 0  # id of the next frame
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._waiting: deque[Shot | Trouble] = deque(maxlen=8)
        self._refused: Exception | None = None  # what __init__ raises
        self._failure: Exception | None = None  # what `frames` raises
        self._opened = False
        self._due = math.inf  # time.monotonic() by which a picture must have come
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgenet-camera", daemon=True)
        _running.add(self)
        self._thread.start()
        try:
            self._tried.wait()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if isinstance(self._refused, Lost):
            cure = f"; {self._refused.cure}" if self._refused.cure else ""
            raise SourceError(f"{camera.title}: {self._refused.why}{cure}") from self._refused
        if self._refused:
            raise self._refused

    @property
    def name(self) -> str:
        """What it is, and how large its pictures are as soon as one has come."""
        return f"{self._camera.title}{self._size}"

    def frames(self, stop: threading.Event) -> Iterator[Frame | Trouble]:
        """Yield the newest picture, each once, and Trouble; see Source. What cannot be decoded is left out."""
        said, spoilt = "", False
        while not stop.is_set() and not self._closed.is_set():
            item = self._take()
            if isinstance(item, Shot):
                image = decode_jpeg(item.jpeg) if item.image is None and item.jpeg is not None else item.image
                spoilt = image is None
                if image is not None:
                    said = ""
                    yield self._frame(item.captured_ns, image, item.jpeg)
                    continue
            trouble = item if isinstance(item, Trouble) else self._overdue(spoilt)
            if trouble and trouble.text != said:
                said = trouble.text
                yield trouble

    def close(self) -> None:
        """Let the camera go; harmless twice. Where it keeps its reader waiting that takes a while, in background."""
        self._closed.set()
        self._camera.interrupt()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)

    def _frame(self, captured_ns: int, image: Pixels, jpeg: bytes | None) -> Frame:
        self._measure(image)
        frame = Frame(self._next, captured_ns, image, jpeg)
        self._next += 1
        with self._changed:
            if self._opened:
                self._due = time.monotonic() + max(STALLED_S, self._camera.waits_s + SLACK_S)
        return frame

    def _measure(self, image: Pixels) -> None:
        self._size = f", {image.shape[1]}x{image.shape[0]}"

    def _take(self) -> Shot | Trouble | None:
        """Return what waits, in the order it came; None if nothing did for a while. Raises what ended the reader."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(_LOOK_S)
            if self._waiting:
                return self._waiting.popleft()
            if self._failure:
                raise self._failure
            return None

    def _overdue(self, spoilt: bool) -> Trouble | None:
        """Say once that no picture came for too long, and make a reader that waits for ever give up on this connection.

        spoilt: what came last could not be decoded.
        """
        with self._changed:
            if time.monotonic() < self._due:
                return None
            self._due = math.inf
        waits_s = self._camera.waits_s
        if spoilt or not waits_s:
            self._camera.interrupt()
        slow = f"no whole picture for {waits_s:.0f} s" if waits_s else "no picture comes any more"
        why = "its pictures cannot be decoded" if spoilt else slow
        return Trouble(f"{self._camera.title}: {why}")

    def _put(self, item: Shot | Trouble) -> None:
        """Hand something to `frames`. A picture that nobody took gives way to the next; so does Trouble."""
        if isinstance(item, Shot) and item.image is not None:
            self._measure(item.image)
        with self._changed:
            if self._waiting and type(self._waiting[-1]) is type(item):
                self._waiting[-1] = item
                self.dropped += isinstance(item, Shot)
            else:
                self._waiting.append(item)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._camera.open()
        except Exception as exc:  # noqa: BLE001 - raised by __init__
            self._refused = exc
        self._tried.set()
        try:
            if not self._refused:
                self._read()
        except Exception as exc:  # noqa: BLE001 - raised by `frames`
            self._failure = exc
        finally:
            self._camera.close()
            _running.discard(self)

    def _read(self) -> None:
        """Read until closed, and open again what was lost."""
        retry_s = FIRST_RETRY_S
        ready = True
        while not self._closed.is_set():
            try:
                if not ready:
                    self._camera.open()
                self._expect(self._camera.patience_s)
                while not self._closed.is_set():
                    self._put(self._camera.read())
                    retry_s = FIRST_RETRY_S
            except Lost as exc:
                ready = False
                self._expect(None)
                self._camera.close()
                if not self._closed.is_set():
                    self._put(Trouble(f"{self._camera.title}: {exc.why}: trying again in {retry_s:g} s"))
                self._closed.wait(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)

    def _expect(self, seconds: float | None) -> None:
        """Note that the camera is open, and when its first picture is due; None: it is lost, nothing is due."""
        with self._changed:
            self._opened = seconds is not None
            self._due = math.inf if seconds is None else time.monotonic() + seconds


_running: set[LiveSource] = set()


def ended(within_s: float = _CLOSE_S) -> bool:
    """Close what its owner left open, and see whether every reader has ended."""
    until = time.monotonic() + within_s
    while sources := tuple(_running):
        for source in sources:
            source.close()
        if time.monotonic() > until:
            return not _running
    return True


@atexit.register
def _end_readers() -> None:
    """Wait until no thread is in OpenCV any more."""
    ended(_EXIT_S)
