"""How this process is asked to end: Ctrl-C, what ends services, and a terminal that is gone."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_HANGUP = getattr(signal, "SIGHUP", None)  # of Unix alone


_SAME_S = 0.5
_AGAIN_S = 0.05


@contextlib.contextmanager
def when_asked_to_end(act: Callable[[], None], *, last: bool = False) -> Iterator[None]:
    """Call `act`, on the main thread, where somebody asks this process to end.

    A second time, Ctrl-C and what ends services do what they did before; within half a second it is the same one, which
    a terminal and a parent have both passed on. That the terminal is gone is often said twice, and ignored from then
    on. What is ignored already stays so, as under nohup; so does all inside another thread. A KeyboardInterrupt of
    `act` that Python drops, as it does inside a destructor (subprocess.Popen has one), is raised again. last: the
    process ends after this, and is not killed on its way by the same Ctrl-C coming again.
    """
    asked = _Asked(act)
    in_main, unraisable = threading.current_thread() is threading.main_thread(), sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is KeyboardInterrupt and asked.raised is not None:
            asked.again(asked.raised)
        else:
            unraisable(what)

    if in_main:
        sys.unraisablehook = dropped
        for number in (signal.SIGINT, signal.SIGTERM, _HANGUP):
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                asked.before[number] = signal.signal(number, asked)
    try:
        yield
    finally:
        if in_main:
            sys.unraisablehook = unraisable
        for number, handler in asked.before.items():
            signal.signal(number, signal.SIG_IGN if last and asked.lately(number) else handler)


class _Asked:
    """A signal handler. before: those that it stands in for, by signal. raised: the signal over which `act` raised."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.before: dict[int, Any] = {}
        self.raised: int | None = None
        self._act = act
        self._acted: set[int] = set()
        self._at_s: dict[int, float] = {}  # time.monotonic(), by signal

    def __call__(self, number: int, _: object) -> None:
        """Act the first time; the second time, let what was before do so. The same one may come again at any line."""
        again = number in self._acted
        if self.lately(number):
            return
        if again:
            signal.signal(number, self.before[number])
            signal.raise_signal(number)
            return
        self._note(number, time.monotonic())
        self._acted.add(number)
        if number == _HANGUP:
            signal.signal(number, signal.SIG_IGN)
        self.raised = number
        self._act()
        self.raised = None

    def again(self, number: int) -> None:
        """Act as if for the first time, a moment later: what is raised right now would be dropped, too."""
        self._acted.discard(number)
        self._at_s.pop(number, None)
        signal.signal(number, self)
        threading.Timer(_AGAIN_S, _interrupt_main, (number,)).start()

    def lately(self, number: int) -> bool:
        """Whether that was asked a moment ago, here or within."""
        return number in self._at_s and time.monotonic() - self._at_s[number] < _SAME_S

    def _note(self, number: int, at_s: float) -> None:
        """Note when that was, also with what is in charge once this has ended."""
        self._at_s[number] = at_s
        outer = self.before[number]
        if isinstance(outer, _Asked):
            outer._note(number, at_s)


def _interrupt_main(number: int) -> None:
    """Send the main thread a signal, from another one, so that it wakes up whatever it waits for."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:  # Windows
        _thread.interrupt_main(signal.Signals(number))
