"""The table in the terminal, as rich draws it."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgenet.camera.frame import Controls, Update
from edgenet.camera.sinks import terminal_view
from edgenet.camera.sinks.terminal_view import TerminalView
from tests.edgenet.camera.stand_ins import picture, stats, update


@pytest.mark.parametrize(
    ("options", "first"), [({"trouble": "camera 0 is gone"}, "camera 0 is gone"), ({"paused": True}, "paused")]
)
def test_what_must_be_seen_comes_first_as_a_small_terminal_cuts_the_end_off(
    options: dict[str, object], first: str
) -> None:
    view = TerminalView(Controls(), io.StringIO(), live=False)
    view.show(update(picture(), labels=tuple(f"class {number}" for number in range(30)), **options))  # type: ignore[arg-type]
    shown = io.StringIO()
    Console(file=shown, width=60).print(view)
    assert shown.getvalue().lstrip().startswith(first)


def test_a_picture_that_is_held_has_no_age() -> None:
    stream = io.StringIO()
    view = TerminalView(Controls(), stream, live=False)
    shown = update(picture())
    view.show(dataclasses.replace(shown, stats=stats(age_p50_ms=0.0, age_p95_ms=0.0)))
    assert stream.getvalue().endswith("29.9 fps, age -\n")


def test_the_table_tells_the_smoothed_probability_from_the_raw_one() -> None:
    view = TerminalView(Controls(), io.StringIO(), live=False)
    view.show(update(picture()))
    shown = io.StringIO()
    Console(file=shown, width=200).print(view)
    rows = [" ".join(line.split()) for line in shown.getvalue().splitlines()]
    assert rows[:4] == [
        f"ant 50% {'█' * 15} 12% raw",
        f"bee 25% {'█' * 8} 25% raw",
        f"cat 12% {'█' * 4} 50% raw",
        "this frame alone: cat 50%",
    ]


def test_a_line_comes_when_the_label_or_the_trouble_changes_and_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(terminal_view, "time", SimpleNamespace(monotonic=lambda: clock.s))
    stream = io.StringIO()
    view = TerminalView(Controls(), stream, live=False)

    def said(at_s: float, shown: Update) -> str:
        stream.seek(0)
        stream.truncate()
        clock.s = 1000 + at_s
        view.show(shown)
        return stream.getvalue()

    ant, bee = update(picture()), update(picture(), labels=("bee", "ant", "cat"))
    lines = [f"{label} 50% (raw 12%), 29.9 fps, age 38 ms\n" for label in ("ant", "bee")]
    assert [said(at_s, ant) for at_s in (0, 0.1, 4.9, 5.1, 5.2)] == [lines[0], "", "", lines[0], ""]
    assert [said(at_s, bee) for at_s in (5.3, 5.4)] == [lines[1], ""]
    gone = update(picture(), trouble="camera 0 is gone")
    assert [said(at_s, gone) for at_s in (5.5, 5.6)] == ["camera 0 is gone\n", ""]


def test_trouble_that_somebody_else_tells_is_no_line() -> None:
    stream = io.StringIO()
    view = TerminalView(Controls(), stream, live=False, warns=False)
    view.show(update(picture(), trouble="clip.mp4 is damaged"))
    assert stream.getvalue() == ""
    view.show(update(picture()))
    assert stream.getvalue().startswith("ant 50%")
