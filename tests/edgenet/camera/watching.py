"""A live source being watched by a test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from edgenet.camera.frame import Frame, Trouble
from edgenet.camera.sources.live import LiveSource
from edgenet.camera.sources.opening import open_source
from edgenet.errors import SourceError

from .mjpeg_camera import PASSWORD

NOTICED_S = 3.0  # a camera that stalls
SMALL = (640, 368)  # whole blocks of 16, little enough to be coded twice on a small machine


class Watch:
    """A source being watched; `frame` and `trouble` wait for the next of their kind, and return how long it took."""

    def __init__(self, source: object) -> None:
        assert isinstance(source, LiveSource)
        self.source = source
        self.stop = threading.Event()
        self._items = source.frames(self.stop)
        self._watchdog = threading.Timer(60, self.stop.set)
        self._watchdog.daemon = True
        self._watchdog.start()

    def frame(self, wanted: Callable[[Frame], bool] = lambda frame: True) -> tuple[Frame, float]:
        start = time.monotonic()
        for item in self._items:
            if isinstance(item, Frame) and wanted(item):
                return item, time.monotonic() - start
        raise AssertionError("it ended, or nothing of the kind came within a minute")

    def trouble(self, words: str = "") -> tuple[str, float]:
        start = time.monotonic()
        for item in self._items:
            if isinstance(item, Trouble) and words in item.text:
                return item.text, time.monotonic() - start
        raise AssertionError("it ended, or nothing of the kind came within a minute")

    def close(self) -> None:
        self._watchdog.cancel()
        self.source.close()

    def ended_after(self) -> float:
        """Return how long the source goes on once it shall stop."""
        start = time.monotonic()
        self.stop.set()
        for _ in self._items:
            pass
        return time.monotonic() - start


@contextlib.contextmanager
def watching(url: str) -> Iterator[Watch]:
    watch = Watch(open_source(url))
    try:
        yield watch
    finally:
        watch.close()
        watch.source.close()  # harmless
        watch.source._thread.join(5)
        assert not watch.source._thread.is_alive()


def refusal(url: str) -> str:
    with pytest.raises(SourceError) as refused:
        open_source(url)
    text = str(refused.value)
    assert "\n" not in text
    assert PASSWORD not in text
    assert quote(PASSWORD, safe="") not in text
    return text
