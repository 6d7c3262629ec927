"""The command line in a process of its own that is watched while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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


def lines(path: Path) -> list[Any]:
    """Read a log: its whole lines."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
