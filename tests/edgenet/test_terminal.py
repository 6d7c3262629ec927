"""What the command line shows on a terminal."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from edgenet.cli.terminal import Progress


@pytest.mark.parametrize(
    ("term", "live", "bar"), [("xterm", True, True), ("xterm", False, False), ("dumb", True, False)]
)
def test_how_far_it_is_can_be_seen_on_every_terminal(
    term: str, live: bool, bar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(Progress, "live", live)
    with os.fdopen(theirs, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        with Progress() as progress:
            progress("convert", 1, 2)
        screen.flush()
        seen = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "convert" in seen
    assert ("\x1b" in seen) == bar
    assert bar or seen == "convert 1/2\r\n"
