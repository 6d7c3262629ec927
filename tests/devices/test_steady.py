"""A device's clocks are held while it is measured, and are its own again whatever happens."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from devices.device import DeviceInfo, probe
from devices.errors import DeviceLost
from devices.shells.local import LocalShell
from devices.steady import steady

from . import boards


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(tmp_path / "device")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that go before this machine's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def governors(root: Path) -> set[str]:
    return {path.read_text().strip() for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}


def pi(shell: LocalShell, tmp_path: Path) -> tuple[Path, DeviceInfo]:
    root = boards.pi4(tmp_path / "pi")
    return root, probe(shell, "ssh", str(root))


def test_the_governor_is_performance_while_files_are_timed(shell: LocalShell, programs: Path, tmp_path: Path) -> None:
    program(programs, "id", "echo 0")
    root, info = pi(shell, tmp_path)
    said: list[str] = []
    with steady(shell, info, said.append, str(root)):
        assert governors(root) == {"performance"}
    assert governors(root) == {"ondemand"}
    assert said == ["hold the clocks of local"]
    with pytest.raises(KeyboardInterrupt), steady(shell, info, root=str(root)):
        raise KeyboardInterrupt
    assert governors(root) == {"ondemand"}


def test_one_that_was_killed_leaves_the_old_governors_to_the_next(
    shell: LocalShell, programs: Path, tmp_path: Path
) -> None:
    program(programs, "id", "echo 0")
    root, info = pi(shell, tmp_path)
    held = steady(shell, info, root=str(root))
    held.__enter__()  # and never left
    later = probe(shell, "ssh", str(root))
    assert later.state.governor == "performance"
    said: list[str] = []
    with steady(shell, later, said.append, str(root)):
        assert governors(root) == {"performance"}
    assert governors(root) == {"ondemand"}
    assert said == ["hold the clocks of local"]
    assert not list((tmp_path / "device").glob("governors"))


def test_what_was_written_down_before_the_device_started_anew_is_not_brought_back(
    shell: LocalShell, programs: Path, tmp_path: Path
) -> None:
    program(programs, "id", "echo 0")
    root, info = pi(shell, tmp_path)
    left = tmp_path / "device" / "governors"
    left.parent.mkdir(exist_ok=True)
    first = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    left.write_text(f"boot of another time\npowersave {first}\n")
    with steady(shell, info, root=str(root)):
        pass
    assert governors(root) == {"ondemand"}
    for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"):
        path.write_text("performance\n")
    with steady(shell, probe(shell, "ssh", str(root)), root=str(root)):
        pass
    assert governors(root) == {"performance"}
    assert not left.exists()


def test_who_is_not_root_changes_nothing(shell: LocalShell, programs: Path, tmp_path: Path) -> None:
    program(programs, "id", "echo 1000")
    root, info = pi(shell, tmp_path)
    with steady(shell, info, root=str(root)):
        assert governors(root) == {"ondemand"}


def test_a_governor_that_there_is_not_is_no_error(shell: LocalShell, programs: Path, tmp_path: Path) -> None:
    program(programs, "id", "echo 0")
    root, info = pi(shell, tmp_path)
    for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"):
        path.unlink()
        path.mkdir()  # the write fails, whoever writes
    with steady(shell, info, root=str(root)):
        pass


def test_a_phone_holds_its_clocks_and_is_let_go(shell: LocalShell, programs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program(programs, "cmd", f'echo "$@" >>"{log}"')
    info = probe(shell, "adb", str(boards.pixel6(tmp_path / "phone")))
    with steady(shell, info):
        assert log.read_text().splitlines() == ["power set-fixed-performance-mode-enabled true"]
    with pytest.raises(DeviceLost), steady(shell, info):
        raise DeviceLost("gone")
    assert log.read_text().split()[2::3] == ["true", "false"] * 2


def test_a_phone_that_cannot_is_left_alone(shell: LocalShell, programs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program(programs, "cmd", f'echo "$@" >>"{log}"; exit 255')
    info = probe(shell, "adb", str(boards.pixel6(tmp_path / "phone")))
    with steady(shell, info):
        pass
    assert len(log.read_text().splitlines()) == 1
    assert info.android
    with steady(shell, dataclasses.replace(info, android=dataclasses.replace(info.android, api_level=29))):
        pass
    assert len(log.read_text().splitlines()) == 1  # Android 10 is not even asked
