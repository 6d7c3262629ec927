"""The real Video4Linux code of OpenCV, on a camera that a preloaded library makes: see v4l2_device.c."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

_WATCH = """
import hashlib, json, sys, threading, time
from edgenet.camera.frame import Frame
from edgenet.camera.sources.opening import first_camera, open_source
from edgenet.errors import SourceError
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
def say(*what): print(json.dumps(what), flush=True)
try:
    source = open_source(*json.loads(sys.argv[1])) if len(sys.argv) > 1 else first_camera()
    say("opened", source.name)
    for item in source.frames(stop):
        if isinstance(item, Frame):
            age = time.monotonic_ns() - item.captured_ns
            sent = hashlib.sha256(item.jpeg or b"").hexdigest()
            say("frame", item.id, item.image.shape, item.image[9, 9].tolist(), sent, age, item.captured_ns)
        else:
            say("trouble", item.text)
    source.close()
    say("closed", source.name)
except SourceError as exc:
    say("refused", str(exc))
"""


class Device:
    """A folder that says how the camera /dev/video3 behaves."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if sys.platform != "linux" or not compiler:
            pytest.skip("no C compiler; try: apt-get install gcc libc6-dev")
        if any(Path("/dev").glob("video*")):
            pytest.skip("this machine has a camera")
        self.folder = folder
        self.library = folder / "device.so"
        source = Path(__file__).with_name("v4l2_device.c")
        options = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-lpthread"]
        subprocess.run([compiler, "-o", self.library, source, *options], check=True)
        for width, height in ((1280, 720), (640, 480)):
            image = np.full((height, width, 3), (200, 100, 20), np.uint8)
            cv2.imwrite(str(folder / f"{width}x{height}.jpg"), image)
        self.set("plugged")

    def set(self, state: str) -> None:
        (self.folder / state).touch()

    def unset(self, state: str) -> None:
        (self.folder / state).unlink()

    def open(self, *arguments: Any) -> Viewer:
        return Viewer(self, arguments)


class Viewer:
    """A process with that camera that watches it; a context manager."""

    def __init__(self, device: Device, arguments: tuple[Any, ...]) -> None:
        environment = {**os.environ, "LD_PRELOAD": str(device.library), "V4L2_DEVICE": str(device.folder)}
        command = [sys.executable, "-c", _WATCH, *([json.dumps(arguments)] if arguments else [])]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def next(self, kind: str) -> tuple[list[Any], float]:
        """Return the next of a kind, and how many seconds it took; the others are passed over."""
        start = time.monotonic()
        assert self.process.stdout
        for line in self.process.stdout:
            said: list[Any] = json.loads(line)
            if said[0] == kind:
                return said[1:], time.monotonic() - start
            assert time.monotonic() - start < 20, f"no {kind}; last: {said}"
        raise AssertionError(f"it ended without {kind}")

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.process.kill()
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        assert kind or self.process.wait(20) == 0
        self.process.wait()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_a_device_gives_mjpg_in_the_size_asked_for(device: Device) -> None:
    for arguments, size in ((["3"], [720, 1280, 3]), (["/dev/video3", [640, 480]], [480, 640, 3])):
        with device.open(*arguments) as viewer:
            assert viewer.next("opened")[0][0].startswith("camera 3" if arguments == ["3"] else "/dev/video3")
            frames = [viewer.next("frame")[0] for _ in range(20)]
            assert [frame[0] for frame in frames] == list(range(20))
            assert all(frame[1] == size for frame in frames)
            assert abs(np.array(frames[0][2]) - (200, 100, 20)).max() <= 4  # blue first
            sent = (device.folder / f"{size[1]}x{size[0]}.jpg").read_bytes()
            assert {frame[3] for frame in frames} == {hashlib.sha256(sent).hexdigest()}, "the camera's own JPEG"
            assert all(0 < frame[4] < 0.5e9 for frame in frames)
        log = (device.folder / "log").read_text().split("\n")
        assert log[-2] == f"S_FMT MJPG {size[1]}x{size[0]}"
        assert log[-3].startswith("S_FMT MJPG ")  # before the size


def test_an_unplugged_camera_is_opened_again_when_it_is_back(device: Device) -> None:
    with device.open("3") as viewer:
        last = [viewer.next("frame")[0] for _ in range(5)][-1]
        device.unset("plugged")
        said, seconds = viewer.next("trouble")
        assert said == ["camera 3: it was unplugged: trying again in 0.5 s"]
        assert seconds < 1
        assert "there is no /dev/video3: trying again in 1 s" in viewer.next("trouble")[0][0]
        device.set("plugged")
        assert viewer.next("frame")[0][0] > last[0]


def test_a_device_that_stalls_is_noticed(device: Device) -> None:
    with device.open("3") as viewer:
        viewer.next("frame")
        device.set("stalled")
        said, seconds = viewer.next("trouble")
        assert "no picture" in said[0]
        assert seconds < 3
        device.unset("stalled")
        viewer.next("frame")
        device.set("stalled")  # and ends in the middle of that, without a crash


@pytest.mark.parametrize("kind", ["cut short", "half", "noise", "nothing"])
def test_pictures_that_are_spoilt_are_left_out(device: Device, kind: str) -> None:
    whole = (device.folder / "1280x720.jpg").read_bytes()
    noise = np.random.default_rng(0).bytes(4000)
    spoilt = {"cut short": whole[:500], "half": whole[: len(whole) // 2], "noise": noise, "nothing": b""}[kind]
    with device.open("3") as viewer:
        for _ in range(5):
            viewer.next("frame")
        opened = (device.folder / "log").read_text()
        (device.folder / "spoilt.new").write_bytes(spoilt)
        (device.folder / "spoilt.new").rename(device.folder / "spoilt")
        first = time.monotonic_ns()
        time.sleep(0.7)
        last = time.monotonic_ns()
        device.unset("spoilt")
        end = time.monotonic() + 1
        said = []
        assert viewer.process.stdout
        while time.monotonic() < end:
            said.append((time.monotonic_ns(), json.loads(viewer.process.stdout.readline())))
        assert {one[0] for _, one in said} == {"frame"}  # and no trouble
        assert all(one[2] == [720, 1280, 3] for _, one in said)
        taken = [captured for _, (*_, captured) in said]
        assert not [at for at in taken if first + 0.1e9 < at < last], "an older picture in a spoilt one's place"
        assert len([at for at in taken if at > last]) > 10
        assert (device.folder / "log").read_text() == opened  # nor was it opened again


def test_a_device_whose_pictures_stay_spoilt_is_noticed_and_comes_back(device: Device) -> None:
    with device.open("3") as viewer:
        viewer.next("frame")
        (device.folder / "spoilt").write_bytes(b"\xff\xd8 noise")
        assert viewer.next("trouble")[1] < 3
        assert "its pictures cannot be decoded" in viewer.next("trouble")[0][0]
        device.unset("spoilt")
        viewer.next("frame")
    (device.folder / "spoilt").write_bytes(b"\xff\xd8 noise")
    with device.open("3") as viewer:
        assert "it opens, but its pictures cannot be decoded; unplug it" in viewer.next("refused")[0][0]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("busy", "camera 3: another program is using it; close that; this names it: fuser -v /dev/video3"),
        ("denied", "camera 3: no permission to use /dev/video3; try: sudo usermod -aG video $USER, and log in again"),
        ("raw", "camera 3: this is a Raspberry Pi camera module, which needs libcamera; use --source picamera2"),
        ("stalled", "camera 3: it opens, but gives no picture; unplug it"),
    ],
)
def test_a_device_that_gives_nothing_says_why(device: Device, state: str, words: str) -> None:
    device.set(state)
    with device.open("3") as viewer:
        said, seconds = viewer.next("refused")
        assert said[0].startswith(words)
        assert seconds < 10  # OpenCV alone waits that long for each call to a busy device


def test_other_nodes_and_other_files(device: Device) -> None:
    with device.open("4") as viewer:
        assert "this device gives no pictures" in viewer.next("refused")[0][0]
    with device.open("5") as viewer:
        assert "there is no /dev/video5" in viewer.next("refused")[0][0]


def test_the_first_camera_that_opens_is_taken(device: Device) -> None:
    with device.open() as viewer:
        assert viewer.next("opened")[0][0].startswith("camera 3")
    device.set("busy")
    with device.open() as viewer:
        said = viewer.next("refused")[0][0]
        assert "absent: camera 0, camera 1, camera 2, camera 5" in said
        assert "camera 3: another program is using it" in said
        assert "camera 4: this device gives no pictures" in said


def test_the_buffer_that_a_device_was_asked_for_is_given_back(device: Device) -> None:
    with device.open("3") as viewer:
        viewer.next("frame")
    asked = (device.folder / "buffers").read_text().split()
    assert asked[:2] == ["1", "0"]  # before OpenCV asks for its own


def test_a_pictures_time_is_the_drivers_own_where_that_is_sensible(device: Device) -> None:
    device.set("late")
    with device.open("3") as viewer:
        ages = [viewer.next("frame")[0][4] for _ in range(10)]
        assert min(ages) > 0.2e9
        assert np.median(ages) < 0.9e9
    device.unset("late")
    device.set("wall")
    with device.open("3") as viewer:
        assert 0 <= viewer.next("frame")[0][4] < 0.9e9
