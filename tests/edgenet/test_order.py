"""An order from Python is refused where it makes no sense, as one from the command line is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgenet


@pytest.mark.parametrize("formats", ["tflite", ("tflite", "onx"), ()])
def test_formats_that_nobody_writes_are_refused(formats: Any) -> None:
    with pytest.raises(edgenet.EdgenetError, match=r'give \("tflite",\)'):
        edgenet.Order(formats=formats, out=Path("out"))


def test_an_effort_that_there_is_not_is_refused() -> None:
    effort: Any = "bset"
    with pytest.raises(edgenet.EdgenetError, match=r'effort \'bset\': give "plain", "fast" or "best"'):
        edgenet.Demand(effort=effort)
