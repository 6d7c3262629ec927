"""The page on a connected phone: the real adb, against a daemon whose `am` is recorded."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import DeviceError, DeviceUnreachable
from edgenet.camera import phone as module
from edgenet.camera.phone import PhonePage
from tests.devices.adbd import Adbd

URL = "http://127.0.0.1:8790/?token=a-b_c$(touch /tmp/owned)"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An adb server of our own; the path of adb."""
    tool = shutil.which("adb")
    if tool is None:
        pytest.skip("adb is not installed: apt install adb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    yield tool
    subprocess.run([tool, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A folder for the phone's PATH whose `am` writes down what it was asked; that file."""
    program, log = tmp_path / "bin" / "am", tmp_path / "am.log"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>{log}\n")
    program.chmod(0o755)
    return log


@pytest.fixture
def phone(server: str, started: Path) -> Iterator[Adbd]:
    path = f"PATH={started.parent / 'bin'}:/usr/bin:/bin"
    with Adbd(prefix=("/usr/bin/env", path)) as daemon:
        plug_in(server, daemon)
        yield daemon


def plug_in(adb: str, daemon: Adbd) -> None:
    subprocess.run([adb, "connect", daemon.serial], capture_output=True, check=True)


def test_the_phone_reaches_our_port_and_opens_the_page(phone: Adbd, started: Path) -> None:
    page = PhonePage()
    page.open(8790, URL)
    assert phone.reversed == ["forward:tcp:8790;tcp:8790"]
    assert started.read_text().splitlines() == ["start", "-a", "android.intent.action.VIEW", "-d", URL]  # as one word
    page.close()
    page.close()
    assert phone.reversed[1:] == ["killforward:tcp:8790"]


def test_a_cable_that_is_plugged_back_reaches_our_port_again(
    phone: Adbd, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.1)
    page = PhonePage()
    page.open(8790, URL)
    time.sleep(0.5)
    assert phone.reversed == ["forward:tcp:8790;tcp:8790"]  # as long as it holds, nobody asks again
    phone.switch_off()
    subprocess.run([server, "disconnect", phone.serial], capture_output=True, check=True)  # else it waits for 10 s
    time.sleep(0.5)
    phone.switch_on()
    plug_in(server, phone)
    deadline = time.monotonic() + 20
    while len(phone.reversed) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    page.close()
    assert phone.reversed == [*["forward:tcp:8790;tcp:8790"] * 2, "killforward:tcp:8790"]


def test_a_phone_without_a_browser_is_an_error(phone: Adbd, started: Path) -> None:
    program = started.parent / "bin" / "am"
    said = "Starting: Intent { act=android.intent.action.VIEW }\nError: Activity not started, unable to resolve Intent"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")  # and answers 0
    page = PhonePage()
    with pytest.raises(DeviceError, match=r"opens no page \(Error: Activity not started, unable to resolve Intent\)"):
        page.open(8790, URL)
    page.close()


def test_a_port_that_the_phone_refuses_is_an_error(phone: Adbd, started: Path) -> None:
    phone.reverse_answer = b"FAIL0012cannot bind socket"
    with pytest.raises(DeviceError, match="cannot bind") as refused:
        PhonePage().open(80, URL)
    assert "\n" not in str(refused.value)
    assert not started.exists()  # no page that could not load


def test_which_phone_it_is(server: str, phone: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    with Adbd() as second:
        plug_in(server, second)
        with pytest.raises(DeviceUnreachable, match="2 phones: set ANDROID_SERIAL"):
            PhonePage()
        monkeypatch.setenv("ANDROID_SERIAL", "")  # as good as unset
        with pytest.raises(DeviceUnreachable, match="2 phones"):
            PhonePage()
        monkeypatch.setenv("ANDROID_SERIAL", second.serial)
        PhonePage()
        monkeypatch.setenv("ANDROID_SERIAL", "nobody")
        with pytest.raises(DeviceUnreachable, match="no phone nobody"):
            PhonePage()


def test_no_phone_or_one_that_is_not_ready(server: str) -> None:
    with pytest.raises(DeviceUnreachable, match="no phone is connected"):
        PhonePage()
    with Adbd(unauthorized=True) as shy:
        plug_in(server, shy)
        with pytest.raises(DeviceUnreachable, match="accept the question"):
            PhonePage()


def test_closing_after_the_phone_has_gone_is_harmless(phone: Adbd) -> None:
    page = PhonePage()
    page.open(8790, URL)
    phone.switch_off()
    page.close()
