"""Ctrl-C ends it in under a second, wherever it was: opening a camera that hangs, or reading one that has stalled."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from edgenet import endings
from edgenet.camera.frame import Controls
from edgenet.camera.leaving import leaving
from edgenet.endings import when_asked_to_end

from .mjpeg_camera import MjpegCamera
from .sources.test_v4l2 import Device
from .started import Started, lines

_PICAMERA2 = """
import time, numpy as np
class Picamera2:
    def create_video_configuration(self, main): return main
    def configure(self, wanted): self.size = wanted["size"]
    def start(self): self.given = 0
    def capture_arrays(self, names, wait):
        self.given += 1
        time.sleep(0.03 if self.given < 20 else wait)
        if self.given >= 20: raise TimeoutError
        return [np.zeros((self.size[1], self.size[0], 3), np.uint8)], {}
    def close(self): pass
"""


@contextmanager
def deaf_rtsp_server() -> Iterator[tuple[str, threading.Event]]:
    """Yield the address of a server that answers the first question alone, and an event: it was asked another."""
    hangs = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            first, _ = door.accept()
            first.recv(4096)
            first.sendall(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE\r\n\r\n")
            second, _ = door.accept()
            with first, second:
                second.recv(4096)
                hangs.set()
                second.recv(4096)

        threading.Thread(target=serve, daemon=True).start()
        yield f"rtsp://127.0.0.1:{door.getsockname()[1]}/live", hangs


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_while_a_camera_is_being_opened_that_does_not_answer(tmp_path: Path, how: int) -> None:
    with (
        deaf_rtsp_server() as (address, hangs),
        Started(tmp_path, "--source", address, "--view", "none", "--json") as it,
    ):
        it.wait(hangs.is_set)
        time.sleep(0.3)  # FFMPEG waits now
        it.process.send_signal(how)
        assert it.ends(1) == 130
        assert it.err.count("\n") == 1
        assert "interrupted" in it.err
        assert it.out == ""


@pytest.mark.usefixtures("in_a_terminal")
def test_a_terminal_that_is_gone_may_be_said_twice_and_who_ignores_that_goes_on() -> None:
    controls = Controls()
    with leaving(controls) as opened:
        opened()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert controls.quit.is_set()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    controls = Controls()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with leaving(controls) as opened:
            opened()
            os.kill(os.getpid(), signal.SIGHUP)
            assert not controls.quit.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("line", range(12))
def test_a_ctrl_c_that_comes_at_any_line_of_taking_the_first_is_the_same_one(line: int) -> None:
    lines_left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines_left
        if frame.f_code.co_filename != endings.__file__:
            return None
        lines_left -= event == "line"
        if lines_left == -1:
            lines_left = -2
            signal.raise_signal(signal.SIGINT)
        return trace

    controls = Controls()
    before = sys.gettrace()
    with leaving(controls) as opened:
        opened()
        sys.settrace(trace)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            sys.settrace(before)
    assert controls.quit.is_set()


@pytest.mark.parametrize("apart_s", [0.0, 0.002, 0.02, 0.05, 0.1])
def test_one_ctrl_c_that_comes_twice_is_one(tmp_path: Path, apart_s: float) -> None:
    """Of a terminal and of a parent that passes it on."""
    log, video = tmp_path / "seen.jsonl", tmp_path / "out.mp4"
    with (
        MjpegCamera(fps=30, size=(320, 240)) as camera,
        Started(tmp_path, "--source", camera.url, "--view", "none", "--log", log, "--record", video, "--json") as it,
    ):
        it.wait(lambda: len(lines(log)) > 10)
        it.interrupt()
        time.sleep(apart_s)
        it.interrupt()
        assert it.ends(5) == 0
        assert it.err == ""
        assert it.document["complete"]
    assert video.exists()


def test_a_second_ctrl_c_of_its_own_ends_what_does_not_end() -> None:
    said: list[str] = []

    def give_up() -> None:
        said.append("given up")
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), when_asked_to_end(give_up):
        with when_asked_to_end(lambda: said.append("asked")):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # what was inside ended at once: still the same one
    assert said == ["asked"]
    with when_asked_to_end(give_up), when_asked_to_end(lambda: said.append("asked again")):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said == ["asked", "asked again", "given up"]


class Asks:
    """It asks this process to end while it is destroyed: what is raised in a destructor, Python drops."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_comes_inside_a_destructor_is_heard(number: int) -> None:
    def give_up() -> None:
        raise KeyboardInterrupt

    def work() -> None:
        Asks(number)
        time.sleep(5)

    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), when_asked_to_end(give_up), when_asked_to_end(give_up):
        work()
    assert sys.unraisablehook is before


def begun(parent: int) -> int | None:
    """Return the first child of a process that runs a program of its own: until then, its parent waits for it."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        own, others = (Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (child, parent))
        if own and own != others:
            return int(child)
    return None


def test_while_the_model_does_not_open(tmp_path: Path) -> None:
    with Started(tmp_path, "--source", "browser", "--json") as it:
        child = it.wait(lambda: begun(it.process.pid))
        os.kill(child, signal.SIGSTOP)  # long before it has imported its runtime
        time.sleep(0.5)
        it.interrupt()
        assert it.ends(1) == 130
        assert it.err.count("\n") == 1
        assert not Path(f"/proc/{child}").exists()


def test_while_a_device_has_stalled(tmp_path: Path) -> None:
    device = Device(tmp_path)
    log = tmp_path / "seen.jsonl"
    own = {"LD_PRELOAD": str(device.library), "V4L2_DEVICE": str(device.folder)}
    with Started(tmp_path, "--source", "3", "--view", "none", "--log", log, "--json", **own) as it:
        it.wait(lambda: len(lines(log)) > 5)
        device.set("stalled")
        time.sleep(0.4)  # OpenCV waits now, for two seconds
        it.interrupt()
        assert it.ends(1) == 0
        assert it.err == ""
        assert it.document["frames"] == len(lines(log))


def test_while_a_camera_module_has_stalled(tmp_path: Path) -> None:
    (tmp_path / "picamera2.py").write_text(_PICAMERA2)
    log = tmp_path / "seen.jsonl"
    own = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}
    with Started(tmp_path, "--source", "picamera2", "--view", "none", "--log", log, "--json", **own) as it:
        it.wait(lambda: len(lines(log)) > 5)
        time.sleep(1.0)
        it.interrupt()
        assert it.ends(1) == 0
        assert it.document["frames"] == len(lines(log))
