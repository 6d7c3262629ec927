from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenet.camera.frame import Frame
from edgenet.camera.jpeg import jpeg_pixels
from edgenet.camera.opencv import decode_jpeg, environment, shrink, to_bgr
from edgenet.camera.sources import live
from edgenet.camera.sources.address import Address
from edgenet.camera.sources.live import LiveSource, Lost, Shot
from edgenet.camera.sources.opening import first_camera, open_source
from edgenet.errors import SourceError
from tests.edgenet.camera.mjpeg_camera import read_stamp
from tests.edgenet.camera.sources.test_file import picture, refusal

# What every camera shares


def test_any_array_a_camera_gives_becomes_bgr() -> None:
    bgr = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert to_bgr(bgr) is bgr
    assert (to_bgr(np.dstack([bgr, bgr[..., :1]])) == bgr).all()
    for grey in (bgr[..., 0], bgr[..., :1]):
        assert (to_bgr(grey) == bgr[..., :1]).all()
    light = np.linspace(0, 1, 12).reshape(3, 4)
    for bits in (10, 12, 14, 16):
        deep = np.round(light * (2**bits - 1)).astype(np.uint16)
        assert np.abs(to_bgr(deep)[..., 0] - light * 255).max() <= 1
    assert not to_bgr(np.zeros((3, 4), np.uint16)).any()
    for wrong in (bgr.astype(np.float32), bgr[..., :2], bgr[:0], bgr[None]):
        with pytest.raises(ValueError, match="is no picture"):
            to_bgr(wrong)


@pytest.mark.parametrize(
    ("size", "smaller", "averaged"),
    [
        ((7680, 4320), (1280, 720), 16),
        ((2592, 1944), (1280, 960), 4),
        ((1920, 1080), (1280, 720), 1.5),
        ((7, 9), (1, 1), 4),
    ],
)
def test_a_picture_is_shrunk_by_averaging_most_of_it(
    size: tuple[int, int], smaller: tuple[int, int], averaged: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    before = noise.copy()
    small = shrink(noise, *smaller)
    assert (small.dtype, small.shape) == (np.uint8, (smaller[1], smaller[0], 3))
    assert (noise == before).all()
    assert not np.shares_memory(small, noise)
    assert small.mean() == pytest.approx(noise.mean(), abs=0.3 if small.size > 3 else 64)
    if small.size > 3:  # the noise of n pixels' mean is 1 / sqrt(n) of theirs
        assert small.std() < 1.05 * noise.std() / averaged**0.5


def test_a_jpeg_is_decoded_whole_or_not_at_all() -> None:
    image = picture(7, (640, 480))
    data = cv2.imencode(".jpg", image)[1].tobytes()
    whole = decode_jpeg(data + b"\0\0\r\n")
    assert whole is not None
    assert read_stamp(whole) == 7
    grey = decode_jpeg(cv2.imencode(".jpg", image[..., 0])[1].tobytes())
    assert grey is not None
    assert grey.shape == (480, 640, 3)
    assert (jpeg_pixels(data), jpeg_pixels(b"\xff\xd8" + b"\xff" * 50), jpeg_pixels(b"RIFF")) == (640 * 480, 0, 0)
    at = data.index(b"\xff\xc0")
    bomb = data[: at + 5] + b"\xff\xdc\xff\xdc" + data[at + 9 :]
    for damaged in (b"", data[: len(data) // 2], data[:-2], bomb, b"\xff\xd8\xff\xd9", data[:200] + b"\xff\xd9"):
        assert decode_jpeg(damaged) is None


def test_settings_of_opencv_are_there_only_while_it_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGENET_TEST_ONE", raising=False)
    monkeypatch.setenv("EDGENET_TEST_TWO", "the user's")
    with environment(EDGENET_TEST_ONE="ours", EDGENET_TEST_TWO="ours"):
        assert (os.environ["EDGENET_TEST_ONE"], os.environ["EDGENET_TEST_TWO"]) == ("ours", "the user's")
    assert "EDGENET_TEST_ONE" not in os.environ
    assert os.environ["EDGENET_TEST_TWO"] == "the user's"


class Flickering:
    """A camera that opens once, gives one picture, and is then gone for a number of tries."""

    title = "camera F"
    patience_s = 2.0
    waits_s = 0.0

    def __init__(self, gone: int) -> None:
        self.opened = 0
        self.closed = 0
        self._gone = gone
        self._left = 0

    def open(self) -> None:
        self.opened += 1
        if 1 < self.opened <= 1 + self._gone:
            raise Lost("gone")
        self._left = 1

    def read(self) -> Shot:
        if not self._left:
            raise Lost("gone")
        self._left = 0
        return Shot(self.opened, picture(self.opened))

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


def test_a_lost_camera_is_tried_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(live, "LAST_RETRY_S", 0.2)
    monkeypatch.setattr(live, "STALLED_S", 0.1)  # it is lost, and not silent too
    camera = Flickering(gone=5)
    source = LiveSource(camera)
    said, frames = [], []
    for item in source.frames(threading.Event()):
        if isinstance(item, Frame):
            frames.append(item)
        else:
            said.append(item.text)
        if len(frames) == 2:
            break
    source.close()
    assert [frame.captured_ns for frame in frames] == [1, 7]
    assert [frame.id for frame in frames] == [0, 1]
    assert said == [f"camera F: gone: trying again in {wait} s" for wait in ("0.05", "0.1", "0.2")]
    assert camera.closed >= 7


def test_what_breaks_in_a_camera_ends_the_source_with_that() -> None:
    class Broken(Flickering):
        def read(self) -> Shot:
            raise ZeroDivisionError

    source = LiveSource(Broken(0))
    with pytest.raises(ZeroDivisionError):
        list(source.frames(threading.Event()))


# Other sources


_PICAMERA2 = """
import time
import numpy as np

class Picamera2:
    def __init__(self):
        if CAMERAS == 0:
            raise IndexError("list index out of range")
        self.left = 3
    def create_video_configuration(self, main):
        return main
    def configure(self, main):
        width, height = main["size"]
        order = {"RGB888": (200, 100, 20), "BGR888": (20, 100, 200)}[main["format"]]  # as it lies in memory
        self.image = np.full((height, width, 3), order, np.uint8)
    def start(self): ...
    def capture_arrays(self, names, wait):
        assert names == ["main"] and wait
        self.left -= 1
        if self.left < 0:
            raise TimeoutError
        return [self.image.copy()], {"SensorTimestamp": time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 40_000_000}
    def close(self):
        self.image = None
"""


@pytest.fixture
def picamera2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A stand-in for picamera2, which needs the board: takes the module's text."""

    def install(text: str) -> None:
        sys.modules.pop("picamera2", None)
        (tmp_path / "picamera2.py").write_text(text)
        importlib.invalidate_caches()

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    yield install
    sys.modules.pop("picamera2", None)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="picamera2 is for Linux")
def test_picamera2_is_asked_for_blue_first_and_believed_about_the_time(picamera2: Callable[[str], None]) -> None:
    picamera2(_PICAMERA2 + "CAMERAS = 1")
    source = open_source("picamera2", (320, 240))
    items = source.frames(threading.Event())
    first = next(items)
    assert isinstance(first, Frame)
    assert first.image[0, 0].tolist() == [200, 100, 20]
    assert 0.03e9 < time.monotonic_ns() - first.captured_ns < 5e9
    assert source.name == "picamera2, 320x240"
    lost = next(item for item in items if not isinstance(item, Frame))
    assert lost.text == "picamera2: no picture for 2 s: trying again in 0.5 s"
    assert isinstance(next(items), Frame)
    source.close()
    picamera2(_PICAMERA2 + "CAMERAS = 0")
    assert "no camera module is connected" in refusal("picamera2")


def test_without_picamera2_one_line_says_how_to_get_it(
    picamera2: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    picamera2("raise ValueError('numpy.dtype size changed,\\nincompatible')")
    assert "pip install 'numpy<2'" in refusal("picamera2")
    picamera2("import libcamera_that_is_not_there")
    assert "libcamera_that_is_not_there is not installed" in refusal("picamera2")
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match=r"apt install python3-picamera2.*--system-site-packages"):
        open_source("picamera2")


def test_addresses_of_no_camera() -> None:
    assert "ftp://" in refusal("ftp://host/clip.mp4")
    assert "names no host" in refusal("rtsp:///live")
    assert "names no host or port" in refusal("tcp://127.0.0.1")
    assert "cannot be read" in refusal("http://user:pass@[::1/x")
    assert "names no host" in refusal("http://a b/x")
    for url in ("http://camera..local/live", "rtsp://camera..local/live"):
        assert f"{url}: no such host; check its name" in refusal(url)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("rtsp:/user:s3cret@host/live", "this rtsp address has not two slashes after its colon"),
        ("RTSP:user:s3cret@host/live", "write it as rtsp://HOST:PORT/PATH"),
        ("http:/host/video?password=s3cret", "this http address has not two slashes after its colon"),
        ("user:s3cret@host/live", "an address begins with its kind: rtsp://USER:PASSWORD@HOST/PATH"),
        ("user:/s3cret@host/live", "an address begins with its kind"),
        ("rtsp//user:s3cret@host/live", "an address begins with its kind"),
        ("file://user:s3cret@host/live", "an address begins with its kind"),
        ("192.0.2.1/video?user=a&password=s3cret", "an address begins with its kind"),
        (" user:s3cret@192.0.2.1:554 ", "an address begins with its kind"),
    ],
)
def test_a_mistyped_address_is_named_and_not_repeated(address: str, words: str) -> None:
    with pytest.raises(SourceError) as refused:
        open_source(address)
    assert words in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__suppress_context__  # nor in what led to it


def test_no_camera_at_all_says_what_was_tried() -> None:
    if any(Path("/dev").glob("video*")):
        pytest.skip("this machine has a camera")
    with pytest.raises(SourceError) as refused:
        first_camera()
    assert "no camera at all from 0 to 9" in str(refused.value)
    assert "--source" in str(refused.value)
    assert "there is no /dev/video0" in refusal("0")
    assert "there is no /dev/video7" in refusal("/dev/video7")


def test_nothing_heavy_is_imported_for_it() -> None:
    heavy = {"cv2", "tensorflow", "picamera2", "keras"}
    code = f"import edgenet.camera.sources.opening, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="picamera2 is for Linux")
@pytest.mark.parametrize(
    ("age_s", "believed"), [(0.5, True), (-1, False), (3600, False)], ids=["sensible", "of the future", "of long ago"]
)
def test_picamera2s_time_is_right_after_the_machine_has_slept_and_ours_where_it_makes_no_sense(
    picamera2: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, age_s: float, believed: bool
) -> None:
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: time.monotonic_ns() + 100 * 10**9)
    picamera2(_PICAMERA2.replace("- 40_000_000", f"- {int(age_s * 1e9)}") + "CAMERAS = 1")
    began = time.monotonic_ns()
    source = open_source("picamera2", (320, 240))
    first = next(source.frames(threading.Event()))
    ended = time.monotonic_ns()
    source.close()
    assert isinstance(first, Frame)
    age_ns = int(age_s * 1e9) if believed else 0
    assert began <= first.captured_ns + age_ns <= ended


def test_a_password_with_a_slash_in_it_is_not_shown_either() -> None:
    assert Address.parse("rtsp://user:12/34@host/live?key=5").shown == "rtsp://...?..."
    assert Address.parse("rtsp://user:12%2F34@host/live").shown == "rtsp://host/live"
    assert Address.parse("http://host/@cam").shown == "http://host/@cam"
