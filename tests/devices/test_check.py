"""The doctor of a device: what it says of good boards, of bad ones, and of devices that do not answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devices import check, registry
from devices.check import Check, examine, look, survey
from devices.device import DeviceInfo, probe
from devices.errors import DeviceLost, ProfileError
from devices.registry import LOCAL, Target
from devices.shells.local import LocalShell
from devices.shells.shell import Shell

from .boards import pi4, pi5, pixel6, write
from .peers import small_disk


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"EDGENET_{kind}_HOME", str(tmp_path / kind.lower()))
    return tmp_path


def checks(board: Path, monkeypatch: pytest.MonkeyPatch, target: Target = LOCAL) -> dict[str, Check]:
    """Examine this machine, which says that it is a board."""

    def as_board(shell: Shell, kind: str) -> DeviceInfo:
        return probe(shell, kind, str(board))

    monkeypatch.setattr(check, "probe", as_board)
    monkeypatch.setattr(registry, "open_shell", lambda _: LocalShell())
    return {one.name: one for one in examine(target)[1]}


def test_this_machine_is_fit(tmp_path: Path) -> None:
    seen, found = examine(LOCAL)
    assert seen.info is not None
    assert seen.profile is not None
    assert seen.profile.name == "x86-64"
    rows = {one.name: one for one in found}
    assert all(rows[name].ok for name in ("reachable", "processor", "64-bit programs", "tools", "room"))
    assert rows["folder to execute from"] == Check(
        "folder to execute from", True, True, str(tmp_path / "cache/device"), ""
    )
    assert not list((tmp_path / "cache/device").glob("check-*"))


def test_a_pi_that_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = checks(pi4(tmp_path / "pi"), monkeypatch)
    assert all(row.ok for row in rows.values())
    assert rows["governor"].found == "ondemand: the clock follows the load, timings begin slower"
    assert rows["governor"].fix.startswith("echo performance | sudo tee /sys/")
    assert rows["temperature"].found == "48.7 °C, it slows down at 80 °C"
    assert rows["full speed now"].found == "nothing holds it back"
    assert rows["profile"].found == "raspberry-pi-4b: 6 published latencies to compare with"


def test_a_pi_that_tells_no_throttle_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = checks(pi4(tmp_path / "pi", throttled=""), monkeypatch)["full speed now"]
    assert (row.ok, row.needed) == (False, False)
    assert row.found.startswith("not told: ")
    assert "usermod -aG video" in row.fix
    assert "full speed now" not in checks(pixel6(tmp_path / "phone"), monkeypatch)


def test_a_pi_on_a_weak_power_supply(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = checks(pi4(tmp_path / "pi", throttled="0x50005"), monkeypatch)
    now, before = rows["full speed now"], rows["full speed since it started"]
    assert (now.ok, now.needed, now.found) == (False, True, "under-voltage; it throttles")
    assert (before.ok, before.needed, before.found) == (False, False, "under-voltage; it throttles")
    assert "power supply" in now.fix
    assert "power supply" in before.fix


def test_what_held_a_pi_back_before_does_not_forbid_a_benchmark_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = checks(pi4(tmp_path / "pi", throttled="0xe0000"), monkeypatch)
    now, before = rows["full speed now"], rows["full speed since it started"]
    assert (now.ok, now.fix) == (True, "")
    assert (before.ok, before.needed) == (False, False)
    assert before.found == "its clock is capped; it throttles; its soft temperature limit is reached"
    assert "fan" in before.fix


def test_a_pi_that_is_hot_and_busy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = checks(pi5(tmp_path / "pi"), monkeypatch)
    assert not rows["temperature"].ok
    assert "let it cool down" in rows["temperature"].fix
    assert rows["full speed now"].found == "its soft temperature limit is reached"
    assert "fan" in rows["full speed now"].fix
    assert (rows["load"].ok, rows["load"].found) == (False, "1.75 on 4 processors")


def test_a_pi_with_programs_of_32_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = checks(pi4(tmp_path / "pi", bits=32), monkeypatch)["64-bit programs"]
    assert (row.ok, row.needed) == (False, True)
    assert "Raspberry Pi OS (64-bit)" in row.fix


@pytest.mark.parametrize(
    ("governor", "driver", "ok", "advised"),
    [
        ("performance", "cpufreq-dt", True, False),
        ("powersave", "cpufreq-dt", False, True),
        ("powersave", "intel_pstate", True, False),
        ("powersave", "intel_cpufreq", False, True),  # intel_pstate in passive mode, which has the kernel's governors
        ("powersave", "amd-pstate-epp", True, False),
        ("powersave", "amd-pstate", False, True),
        ("schedutil", "cpufreq-dt", True, True),
    ],
)
def test_governors(
    governor: str, driver: str, ok: bool, advised: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    root = pi4(tmp_path / "pi")
    write(root, {f"{folder}/scaling_governor": f"{governor}\n", f"{folder}/scaling_driver": f"{driver}\n"})
    row = checks(root, monkeypatch)["governor"]
    assert (row.ok, bool(row.fix)) == (ok, advised)


def test_a_phone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = checks(pixel6(tmp_path / "phone"), monkeypatch, Target("p", "adb", "a b;"))
    assert (rows["screen"].ok, rows["battery"].ok, rows["battery"].found) == (False, False, "42 %")
    assert "adb -s 'a b;' shell cmd power set-fixed-performance-mode-enabled true" in rows["fixed performance"].fix
    assert rows["load"].ok  # a phone's idle load is 9
    assert not any(row.needed and not row.ok for row in rows.values())
    assert rows["profile"].found == "google-pixel-6: nobody has published latencies for it"


def test_whether_the_runtime_is_there_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pi = Target("my pi", "ssh", "pi")
    row = checks(pi4(tmp_path / "pi"), monkeypatch, pi)["runtime"]
    assert (row.ok, row.needed, row.fix) == (False, False, "edgenet devices setup 'my pi'")
    write(tmp_path / "cache/device", {f"bundles/{'0' * 64}/.complete": ""})
    assert checks(tmp_path / "pi", monkeypatch, pi)["runtime"].ok


def test_a_folder_that_nothing_may_be_executed_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "noexec,size=1m", "edgenet-test", str(folder))
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount, and not in every container")
    try:
        rows = {one.name: one for one in examine(LOCAL)[1]}
    finally:
        subprocess.run(("umount", str(folder)), check=True)
    row = rows["folder to execute from"]
    assert (row.ok, row.needed) == (False, True)
    assert "ermission denied" in row.found
    assert "noexec" in row.fix
    assert (rows["room"].ok, rows["room"].found) == (False, "1 MB free")


def test_the_room_that_our_files_take_already_is_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cache/device"
    folder.mkdir(parents=True)
    monkeypatch.setattr(check, "FREE_BYTES", 4_000_000)
    with small_disk(str(folder), 5):
        (folder / "filled").write_bytes(bytes(2_000_000))  # of ours or not: the disk has 3.2 MB left
        elsewhere = {one.name: one for one in examine(LOCAL)[1]}["room"]
        (folder / "filled").unlink()
        (folder / "bundles").mkdir()
        (folder / "bundles" / "runtime").write_bytes(bytes(2_000_000))
        ours = {one.name: one for one in examine(LOCAL)[1]}["room"]
    assert ours.found == elsewhere.found == "3 MB free"
    assert (elsewhere.ok, ours.ok) == (False, True)


def test_tools_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(LocalShell):
        def run(self, command, timeout_s=30.0, stdin=b""):  # type: ignore[no-untyped-def]
            hidden = 'command() { case $2 in sha256sum|setsid) return 1 ;; esac; builtin command "$@"; }\n'
            if command[:2] == ("sh", "-c") and "tool:" in command[2]:
                command = ("bash", "-c", hidden + command[2], *command[3:])
            return super().run(command, timeout_s, stdin)

    monkeypatch.setattr(registry, "open_shell", lambda _: Bare())
    row = {one.name: one for one in examine(LOCAL)[1]}["tools"]
    assert (row.ok, row.found) == (False, "missing: sha256sum, setsid")


def test_a_device_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("gone", "ssh", "ssh://nobody@127.0.0.1:1")
    seen, found = examine(target)
    assert (seen.info, len(found), found[0].name, found[0].ok) == (None, 1, "reachable", False)
    assert found[0].found == seen.trouble != ""


def test_a_device_that_dies_while_it_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dies(LocalShell):
        def run(self, command, timeout_s=30.0, stdin=b""):  # type: ignore[no-untyped-def]
            if "tool:" in str(command):
                raise DeviceLost("it is gone: is it still on?")
            return super().run(command, timeout_s, stdin)

    monkeypatch.setattr(registry, "open_shell", lambda _: Dies())
    rows = {one.name: one for one in examine(LOCAL)[1]}
    assert rows["reachable"].ok
    assert (rows["connection"].ok, rows["connection"].needed) == (False, True)
    assert rows["connection"].found == "it is gone: is it still on?"


def test_a_profile_that_the_user_chose(tmp_path: Path) -> None:
    assert look(Target("x", "local", "", profile="raspberry-pi-5")).profile.name == "raspberry-pi-5"  # type: ignore[union-attr]
    with pytest.raises(ProfileError, match="no profile is called"):
        look(Target("x", "local", "", profile="nonsense"))


def test_a_profile_of_another_board_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def row(board: Path, profile: str) -> Check:
        return checks(board, monkeypatch, Target("x", "local", "", profile=profile))["profile"]

    wrong = row(pi5(tmp_path / "pi5"), "raspberry-pi-4b")
    assert (wrong.ok, wrong.needed) == (False, False)
    says = "it says that it is Raspberry Pi 5 Model B Rev 1.0, whose profile is raspberry-pi-5, and raspberry-pi-4b was"
    assert wrong.found.startswith(says)
    assert row(pi5(tmp_path / "pi5"), "raspberry-pi-5").ok
    assert row(pi5(tmp_path / "pi5"), "generic-arm64-linux").ok  # it is one
    write(tmp_path / "pi5", {"sys/firmware/devicetree/base/model": "Some Board\0", "proc/cpuinfo": ""})
    assert row(tmp_path / "pi5", "raspberry-pi-4b").ok  # nobody knows better than the user
    assert not row(tmp_path / "pi5", "x86-64").ok


def adb_that_says(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called adb before any other."""
    folder.mkdir()
    (folder / "adb").write_text(f'#!/bin/sh\n[ "$1" = devices ] && printf "List of devices attached\\n{text}\\n"\n')
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_what_is_reachable_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry.add(Target("gone", "ssh", "ssh://nobody@127.0.0.1:1"))
    registry.add(Target("mine", "adb", "SERIAL1"))
    phones = "SERIAL1 unauthorized usb:1-1\\nSERIAL2 unauthorized usb:1-2"
    adb_that_says(phones, tmp_path / "bin", monkeypatch)
    seen = {one.target.name: one for one in survey()}
    assert list(seen) == ["local", "gone", "mine", "android:SERIAL2"]
    assert seen["local"].info is not None
    assert [name for name, one in seen.items() if one.trouble] == ["gone", "mine", "android:SERIAL2"]
    assert "accept the question" in seen["android:SERIAL2"].trouble


def test_without_adb_there_are_no_phones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/usr/bin", "/bin"):
        for tool in Path(folder).iterdir():
            if tool.name != "adb" and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    monkeypatch.setenv("PATH", str(tools))
    for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    assert [one.target for one in survey()] == [LOCAL]


def test_here_a_benchmark_needs_a_runtime_of_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {one.name: one for one in examine(LOCAL)[1]}["runtime"].ok
    for name in ("ai_edge_litert", "tflite_runtime", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    lacking = [one for one in examine(LOCAL)[1] if one.needed and not one.ok]
    assert [(one.name, one.fix) for one in lacking] == [("runtime", 'pip install "edgenet[device]"')]
