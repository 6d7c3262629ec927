"""How a child process of ours is run: it never outlives the call, whatever interrupts us."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

from devices.errors import ShellError

_ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def exchange(
    argv: Sequence[str],
    timeout_s: float,
    stdin: bytes | IO[bytes] = b"",
    cwd: str | None = None,
    stop: Callable[[], object] | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[bytes, bytes]:
    """Run a child process of our own to its end; stdout and stderr.

    It has a session of its own: Ctrl-C at the terminal is for us to handle, while the child still carries what ends the
    command on the device. Whatever happens, it does not outlive the call. stop: called before the child is killed.
    Raises subprocess.TimeoutExpired, ShellError.
    """
    piped = isinstance(stdin, bytes) and bool(stdin)
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            with uninterrupted():
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE if piped else subprocess.DEVNULL if isinstance(stdin, bytes) else stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    env=env,
                    cwd=cwd,
                )
        except OSError as exc:  # no such program, or more arguments than the system carries
            raise ShellError(f"cannot run {argv[0]}: {exc.strerror}") from exc
        return process.communicate(stdin if isinstance(stdin, bytes) and stdin else None, timeout_s)
    except BaseException:  # a timeout, Ctrl-C, whatever it is: nothing is left running
        if process is not None:
            with process:
                _end(process, stop)
        raise


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended, and what else a program of ours handles that asks it to end.

    subprocess.Popen starts its child before it returns: an interrupt in between would leave a child nobody knows of.
    threading.Thread.start waits for a lock, and an interrupt there ends in an error of that.
    """
    before = {number: handler for number in _ASKING if callable(handler := signal.getsignal(number))}
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal is handled here
        return
    held: list[tuple[int, FrameType | None]] = []
    for number in before:
        signal.signal(number, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            before[held[0][0]](*held[0])


def _end(process: subprocess.Popen[bytes], stop: Callable[[], object] | None) -> None:
    try:
        if stop:
            stop()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        reap(process)


def reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a child that was killed.

    Not as Popen does: Ctrl-C, come into its poll or wait, may leave its lock taken, and every later wait hangs.
    """
    if os.name != "posix":
        process.wait()
    elif process.returncode is None:
        with suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
        process.returncode = -signal.SIGKILL
