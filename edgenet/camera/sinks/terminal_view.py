"""What is seen, as a table in the terminal that stays in its place; plain lines where stderr is none."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from edgenet.camera.frame import Controls, Update
from edgenet.camera.sinks.overlay import figures
from edgenet.camera.sinks.window import KEYS, press

if TYPE_CHECKING:
    from rich.table import Table

_LINE_EVERY_S = 5.0
_REDRAWN_HZ = 8
_BAR = 30  # characters
_NO_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;]*[ -/]*[@-~]|O.|[^\x1b])")  # what arrows, function keys and Alt send


class TerminalView:
    """A `Sink` for people without a screen.

    stream: where to, stderr by default. live: a table that is redrawn; False: a line when the label on top changes, and
    every 5 s. warns: trouble is a line, too; False: somebody else tells it. Keys are read where stdin is this terminal,
    without waiting for Enter; `close` gives it back as it was.
    """

    def __init__(
        self, controls: Controls, stream: IO[str] | None = None, live: bool | None = None, *, warns: bool = True
    ) -> None:
        self._stream = stream or sys.stderr
        self._warns = warns
        self._update: Update | None = None
        self._said: tuple[str, str] = ("", "")
        self._said_s = 0.0
        self._live: Any = None
        self._keys = Keys(controls)
        if self._stream.isatty() if live is None else live:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
            if console.is_dumb_terminal:  # it moves no cursor, and would show no table
                return
            self._live = Live(self, console=console, refresh_per_second=_REDRAWN_HZ, vertical_overflow="crop")
            self._live.start()
            self._keys.start()

    def show(self, update: Update) -> None:
        """Keep the newest update, which is drawn some times a second."""
        self._update = update
        if self._live is None:
            self._say(update)

    def close(self) -> None:
        """Leave the terminal as it was; harmless twice."""
        self._keys.close()
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def __rich__(self) -> Table:
        """Draw the newest update."""
        from rich.table import Table

        update = self._update
        table = Table(box=None, show_header=False, padding=(0, 1))
        if update is None:
            table.add_row("waiting for the first picture")
            return table
        for one in update.answer.top if update.answer else ():
            table.add_row(one.label, f"{one.smoothed:4.0%}", "█" * round(_BAR * one.smoothed), f"{one.raw:4.0%} raw")
        whole = Table(box=None, show_header=False, padding=0)
        if update.stats.trouble:  # first: in a small terminal the end is cut off
            whole.add_row(update.stats.trouble, style="bold red")
        if update.paused:
            whole.add_row("paused: space goes on")
        whole.add_row(table)
        if update.answer:
            whole.add_row(f"this frame alone: {update.answer.raw.label} {update.answer.raw.raw:.0%}", style="yellow")
        whole.add_row(" · ".join(figures(update.stats)))
        whole.add_row(KEYS, style="dim")
        return whole

    def _say(self, update: Update) -> None:
        now, stats = time.monotonic(), update.stats
        label = update.answer.top[0].label if update.answer else ""
        if (label, stats.trouble) == self._said and now - self._said_s < _LINE_EVERY_S:
            return
        self._said, self._said_s = (label, stats.trouble), now
        if stats.trouble:
            if not self._warns:
                return
            print(stats.trouble, file=self._stream, flush=True)
        elif update.answer:
            top = update.answer.top[0]
            age = f"{stats.age_p95_ms:.0f} ms" if stats.age_p95_ms else "-"
            print(
                f"{top.label} {top.smoothed:.0%} (raw {top.raw:.0%}), {stats.inference_fps:.1f} fps, age {age}",
                file=self._stream,
                flush=True,
            )


class Keys:
    """Keys pressed in the terminal that stdin is; nothing where it is none, or where this runs in its background."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._before: list[Any] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take the terminal: letters come at once, and are not shown."""
        try:
            import termios
            import tty

            self._fd = sys.stdin.fileno()
            if not os.isatty(self._fd) or os.tcgetpgrp(self._fd) != os.getpgrp():
                return
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)  # Ctrl-C stays what it is
            self._continued = signal.signal(signal.SIGCONT, lambda *_: self._take_again())
        except (ImportError, OSError, ValueError, AttributeError):  # Windows; a closed stdin
            return
        self._thread = threading.Thread(target=self._read, name="edgenet-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the terminal back as it was; harmless twice."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(0.5)
        before, self._before = self._before, None
        if before is not None:
            import termios

            signal.signal(signal.SIGCONT, self._continued)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, before)

    def _take_again(self) -> None:
        """After Ctrl-Z the shell had the terminal, and gave it back as it is used to it."""
        import tty

        with contextlib.suppress(OSError):
            if os.tcgetpgrp(self._fd) == os.getpgrp():  # fg, not bg
                tty.setcbreak(self._fd)

    def _read(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._fd], [], [], 0.1)[0]:
                continue
            pressed = os.read(self._fd, 32)
            if not pressed:  # the terminal is gone
                return
            for key in _NO_ESCAPE.sub(b"", pressed).decode("ascii", "ignore"):
                press(self._controls, key)
