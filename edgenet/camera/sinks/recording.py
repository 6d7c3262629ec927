"""A recording of what is shown: a video of constant rate, written in a thread of its own.

It begins with the first picture. Of a live source the newest one is repeated until the next comes, so that the video
lasts as long as what it shows; what the encoder cannot follow is left out. Of a file each frame is in it, once, or as
often as it takes for what a clip shows for longer than its rate says.
"""

from __future__ import annotations

import math
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.camera.frame import Update
from edgenet.camera.sinks.overlay import Painter
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Pixels

_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}

_WAITING = 8  # pictures: of 2.8 MB at most
_RESERVE = 2 << 20  # bytes that stay free on the disk: an .mp4 without its index, written last, is lost
_INDEX = 16  # bytes of it a frame
_BEHIND_S = 1.0  # how far the encoder may fall behind until time is cut out
_MISSED_S = 2.0  # of a live source, until that is told: less is what waited at the end
_FASTEST_FPS = 1000.0
_SLOWEST_FPS = 0.1  # encoders round to thousandths; frames that last longer are repeated
_FINE_FPS = 65  # up to which a rate may have three decimals: MPEG-4 counts at most 65535 parts of a second


@dataclass(frozen=True, slots=True)
class _Shot:
    at_s: float  # on the video's own clock, which stands still in pauses
    queued_s: float  # of time.monotonic()
    picture: Pixels
    clip_s: tuple[float, float] | None  # from when to when a clip shows it


class Recording:
    """A `Sink`: a video file, which is under its name once it was closed.

    fps: of the video. live: see the module. failed: told, in one line, when no more can be recorded; what was recorded
    until then is playable. warn: told at the end how much the encoder could not follow. quitting: set once nobody waits
    any more for what a clip shows for long. Raises UsageError for another suffix than .mp4, .mov, .mkv, .avi,
    EdgenetError where it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        painter: Painter,
        *,
        fps: float = 30.0,
        live: bool = True,
        failed: Callable[[str], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
        quitting: threading.Event | None = None,
    ) -> None:
        self._video = _Video(path, min(_FASTEST_FPS, max(_SLOWEST_FPS, fps)))
        self._path, self._painter, self._live = path, painter, live
        self._failed, self._warn = failed, warn
        self._fps = self._video.fps
        self._queue: queue.Queue[_Shot | None] = queue.Queue(_WAITING)
        self._quitting = quitting or threading.Event()
        self._over = threading.Event()  # it failed, or was closed
        self._newest = -1
        self._paused_s = 0.0
        self._paused_at: float | None = None
        self._start_s: float | None = None
        self._first_s, self._last_s = math.inf, -math.inf  # of what was shown, on the video's own clock
        self._previous: Pixels | None = None
        self._ends = 0  # of a clip's last frame, in frames of the video
        self._told = False  # that it failed
        self._thread = threading.Thread(target=self._run, name="edgenet-recording", daemon=True)
        self._thread.start()

    def show(self, update: Update) -> None:
        """Take one update; of a file it waits for the encoder, of a live source it never does."""
        now = time.monotonic()
        if self._over.is_set() or update.answer is None:  # the first picture gives the video its size
            return
        if self._live and self._stands_still(update.paused, now):
            return
        if not self._live:
            if update.answer.frame.id == self._newest:
                return
            self._newest = update.answer.frame.id
        frame = update.answer.frame
        at_s = now - self._paused_s
        self._first_s, self._last_s = min(self._first_s, at_s), at_s
        clip_s = None if frame.at_s is None else (frame.at_s, frame.at_s + frame.lasts_s)
        shot = _Shot(at_s, now, self._painter.paint(update, mirror=False), clip_s)
        while not self._over.is_set():
            try:
                self._queue.put(shot, block=not self._live, timeout=0.2)
            except queue.Full:
                if self._live:
                    return
            else:
                return

    def close(self) -> None:
        """Write what is waiting, and end the file; harmless twice."""
        closed = self._over.is_set()
        self._over.set()
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.1)
            except queue.Full:
                continue
            self._thread.join()
        whole_s = self._last_s - self._first_s
        missed_s = whole_s - self._video.frames / self._fps
        if self._live and not closed and missed_s > _MISSED_S:
            self._warn(
                f"{self._path}: {missed_s:.0f} of {whole_s:.0f} s are not in it: this machine encodes less than "
                f"{self._fps:g} such pictures a second; fewer --threads leave it more time, --roi less to do"
            )

    def _stands_still(self, paused: bool, now: float) -> bool:
        if paused and self._paused_at is None:
            self._paused_at = now
        elif not paused and self._paused_at is not None:
            self._paused_s += now - self._paused_at
            self._paused_at = None
        return paused

    # The recording's own thread.

    def _run(self) -> None:
        try:
            while (shot := self._queue.get()) is not None:
                if not self._live:
                    self._follow(shot)
                elif not (self._over.is_set() and self._video.frames):  # who quits does not wait for a slow encoder
                    self._keep_time(shot)
            self._repeat(self._ends)
        except Exception as exc:  # noqa: BLE001 - whatever it is, nobody shall wait for this thread
            self._fail(exc)
        try:
            self._video.close()
        except Exception as exc:  # noqa: BLE001 - the same
            self._fail(exc)

    def _follow(self, shot: _Shot) -> None:
        """Write a picture of a file, and the one before it for as long as a clip shows that."""
        due, self._ends = (round(at_s * self._fps) for at_s in shot.clip_s or (0.0, 0.0))
        if not self._repeat(due):
            return
        self._video.write(shot.picture)
        self._previous = shot.picture

    def _repeat(self, frames: int) -> bool:
        """Write the last picture again until the video has so many frames; False where somebody quits meanwhile."""
        while self._previous is not None and self._video.frames < frames:
            if self._quitting.is_set():
                return False
            self._video.write(self._previous)
        return True

    def _fail(self, exc: Exception) -> None:
        """End the recording, and say so once: in its own words, or else what went wrong with which file."""
        told, self._told = self._told, True
        self._over.set()
        if not told:
            self._failed(str(exc) if isinstance(exc, EdgenetError) else self._video.broken(exc))

    def _keep_time(self, shot: _Shot) -> None:
        """Write a picture at its time, and the one before it until then."""
        if self._start_s is None:
            self._start_s = shot.at_s
        due = int((shot.at_s - self._start_s) * self._fps)
        if time.monotonic() - shot.queued_s > _BEHIND_S:
            self._start_s += (due - self._video.frames) / self._fps
            due = self._video.frames
        while self._previous is not None and self._video.frames < due and not self._over.is_set():
            self._video.write(self._previous)
        if self._video.frames <= due:
            self._video.write(shot.picture)
        self._previous = shot.picture


class _Video:
    """A video file beside its name until it is closed; frames: how many it has. Opened by the first of them."""

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in _CODECS:
            raise UsageError(f"--record {path}: give a file that ends in one of {', '.join(_CODECS)}")
        self.fps = fps if fps <= _FINE_FPS else round(fps, 2)
        self.frames = 0
        self._path = path
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        self._writer: Any = None
        self._size = (0, 0)
        if path.is_dir():
            raise EdgenetError(f"cannot write {path}: a folder; choose another file")
        try:
            self._partial.touch()
            self._look_for_room()
        except OSError as exc:
            raise EdgenetError(f"cannot write {path}: {exc.strerror}; choose another file") from exc
        except EdgenetError:
            self._partial.unlink(missing_ok=True)
            raise

    def write(self, picture: Pixels) -> None:
        """Append a picture; one of another size than the first is fitted into it. Raises EdgenetError: disk full."""
        if self._writer is None:
            self._open(picture)
        self._look_for_room()
        self._writer.write(_fitted(picture, self._size))
        self.frames += 1

    def close(self) -> None:
        """Write the index, and give the file its name; without a picture there is none. Raises EdgenetError."""
        if self._writer is None:
            self._partial.unlink(missing_ok=True)
            return
        self._writer.release()
        try:
            with self._partial.open("rb+") as file:
                os.fsync(file.fileno())
            self._partial.replace(self._path)
        except OSError as exc:
            left = f"it is left in {self._partial}" if self._partial.exists() else "it is lost"
            raise EdgenetError(f"{self._path}: the recording cannot be put there ({exc.strerror}); {left}") from exc

    def broken(self, exc: Exception) -> str:
        """Say in one line that this went wrong with the file."""
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else " ".join(str(exc).split())
        return f"{self._path}: the recording breaks off ({why}): make room or choose another folder"

    def _open(self, picture: Pixels) -> None:
        import cv2

        self._size = (picture.shape[1] & ~1, picture.shape[0] & ~1)
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._partial), codec, self.fps, self._size)
        if not writer.isOpened():
            raise EdgenetError(f"{self._path}: this OpenCV cannot write {self._path.suffix}; try .avi, or no --record")
        self._writer = writer

    def _look_for_room(self) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if free < _RESERVE + _INDEX * self.frames:
            length = (
                f"the recording ends after {self.frames / self.fps:.0f} s" if self.frames else "nothing is recorded"
            )
            raise EdgenetError(f"{self._path}: the disk is full, {length}: make room or choose another folder")


def _fitted(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """Bring a picture to a size (width, height) without distorting it: scaled, with black margins."""
    width, height = size
    if picture.shape[1] - width in (0, 1) and picture.shape[0] - height in (0, 1):
        return np.ascontiguousarray(picture[:height, :width])
    import cv2

    scale = min(width / picture.shape[1], height / picture.shape[0])
    wide, high = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - high) // 2, (width - wide) // 2
    canvas[top : top + high, left : left + wide] = cv2.resize(picture, (wide, high))
    return canvas
