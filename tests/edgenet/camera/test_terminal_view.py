"""The table in the terminal, as rich draws it."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from edgenet.camera.frame import Controls
from edgenet.camera.terminal_view import TerminalView

from .stand_ins import picture, stats, update


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
