"""This machine as a device, with the scripts and folders of any other."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from devices.child import exchange
from devices.errors import CommandTimeout, DeviceLost, DeviceUnfit
from devices.folders import cache_folder
from devices.shells.shell import DEFAULT_TIMEOUT_S, Result, Script, last_line, pull_file, push_archive, result, script


class LocalShell:
    """A shell on this machine; a `Shell`.

    root: our folder, below the cache folder by default.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = (root or cache_folder() / "device").absolute()
        self._owner = secrets.token_hex(4) + "-"

    @property
    def name(self) -> str:
        """Return "local"."""
        return "local"

    @property
    def root(self) -> str:
        """Absolute path of our folder, made if missing."""
        try:
            (self._root / "run").mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            cure = "set EDGENET_CACHE_HOME to a folder of yours"
            raise DeviceUnfit(f"cannot make {self._root} ({exc.strerror}): {cure}") from exc
        return str(self._root)

    @property
    def connections(self) -> int:
        """This machine is never lost."""
        return 1

    def run(self, command: Sequence[str], timeout_s: float = DEFAULT_TIMEOUT_S, stdin: bytes = b"") -> Result:
        """Run a program with its arguments, in our folder; see Shell."""
        return self._send(command, timeout_s, stdin)

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        """Write files into a folder; see Shell."""
        incoming = f"{self.root}/incoming/{self._owner}{secrets.token_hex(4)}"
        return push_archive(self._send, self.name, incoming, files, folder, timeout_s)

    def pull(self, path: str, timeout_s: float = 60.0) -> bytes:
        """Read one file whole; see Shell."""
        return pull_file(self._send, self.name, path, timeout_s)

    def close(self) -> None:
        """Nothing is open: what outlasts its time is killed at once."""

    def __enter__(self) -> LocalShell:
        _ = self.root
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _send(self, command: Sequence[str], timeout_s: float, stdin: bytes | IO[bytes]) -> Result:
        root = self.root
        sent = script(command, root, self._owner)
        try:
            # Killed from inside, as on any device, the wrapper still cleans up after the command.
            stdout, stderr = exchange(("sh", "-c", sent.text), timeout_s, stdin, root, lambda: _kill(sent))
        except subprocess.TimeoutExpired:
            raise overdue(self.name, command, timeout_s) from None
        ended = result(sent, stdout, stderr)
        if ended is None:
            raise DeviceLost(f"the shell that ran {command[0]!r} here was killed: {last_line(stderr)}")
        return ended


def overdue(name: str, command: Sequence[str], timeout_s: float) -> CommandTimeout:
    """Make the error for a command that was killed because it lasted too long."""
    return CommandTimeout(f"{command[0]!r} on {name} gave no answer in {timeout_s:g} s and was killed there")


def _kill(sent: Script) -> None:
    with suppress(subprocess.TimeoutExpired):
        exchange(("sh", "-c", sent.killer), 5.0)
