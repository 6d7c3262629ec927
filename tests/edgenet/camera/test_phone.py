"""The page on a connected phone: the real adb, against a daemon whose `am` and whose reverse forwards are recorded."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import DeviceError, DeviceUnreachable
from edgenet.camera.phone import PhonePage
from tests.devices.adbd import Adbd, Link, Packet, Stream

URL = "http://127.0.0.1:8790/?token=a-b_c$(touch /tmp/owned)"


class Forwards:
    """What of `adb reverse` arrives at the phone: reverse:forward:tcp:A;tcp:B and reverse:killforward:tcp:A."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = b"OKAY"
        self._open = Link._open

    def open(self, link: Link, theirs: int, request: bytes) -> None:
        """Stand in for Link._open: an OKAY for the stream, one for the forward, and the end."""
        if not request.startswith(b"reverse:"):
            self._open(link, theirs, request)
            return
        self.asked.append(request.decode())
        link._opened += 1
        stream = link._streams[link._opened] = Stream(link, link._opened, theirs)
        link.send(Packet(b"OKAY", stream.ours, theirs))
        threading.Thread(target=self._reply, args=(link, stream), daemon=True).start()

    def _reply(self, link: Link, stream: Stream) -> None:
        stream.write(self.answer)
        link._close(stream)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Forwards:
    recorded = Forwards()
    monkeypatch.setattr(Link, "_open", lambda link, theirs, request: recorded.open(link, theirs, request))
    return recorded


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
def phone(server: str, forwards: Forwards, started: Path) -> Iterator[Adbd]:
    path = f"PATH={started.parent / 'bin'}:/usr/bin:/bin"
    with Adbd(prefix=("/usr/bin/env", path)) as daemon:
        plug_in(server, daemon)
        yield daemon


def plug_in(adb: str, daemon: Adbd) -> None:
    subprocess.run([adb, "connect", daemon.serial], capture_output=True, check=True)


def test_the_phone_reaches_our_port_and_opens_the_page(phone: Adbd, forwards: Forwards, started: Path) -> None:
    page = PhonePage()
    page.open(8790, URL)
    assert forwards.asked == ["reverse:forward:tcp:8790;tcp:8790"]
    assert started.read_text().splitlines() == ["start", "-a", "android.intent.action.VIEW", "-d", URL]  # as one word
    page.close()
    page.close()
    assert forwards.asked[1:] == ["reverse:killforward:tcp:8790"]


def test_a_phone_without_a_browser_is_an_error(phone: Adbd, started: Path) -> None:
    program = started.parent / "bin" / "am"
    program.write_text("#!/bin/sh\necho 'Error: Activity not started, unable to resolve Intent'\n")  # and answers 0
    page = PhonePage()
    with pytest.raises(DeviceError, match="unable to resolve Intent"):
        page.open(8790, URL)
    page.close()


def test_a_port_that_the_phone_refuses_is_an_error(phone: Adbd, forwards: Forwards, started: Path) -> None:
    forwards.answer = b"FAIL0012cannot bind socket"
    with pytest.raises(DeviceError, match="cannot bind") as refused:
        PhonePage().open(80, URL)
    assert "\n" not in str(refused.value)
    assert not started.exists()  # no page that could not load


def test_which_phone_it_is(server: str, phone: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    with Adbd() as second:
        plug_in(server, second)
        with pytest.raises(DeviceUnreachable, match="2 phones: set ANDROID_SERIAL"):
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
