"""A Chromium whose camera plays a clip, for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenet.image import Pixels

from .browser import browser, known_symbol, playwright


@pytest.fixture(scope="module")
def symbol(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Pixels]:
    """A clip of a generated symbol that the embedded model knows; the clip, its label, its frame."""
    path = tmp_path_factory.mktemp("clip") / "symbol.mjpeg"
    return path, *known_symbol(path)


@pytest.fixture(scope="module")
def play() -> Iterator[Any]:
    with playwright() as running:
        yield running


@pytest.fixture(scope="module")
def chrome(play: Any, symbol: tuple[Path, str, Pixels]) -> Iterator[Any]:
    with browser(play, symbol[0]) as running:
        yield running
