"""How this process is asked to end: Ctrl-C, what ends services, and a terminal that is gone."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_HANGUP = getattr(signal, "SIGHUP", None)  # of Unix alone


@contextlib.contextmanager
def when_asked_to_end(act: Callable[[], None]) -> Iterator[None]:
    """Call `act`, on the main thread, where somebody asks this process to end.

    A second time, Ctrl-C and what ends services do what they did before; that the terminal is gone is often said twice,
    and ignored from then on. What is ignored already stays so, as under nohup; so does all inside another thread.
    """
    before: dict[int, Any] = {}

    def asked(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN if number == _HANGUP else before[number])
        act()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, _HANGUP):
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, asked)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
