"""Where settings, caches and results lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from devices.errors import DeviceError
from devices.folders import cache_folder, config_folder, data_folder

FOLDERS = [
    (config_folder, "CONFIG", ".config/edgenet"),
    (cache_folder, "CACHE", ".cache/edgenet"),
    (data_folder, "DATA", ".local/share/edgenet"),
]


@pytest.mark.parametrize(("folder", "kind", "usual"), FOLDERS)
def test_our_variable_then_the_system_s_then_home(
    folder: Callable[[], Path], kind: str, usual: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(f"EDGENET_{kind}_HOME", raising=False)
    monkeypatch.delenv(f"XDG_{kind}_HOME", raising=False)
    assert folder() == tmp_path / usual
    monkeypatch.setenv(f"XDG_{kind}_HOME", "relative")  # the specification: to be ignored
    assert folder() == tmp_path / usual
    monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / "xdg"))
    assert folder() == tmp_path / "xdg/edgenet"
    monkeypatch.setenv(f"EDGENET_{kind}_HOME", "~/ours")
    assert folder() == tmp_path / "ours"
    assert not (tmp_path / "ours").exists()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EDGENET_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DeviceError, match="set EDGENET_DATA_HOME"):
        data_folder()
