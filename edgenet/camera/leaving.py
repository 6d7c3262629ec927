"""Ctrl-C, what ends services, and a terminal that is gone let the camera quit in good order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from edgenet.camera.frame import Controls
from edgenet.endings import when_asked_to_end


@contextlib.contextmanager
def leaving(controls: Controls) -> Iterator[Callable[[], None]]:
    """Let whoever asks this process to end quit the camera in good order.

    Yields what is to be called when `controls.quit` is looked at from now on. Until then KeyboardInterrupt is raised,
    as only that ends the wait for a camera or a model that does not open.
    """
    looked_at = threading.Event()

    def leave() -> None:
        if not looked_at.is_set():
            raise KeyboardInterrupt
        controls.quit.set()

    with when_asked_to_end(leave):
        yield looked_at.set
