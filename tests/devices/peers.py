"""The devices that every test of a shell runs on: this machine, a real ssh server, and whoever else signs up here.

To add one: write a function that takes an empty folder and yields an open shell to a peer that runs its commands on
this machine (so that its process table can be looked at), and put it into PEERS.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from devices.shells.local import LocalShell
from devices.shells.shell import Shell

from .sshd import Sshd


@contextmanager
def local(folder: Path) -> Iterator[Shell]:
    with LocalShell(folder / "a root") as shell:
        yield shell


@contextmanager
def ssh(folder: Path) -> Iterator[Shell]:
    with Sshd(folder) as server, server.shell() as shell:
        yield shell


PEERS: dict[str, Callable[[Path], AbstractContextManager[Shell]]] = {"local": local, "ssh": ssh}


def running(marker: str) -> list[str]:
    """Return the command lines on this machine, and so on every peer, that hold a marker; without those of zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if marker in line:
                found.append(f"{entry.parent.name}: {line}")
    return found


def comes(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Wait until something holds; False where it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def small_disk(folder: str, megabytes: int = 2) -> Iterator[None]:
    """Put a disk with little room in place of a folder; skips the test where that is not allowed."""
    mount = ("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "edgenet-test", folder)
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(("umount", "-l", folder), check=True)
