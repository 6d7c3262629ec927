"""edgenet devices, as a user meets it: in a process of its own, on this machine and on addresses that do not answer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from devices.check import Sighting
from devices.native.bundle import _key, runner_path
from devices.profile import profiles
from devices.registry import Target
from devices.shells.local import LocalShell
from devices.shells.lock import DeviceLock
from edgenet.reports.devices import sighting_json, target_json
from edgenet.spec import ModelSpec
from tests.devices.peers import small_disk

from .conftest import Edgenet

GONE = "ssh://nobody@127.0.0.1:1"  # nothing listens there


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the user's own folders, and a real adb server, out of it."""
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"EDGENET_{kind}_HOME", str(tmp_path / kind.lower()))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/adb").write_text("#!/bin/sh\necho List of devices attached\n")
    (tmp_path / "bin/adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def test_published_latencies_are_of_networks_that_there_are() -> None:
    for profile in profiles().values():
        for one in profile.published:
            assert ModelSpec.parse(one.model).name == one.model


def test_a_device_from_add_to_remove(edgenet: Edgenet, folders: Path) -> None:
    added = edgenet("devices", "add", "lab", GONE, "--profile", "raspberry-pi-4", "--no-check", "--json")
    assert added.code == 0, added.err
    expected = {"name": "lab", "kind": "ssh", "address": GONE, "key": None, "profile": "raspberry-pi-4b"}
    assert added.document == expected
    listed = edgenet("devices", "--json")
    assert listed.code == 0, listed.err
    assert [(one["name"], one["reachable"]) for one in listed.document] == [("local", True), ("lab", False)]
    assert listed.document[0]["info"]["arch"] == platform.machine()
    assert "lab" in edgenet("devices").out
    again = edgenet("devices", "add", "lab", "other", "--no-check")
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "lab is taken" in again.err
    assert edgenet("devices", "remove", "lab", "--json").document == {"name": "lab"}
    assert [one["name"] for one in edgenet("devices", "--json").document] == ["local"]


def test_no_profile_is_null_whether_a_device_was_asked_or_not() -> None:
    unasked = Target("lab", "ssh", "host")
    assert target_json(unasked)["profile"] is sighting_json(Sighting(unasked, None, None, 0.0, ""))["profile"] is None


def test_a_device_that_does_not_answer_is_not_added(edgenet: Edgenet, folders: Path) -> None:
    ran = edgenet("devices", "add", "lab", GONE)
    assert (ran.code, ran.out) == (1, "")
    assert "--no-check" in ran.err
    assert not (folders / "config/devices.toml").exists()


def test_what_this_machine_is(edgenet: Edgenet) -> None:
    shown = edgenet("devices", "show", "local")
    assert shown.code == 0, shown.err
    assert all(word in shown.out for word in ("board", "processors", "governor", "temperature", "x86-64"))
    assert edgenet("devices", "show", "local", "--json").document["info"]["bits"] == 64


def test_whether_this_machine_is_fit(edgenet: Edgenet) -> None:
    checked = edgenet("devices", "check", "local", "--json")
    rows = {row["name"]: row for row in checked.document["checks"]}
    assert rows["folder to execute from"]["ok"]
    fit = all(row["ok"] for row in rows.values() if row["needed"])
    assert (checked.document["fit"], checked.code) == (fit, 0 if fit else 1)


@pytest.mark.parametrize("verb", ["show", "check", "clean", "setup"])
def test_one_line_for_a_device_that_does_not_answer(verb: str, edgenet: Edgenet) -> None:
    ran = edgenet("devices", verb, GONE)
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert sum(line.startswith("edgenet: ") for line in ran.err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["show", "check", "clean", "setup", "remove"])
def test_one_line_for_a_device_that_there_is_not(verb: str, edgenet: Edgenet) -> None:
    ran = edgenet("devices", verb, "a 'b' $(touch gone)\nü")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("edgenet: ")
    assert "Traceback" not in ran.err
    assert not Path("gone").exists()


def test_a_broken_list_and_a_broken_profile_are_one_line(edgenet: Edgenet, folders: Path) -> None:
    (folders / "config/profiles").mkdir(parents=True)
    (folders / "config/profiles/mine.toml").write_text('title = "x"\narch = "aarch64"\nthread = [1]\n')
    ran = edgenet("devices")
    assert ran.code == 1
    assert "mine.toml: thread: no such key; did you mean threads?" in ran.err
    (folders / "config/profiles/mine.toml").unlink()
    (folders / "config/devices.toml").write_text("[devices")
    assert "devices.toml: not TOML" in edgenet("devices").err


def test_a_profile_that_is_gone_hides_no_other_device(edgenet: Edgenet, folders: Path) -> None:
    (folders / "config/profiles").mkdir(parents=True)
    mine = folders / "config/profiles/mine.toml"
    mine.write_text('title = "x"\narch = "aarch64"\n')
    assert edgenet("devices", "add", "lab", GONE, "--profile", "mine", "--no-check").code == 0
    mine.unlink()
    listed = edgenet("devices", "--json")
    assert listed.code == 0, listed.err
    assert [(one["name"], one["reachable"]) for one in listed.document] == [("local", True), ("lab", False)]
    assert "lab: no profile is called 'mine'" in listed.document[1]["trouble"]


def test_the_help_of_a_subcommand_is_its_result(edgenet: Edgenet) -> None:
    ran = edgenet("devices", "add", "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "--no-check" in ran.out


def test_json_that_would_be_ignored_is_refused(edgenet: Edgenet) -> None:
    ran = edgenet("devices", "--json", "show", "local")
    assert (ran.code, ran.out, ran.err) == (2, "", "edgenet: --json goes behind show\n")


def test_what_is_put_there_is_removed_again(edgenet: Edgenet, folders: Path) -> None:
    left = folders / "cache/device/files" / ("0" * 64 + ".tflite")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 1000)
    cleaned = edgenet("devices", "clean", "local", "--json")
    assert cleaned.code == 0, cleaned.err
    assert cleaned.document["freed_bytes"] == 1000
    assert not left.exists()


def test_a_device_without_room_for_a_lock_is_cleaned(edgenet: Edgenet, folders: Path) -> None:
    root = folders / "cache/device"
    root.mkdir(parents=True)
    with small_disk(str(root), 1):
        (root / "run").mkdir()
        (root / "files").mkdir()
        with contextlib.suppress(OSError):
            (root / "files" / ("0" * 64 + ".tflite")).write_bytes(b"x" * 2_000_000)
        cleaned = edgenet("devices", "clean", "local", "--json")
        assert cleaned.code == 0, cleaned.err
        assert cleaned.document["freed_bytes"] > 900_000
        assert sorted(one.name for one in root.iterdir() if one.name not in ("run", "incoming")) == []


def test_the_runtime_is_put_there_once(edgenet: Edgenet, folders: Path) -> None:
    """From the cache, as it is without a network; what it is assembled from is its own tests' matter."""
    arch = platform.machine()
    archive = folders / f"cache/bundles/edgenet-{arch}-{_key(arch, runner_path(arch))}.tar"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w") as file:
        file.add(__file__, "edgenet-runner")
    archive.with_suffix(".sha256").write_text(hashlib.sha256(archive.read_bytes()).hexdigest())
    first = edgenet("devices", "setup", "local", "--json")
    assert first.code == 0, first.err
    assert first.document["moved_bytes"] > 0
    assert (Path(first.document["folder"]) / "edgenet-runner").read_bytes() == Path(__file__).read_bytes()
    assert edgenet("devices", "setup", "local", "--json").document == {**first.document, "moved_bytes": 0}
    edgenet("devices", "clean", "local")
    assert not Path(first.document["folder"]).exists()


def test_what_another_one_uses_is_not_removed(edgenet: Edgenet, folders: Path) -> None:
    with LocalShell(folders / "cache/device") as shell, DeviceLock(shell):
        ran = edgenet("devices", "clean", "local")
    assert ran.code == 1
    assert f"process {os.getpid()}" in ran.err


def test_nothing_heavy_is_loaded() -> None:
    heavy = "{'tensorflow', 'keras', 'onnx', 'onnxruntime', 'ai_edge_litert', 'numpy', 'PIL'}"
    code = (
        "import sys; from edgenet.cli.devices import devices_app\n"
        "try: devices_app(['--json'], standalone_mode=False)\n"
        f"finally: loaded = {heavy} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(loaded)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"local"' in done.stdout
