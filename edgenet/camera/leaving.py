"""Ctrl-C, what ends services, and a terminal that is gone let the camera quit in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from edgenet.camera.frame import Controls

_HANGUP = getattr(signal, "SIGHUP", None)  # of Unix alone


@contextlib.contextmanager
def leaving(controls: Controls) -> Iterator[Callable[[], None]]:
    """Let Ctrl-C, what ends services, and a terminal that is gone quit in good order.

    A second time Ctrl-C and what ends services end it as usual; that the terminal is gone is often said twice.

    Yields what is to be called when `controls.quit` is looked at from now on. Until then they raise KeyboardInterrupt,
    as only that ends the wait for a camera or a model that does not open.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before: dict[int, Any] = {}
    looked_at = threading.Event()

    def leave(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_IGN if number == _HANGUP else before[number])
        if not looked_at.is_set():
            raise KeyboardInterrupt
        controls.quit.set()

    for number in (signal.SIGINT, signal.SIGTERM, _HANGUP):
        if number is not None and not (number == _HANGUP and signal.getsignal(number) is signal.SIG_IGN):  # nohup
            before[number] = signal.signal(number, leave)
    try:
        yield looked_at.set
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
