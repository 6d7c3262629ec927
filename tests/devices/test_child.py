"""A child process never outlives the call that ran it."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from devices.child import exchange, uninterrupted
from devices.errors import ShellError

from .peers import comes, running


class InterruptedAtOnce(subprocess.Popen[bytes]):
    """A child whose parent is interrupted when it runs already, but nobody has been told so yet."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_while_it_starts_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = f"8{secrets.randbelow(10**8):08}"
    stopped: list[bool] = []
    monkeypatch.setattr(subprocess, "Popen", InterruptedAtOnce)
    with pytest.raises(KeyboardInterrupt):
        # Its command line can be read a moment after Popen has returned.
        exchange(("sleep", marker), 60, stop=lambda: stopped.append(comes(lambda: bool(running(marker)))))
    assert stopped == [True]
    assert comes(lambda: not running(marker)), running(marker)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_leaves_popens_lock_taken_hangs_nothing() -> None:
    """Ctrl-C where Popen has taken its lock and does not yet see to it that it gives it back."""
    script = (
        "import sys\nfrom devices.child import exchange\n"
        "def trace(frame, event, _):\n"
        "    if frame.f_code.co_name == '_wait' and frame.f_locals['self']._waitpid_lock.locked():\n"
        "        sys.settrace(None); raise KeyboardInterrupt\n"
        "    return trace\n"
        "sys.settrace(trace)\nexchange(('true',), 5)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr.endswith("KeyboardInterrupt\n"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_is_held_back_and_not_lost(number: int) -> None:
    seen: list[str] = []

    def interrupted(fails: bool) -> None:
        with uninterrupted():
            signal.raise_signal(number)
            seen.append("the rest of the block")
            if fails:
                raise OSError("what fails there does not hide it")

    before = signal.signal(number, signal.default_int_handler)
    for fails in (False, True):
        with pytest.raises(KeyboardInterrupt):
            interrupted(fails)
    assert signal.signal(number, before) is signal.default_int_handler
    assert len(seen) == 2


def test_other_threads_have_nothing_to_hold_back() -> None:
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(exchange(("echo", "yes"), 10)[0]))
    thread.start()
    thread.join()
    assert answers == [b"yes\n"]


def test_one_that_lasts_too_long_is_killed_with_what_it_started() -> None:
    marker = f"8{secrets.randbelow(10**8):08}"
    with pytest.raises(subprocess.TimeoutExpired):
        exchange(("sh", "-c", f"sleep {marker} & sleep {marker}"), 0.3)
    assert comes(lambda: not running(marker)), running(marker)


def test_no_program(tmp_path: Path) -> None:
    with pytest.raises(ShellError, match=r"^cannot run .*/none: No such file or directory$"):
        exchange((str(tmp_path / "none"),), 1)
