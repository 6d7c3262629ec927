"""The window on a real screen (Xvfb), with a hand on its keys (xdotool); and what happens without a screen."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgenet.camera.frame import Controls
from edgenet.camera.sinks.window import DisplayProbe, press
from edgenet.image import decode
from tests.edgenet.camera.mjpeg_camera import MjpegCamera
from tests.edgenet.camera.started import Started, lines


def no_windows() -> bool:
    """Whether the OpenCV here is a headless one."""
    import cv2

    return any(line.split() == ["GUI:", "NONE"] for line in cv2.getBuildInformation().splitlines())


with_windows = pytest.mark.skipif(no_windows(), reason="this OpenCV has no windows: pip install opencv-python")

NEEDED = {"Xvfb": "xvfb", "xdotool": "xdotool", "import": "imagemagick"}


_CLOSE = """
import ctypes, ctypes.util, sys
x = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
x.XInternAtom.restype = ctypes.c_ulong
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int),
                ("display", ctypes.c_void_p), ("window", ctypes.c_ulong), ("message_type", ctypes.c_ulong),
                ("format", ctypes.c_int), ("data", ctypes.c_long * 5), ("padding", ctypes.c_long * 24)]
display, window = ctypes.c_void_p(x.XOpenDisplay(None)), int(sys.argv[1])
protocols, delete = (x.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
event = Message(33, 0, 1, display, window, protocols, 32, (ctypes.c_long * 5)(delete, 0))
x.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(event))
x.XSync(display, 0)
"""


class Screen:
    """An X server without a monitor, and hands."""

    def __init__(self, size: tuple[int, int] = (1400, 900)) -> None:
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", "{}x{}x24".format(*size), "-nolisten", "tcp", "-noreset"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._server.stdout
        self.display = f":{self._server.stdout.readline().strip()}"
        self._environment = {**os.environ, "DISPLAY": self.display}

    def do(self, *words: str) -> str:
        done = subprocess.run(["xdotool", *words], capture_output=True, text=True, env=self._environment, check=False)
        return done.stdout.strip()

    def window(self) -> str:
        """The window's id; "" while there is none."""
        return self.do("search", "--name", "^edgenet camera$").partition("\n")[0]

    def size(self) -> tuple[int, int]:
        shape = dict(line.split("=") for line in self.do("getwindowgeometry", "--shell", self.window()).splitlines())
        return int(shape["WIDTH"]), int(shape["HEIGHT"])

    def key(self, name: str) -> None:
        self.do("windowfocus", "--sync", self.window())
        self.do("key", name)

    def ask_to_close(self) -> None:
        """Do what the cross in a window's corner does: send it WM_DELETE_WINDOW (ICCCM 4.2.8.1)."""
        subprocess.run(
            [sys.executable, "-c", _CLOSE, self.window()], env=self._environment, check=True, capture_output=True
        )

    def shot(self, path: Path) -> np.ndarray:
        subprocess.run(["import", "-display", self.display, "-window", "root", str(path)], check=True)
        return decode(path)

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        assert self._server.stdout
        self._server.stdout.close()


@contextmanager
def screen_of(size: tuple[int, int]) -> Iterator[Screen]:
    missing = sorted(package for program, package in NEEDED.items() if not shutil.which(program))
    if missing:
        pytest.skip(f"for a real screen: apt install {' '.join(missing)}")
    opened = Screen(size)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    with screen_of((1400, 900)) as opened:
        yield opened


@pytest.fixture(scope="module")
def camera() -> Iterator[MjpegCamera]:
    with MjpegCamera(fps=30, size=(640, 480)) as opened:
        yield opened


def still_picture(screen: Screen, tmp_path: Path) -> bool:
    first, second = (screen.shot(tmp_path / f"{name}.png")[300:420, :640] for name in "ab")
    return bool((first == second).all())


@with_windows
def test_its_keys_do_what_people_expect(screen: Screen, camera: MjpegCamera, tmp_path: Path) -> None:
    log, video = tmp_path / "seen.jsonl", tmp_path / "out.mp4"
    arguments = ("--source", camera.url, "--log", log, "--record", video, "--json")  # the display alone says: a window
    with Started(tmp_path, *arguments, DISPLAY=screen.display) as it:
        it.wait(screen.window)
        it.wait(lambda: len(lines(log)) > 10)
        it.wait(lambda: screen.size() == (640, 480))
        it.wait(lambda: screen.shot(tmp_path / "window.png")[:200, :640].std() > 20)  # a picture, and text over it
        if ctypes.util.find_library("X11-xcb"):  # without it one window in five stays black where both cores are busy
            assert "/libX11-xcb.so.1" in Path(f"/proc/{it.process.pid}/maps").read_text()
        shown = screen.shot(tmp_path / "window.png")[:480, :640]
        assert shown[460:].mean() < shown[300:400].mean() / 2  # the figures' dark ground

        screen.key("space")
        it.wait(lambda: still_picture(screen, tmp_path))
        held = screen.shot(tmp_path / "paused.png")[300:420, :640]
        screen.key("m")
        it.wait(lambda: (screen.shot(tmp_path / "mirrored.png")[300:420, :640] == held[:, ::-1]).all())
        screen.key("m")
        count = len(lines(log))
        time.sleep(0.3)
        assert len(lines(log)) == count
        screen.key("p")
        it.wait(lambda: "symbols answers in float32" in it.err)
        screen.key("space")
        it.wait(lambda: len(lines(log)) > count + 5)

        for special in ("Left", "Up", "Home", "F1", "Delete"):  # OpenCV's codes of these end in Q, R, P, ...
            screen.key(special)
        time.sleep(0.3)
        assert it.process.poll() is None
        assert screen.size() == (640, 480)
        assert it.err.count("answers in") == 1
        screen.key("r")
        it.wait(lambda: screen.size() == (480, 640))
        screen.key("s")
        still = it.wait(lambda: list(tmp_path.glob("2*-*-*-*.png")))[0]
        assert decode(still).shape == (640, 480, 3)
        it.wait(lambda: f"saved {still.name}" in it.err)

        screen.key("q")
        assert it.ends() == 0
        assert it.document["precision"] == "float32"
        assert it.document["inference_fps"] > 5
        assert it.document["draw_ms"] > 0
    assert video.stat().st_size > 10_000


@with_windows
@pytest.mark.parametrize(("size", "rotate"), [((800, 480), 0), ((1600, 1000), 90)])
def test_the_window_fits_the_screen_as_the_picture_is_and_turned(
    tmp_path: Path, size: tuple[int, int], rotate: int
) -> None:
    with (
        screen_of(size) as screen,
        MjpegCamera(fps=30, size=(1280, 720)) as camera,
        Started(tmp_path, "--source", camera.url, "--rotate", rotate, DISPLAY=screen.display) as it,
    ):
        it.wait(screen.window)
        for across, down in ((1280, 720), (720, 1280))[:: -1 if rotate else 1]:
            scale = min(1, 0.9 * size[0] / across, 0.9 * size[1] / down)  # a title bar has room, too
            wanted = [max(320, across * scale), down * scale]  # and text, beside a narrow picture
            it.wait(lambda wanted=wanted: np.abs(np.subtract(screen.size(), wanted)).max() <= 1)
            it.wait(lambda: figures_are_shown(screen, tmp_path))
            screen.key("r")
        screen.key("q")
        assert it.ends() == 0


def figures_are_shown(screen: Screen, tmp_path: Path) -> bool:
    """Whether white letters on a dark ground lie along the window's lower edge."""
    width, height = screen.size()
    strip = screen.shot(tmp_path / f"{width}x{height}.png")[height - 16 : height, : width // 2]
    return bool(np.median(strip) < 70 and (strip.min(axis=2) > 200).sum() > 50)


@with_windows
@pytest.mark.parametrize("options", [("--port", 0), ("--token", "a-token-of-sixteen-letters"), ("--source", "browser")])
def test_what_only_a_page_has_makes_the_page_the_view_though_a_window_could_open(
    screen: Screen, camera: MjpegCamera, tmp_path: Path, options: tuple[object, ...]
) -> None:
    with Started(tmp_path, "--source", camera.url, *options, DISPLAY=screen.display) as it:
        it.wait(lambda: "open http://127.0.0.1:" in it.err)
        time.sleep(1)
        assert not screen.window()
        it.interrupt()
        assert it.ends() == 0


@with_windows
def test_in_a_pause_of_a_clip_a_line_is_shown_for_a_moment(screen: Screen, tmp_path: Path) -> None:
    import cv2

    video = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (640, 480))
    for number in range(900):
        video.write(np.full((480, 640, 3), number % 200, np.uint8))
    video.release()
    top = lambda: screen.shot(tmp_path / "top.png")[:300, :640]  # noqa: E731 - where lines are
    with Started(tmp_path, "--source", "clip.mp4", "--view", "window", DISPLAY=screen.display) as it:
        it.wait(screen.window)
        time.sleep(1)
        screen.key("space")
        it.wait(lambda: still_picture(screen, tmp_path))
        held = top()
        screen.key("s")
        it.wait(lambda: "saved " in it.err)
        it.wait(lambda: (top() != held).any(), 2)
        it.wait(lambda: (top() == held).all(), 5)
        screen.key("q")
        assert it.ends() == 0


@with_windows
@pytest.mark.parametrize("how", ["Escape", "closed"])
def test_escape_and_closing_the_window_end_it(screen: Screen, camera: MjpegCamera, tmp_path: Path, how: str) -> None:
    with Started(tmp_path, "--source", camera.url, "--view", "window", DISPLAY=screen.display) as it:
        it.wait(screen.window)
        it.wait(lambda: screen.size() == (640, 480))
        if how == "closed":
            screen.ask_to_close()
        else:
            screen.key(how)
        assert it.ends() == 0
        assert it.err == ""


@pytest.mark.parametrize("display", [None, ":4711"])
def test_without_a_display_that_works_no_window_is_tried(
    camera: MjpegCamera, tmp_path: Path, display: str | None
) -> None:
    own = {"DISPLAY": display, "WAYLAND_DISPLAY": None}
    with Started(tmp_path, "--source", camera.url, "--view", "window", **own) as it:
        assert it.ends(10) == 1
        assert it.err.count("\n") == 1
        assert ("this OpenCV has no windows" if display and no_windows() else "display") in it.err
        assert "--view web" in it.err
    with Started(tmp_path, "--source", camera.url, **own) as it:
        it.wait(lambda: "open http://127.0.0.1:" in it.err)
        it.interrupt()
        assert it.ends() == 0


@with_windows
def test_a_wayland_that_is_not_there_is_found_out_without_dying() -> None:
    probe = DisplayProbe({"WAYLAND_DISPLAY": "wayland-99", "PATH": "/usr/bin"})
    assert "no window opens on the display wayland-99" in probe.why_not()
    assert "DISPLAY is unset" in DisplayProbe({}).why_not()


def test_keys_in_either_case_and_none_that_is_not_one() -> None:
    controls = Controls()
    for key in "xXyd\r\t1":
        press(controls, key)
    assert (controls.mirror, controls.rotate, controls.paused) == (False, 0, False)
    assert not controls.quit.is_set()
    assert not controls.save.is_set()
    for key in "MrR sP":
        press(controls, key)
    assert (controls.mirror, controls.rotate, controls.paused) == (True, 180, True)
    assert controls.save.is_set()
    assert controls.toggle_precision.is_set()
    for key in "rrm ":
        press(controls, key)
    assert (controls.mirror, controls.rotate, controls.paused) == (False, 0, False)
    for key in ("q", "Q", "\x1b"):
        fresh = Controls()
        press(fresh, key)
        assert fresh.quit.is_set()
