"""The command line, run in a process of its own; what it costs to load libraries, and to measure well, is left out."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BRIEF = """
from devices.runtimes.timing import Schedule
Schedule.__init__.__defaults__ = (0.05, 2, 0.1, 5, 12.0, 5)  # in the order of its fields
from edgenet.__main__ import main
main()
"""
PLAIN, BRIEFLY = (sys.executable, "-m", "edgenet"), (sys.executable, "-c", BRIEF)
"""BRIEFLY: repetitions take 0.15 s of running a model in place of 2."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as exactly one JSON document."""
        return json.loads(self.out)


Edgenet = Callable[..., Ran]


class CommandLine:
    """Runs the command line; a context manager.

    settings: environment variables, where the caller's environment has none.
    folder: for what it says.
    """

    def __init__(self, settings: dict[str, str], folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._warm: subprocess.Popen[str] | None = None
        """A process that TensorFlow is loaded in, and what else takes long to load."""

    def __enter__(self) -> CommandLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._warm is not None:
            self._warm.communicate(timeout=60)  # the end of its orders is its own

    def __call__(self, verb: str, *arguments: object, timeout_s: float = 180, cwd: Path | None = None) -> Ran:
        """Run one verb; what measures does so for a moment only."""
        words = [verb, *map(str, arguments)]
        environment = {**self._settings, **os.environ, "COLUMNS": "160"}
        if verb != "camera":  # its libraries are none of TensorFlow's neighbours
            return self._forked(words, environment, timeout_s, cwd or Path.cwd())
        done = subprocess.run(
            [*PLAIN, *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
            cwd=cwd,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def _forked(self, words: list[str], environment: dict[str, str], timeout_s: float, cwd: Path) -> Ran:
        warm = self._warm = self._warm or started()
        said = [self._folder / name for name in ("out", "err")]
        for file in said:
            file.write_bytes(b"")
        order = {"arguments": words, "environment": environment, "cwd": str(cwd), "said": [*map(str, said)]}
        assert warm.stdin is not None
        assert warm.stdout is not None
        warm.stdin.write(json.dumps(order) + "\n")
        warm.stdin.flush()
        if not select.select([warm.stdout], [], [], timeout_s)[0]:
            os.killpg(warm.pid, signal.SIGKILL)
            warm.communicate()
            self._warm = None
            raise subprocess.TimeoutExpired(words, timeout_s, *(file.read_bytes() for file in said))
        return Ran(int(warm.stdout.readline()), *(file.read_text() for file in said))


def started() -> subprocess.Popen[str]:
    """Start a process that loads libraries, and then waits for orders."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.edgenet.warm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # TensorFlow's own lines
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
