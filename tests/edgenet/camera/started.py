"""The command line in a process of its own that is watched while it runs."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


class Started:
    """`edgenet camera` with these arguments, in the folder `cwd`; stdout and stderr go to files there.

    environment: set on top of ours; None takes a variable away. A context manager that kills what is left.
    """

    def __init__(self, cwd: Path, *arguments: object, **environment: str | None) -> None:
        own = {f"EDGENET_{kind}_HOME": str(cwd / "home") for kind in ("CONFIG", "CACHE", "DATA")}
        known = {**os.environ, **own, "COLUMNS": "160", "PYTHONPATH": str(Path.cwd()), **environment}
        self._out, self._err = cwd / "stdout.txt", cwd / "stderr.txt"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgenet", "camera", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env={name: value for name, value in known.items() if value is not None},
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def document(self) -> Any:
        """stdout as exactly one JSON document."""
        return json.loads(self.out)

    def wait(self, until: Callable[[], object], seconds: float = 15) -> Any:
        """Wait until something is true, which it returns; fails where it does not happen or the process ends."""
        end = time.monotonic() + seconds
        while not (found := until()):
            assert self.process.poll() is None, self.err
            assert time.monotonic() < end, f"it did not happen; stderr: {self.err}"
            time.sleep(0.02)
        return found

    def ends(self, within_s: float = 1.0) -> int:
        """Wait for the end; its exit code. Fails where it takes longer."""
        began = time.monotonic()
        code = self.process.wait(20)
        took = time.monotonic() - began
        assert took < within_s, f"it took {took:.2f} s to end"
        return code

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def __enter__(self) -> Started:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class AtTerminal:
    """`edgenet camera` with these arguments on a terminal of its own, in the folder `cwd`. A context manager, too."""

    def __init__(self, cwd: Path, *arguments: object, term: str = "xterm-256color") -> None:
        self._ours, self.terminal = pty.openpty()
        self.before = termios.tcgetattr(self.terminal)
        self.said = ""
        own = {f"EDGENET_{kind}_HOME": str(cwd) for kind in ("CONFIG", "CACHE", "DATA")}
        screen = {"TERM": term, "COLUMNS": "100", "LINES": "30"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgenet", "camera", *map(str, arguments)],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            cwd=cwd,
            env={**os.environ, **own, **screen, "PYTHONPATH": str(Path.cwd())},
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # it becomes our terminal
        )

    def until(self, text: str) -> str:
        """Wait until a text has been shown since the last `type`; all that was. Fails after 15 s."""
        end = time.monotonic() + 15
        while text not in self.said:
            assert time.monotonic() < end, self.said
            if select.select([self._ours], [], [], 0.1)[0]:
                self.said += os.read(self._ours, 65536).decode(errors="replace")
        return self.said

    def type(self, keys: bytes) -> None:
        """Press these keys; what was shown before is forgotten."""
        self.said = ""
        os.write(self._ours, keys)

    def __enter__(self) -> AtTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.terminal)


def lines(path: Path) -> list[Any]:
    """Read a log: its whole lines."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
