"""What the command line shows on a terminal."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from edgenet.cli.fitting import fitting
from edgenet.cli.terminal import Progress, show


def figures(rows: int, justify: str = "right") -> Table:
    """A table of 10 columns that is 148 wide: a file's name, and figures that tell each cell apart."""
    table = Table(title="what it is", caption="how it was measured")
    table.add_column("file", overflow="fold")
    for column in range(9):
        table.add_column(f"column {column}", justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in range(rows):
        table.add_row(f"日本_{row}_int8.tflite", *(f"{row}{column}.{column}{row}5 ms" for column in range(9)))
    return table


def drawn(table: Table, width: int) -> str:
    console = Console(width=width)
    with console.capture() as shown:
        console.print(table)
    return shown.get()


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, stream: str) -> Iterator[list[str]]:
    """Put a terminal in the place of sys.stdout or sys.stderr; behind the block the list holds all that it was sent."""
    ours, theirs = pty.openpty()
    shown: list[str] = []
    data = b""
    with os.fdopen(theirs, "w") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, stream, screen)
        yield shown
    with suppress(OSError):  # Linux says EIO where the last of the other side is gone
        while piece := os.read(ours, 1 << 16):  # a read gives what has come so far, not what was written at once
            data += piece
    os.close(ours)
    shown.append(data.decode())


def test_no_figure_is_broken_where_a_table_is_wider_than_the_terminal() -> None:
    table = figures(4)
    assert "00.005" not in drawn(table, 80)
    parts = fitting(table, 80)
    shown = [drawn(part, 80) for part in parts]
    assert len(parts) == 2
    assert max(cell_len(line) for text in shown for line in text.splitlines()) <= 80
    assert ["what it is" in text for text in shown] == [True, False]
    assert ["how it was measured" in text for text in shown] == [False, True]
    for column in table.columns:
        for cell in (column.header, *column.cells):
            assert str(cell) in "".join(shown)
    assert len(fitting(table, 20)) == 4


@pytest.mark.parametrize(
    ("table", "width"), [(figures(4), 160), (figures(13), 80), (figures(4, "left"), 80), (figures(0), 80)]
)
def test_a_table_that_has_room_a_long_one_and_one_of_words_stay_as_they_are(table: Table, width: int) -> None:
    assert fitting(table, width) == [table]


def test_a_result_fits_the_terminal_it_is_shown_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with terminal(monkeypatch, "stdout") as shown:
        show(figures(2))
    assert "18.815 ms" in shown[0]


@pytest.mark.parametrize(
    ("term", "live", "bar"), [("xterm", True, True), ("xterm", False, False), ("dumb", True, False)]
)
def test_how_far_it_is_can_be_seen_on_every_terminal(
    term: str, live: bool, bar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(Progress, "live", live)
    with terminal(monkeypatch, "stderr") as shown, Progress() as progress:
        progress("convert", 1, 2)
    (seen,) = shown
    assert "convert" in seen
    assert ("\x1b" in seen) == bar
    assert bar or seen == "convert 1/2\r\n"
