"""Ctrl-C, and what ends services, let the camera quit in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from edgenet.camera.frame import Controls


@contextlib.contextmanager
def leaving(controls: Controls) -> Iterator[None]:
    """Let Ctrl-C, and what ends services, quit in good order; a second time they end it as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def leave(number: int, _: Any) -> None:
        controls.quit.set()
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
