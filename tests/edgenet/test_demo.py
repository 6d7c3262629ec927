"""The demo where it cannot run; what it does is in test_cli."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgenet import demo


def test_without_keras_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    with pytest.raises(ModuleNotFoundError):
        demo.run(tmp_path / "demo", "", lambda *_: None)
    assert not (tmp_path / "demo").exists()
