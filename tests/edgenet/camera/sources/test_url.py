from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from edgenet.camera.frame import Frame
from edgenet.camera.opencv import decode_jpeg
from edgenet.camera.sources import ffmpeg
from edgenet.camera.sources.address import Address
from edgenet.camera.sources.ffmpeg import FfmpegCamera
from edgenet.camera.sources.live import LiveSource
from tests.edgenet.camera.mjpeg_camera import PASSWORD, USER, MjpegCamera, age_ms, read_stamp
from tests.edgenet.camera.sources.test_file import clip, picture
from tests.edgenet.camera.watching import NOTICED_S, SMALL, Watch, refusal, watching

_MULTIPART = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n"


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    with MjpegCamera(fps=30, size=SMALL) as camera:
        yield camera


# MJPEG


def test_the_newest_picture_comes_with_the_time_it_arrived(camera: MjpegCamera) -> None:
    with watching(camera.url) as watch:
        assert watch.source.live
        frames = [watch.frame()[0] for _ in range(40)]
        assert [frame.id for frame in frames] == list(range(40))
        stamps = [read_stamp(frame.image) for frame in frames]
        assert stamps == sorted(set(stamps))
        assert all(0 <= age_ms(frame.image, frame.captured_ns) < 500 for frame in frames)
        assert all(frame.jpeg and np.array_equal(decode_jpeg(frame.jpeg), frame.image) for frame in frames)
        assert watch.source.name == f"{camera.url}, 640x368"
        dropped = watch.source.dropped
        time.sleep(0.5)  # nobody takes what comes
        assert 8 <= watch.source.dropped - dropped <= 20
        assert read_stamp(watch.frame()[0].image) - stamps[-1] > 400  # what came meanwhile is gone
        assert watch.ended_after() < 1


def test_a_camera_that_stalls_is_noticed_and_comes_back(camera: MjpegCamera) -> None:
    with watching(camera.url) as watch:
        last = watch.frame()[0]
        camera.stall()
        text, seconds = watch.trouble()
        assert seconds < NOTICED_S
        assert text == f"{camera.url}: no whole picture for 2 s: trying again in 0.5 s"
        assert "trying again in 1 s" in watch.trouble("again in 1 s")[0]
        camera.resume()
        frame, _ = watch.frame()
        assert frame.id > last.id
        assert age_ms(frame.image) < 1000  # nothing from before
        camera.stall()
        assert "again in 0.5 s" in watch.trouble()[0]  # from the beginning again
        assert watch.ended_after() < 1


def test_a_camera_that_dies_is_noticed_at_once_and_opened_again(camera: MjpegCamera) -> None:
    with watching(camera.url) as watch:
        ids = [watch.frame()[0].id for _ in range(5)]
        camera.kill()
        text, seconds = watch.trouble()
        assert "the connection ended" in text
        assert seconds < 1
        assert "nobody listens there" in watch.trouble("again in 1 s")[0]
        camera.start()
        frame, _ = watch.frame()
        assert frame.id > ids[-1]
        assert age_ms(frame.image) < 1000


def test_a_new_resolution_is_taken_as_it_comes(camera: MjpegCamera) -> None:
    with watching(camera.url) as watch:
        watch.frame()
        for width, height in ((320, 240), (1280, 720)):
            camera.resize(width, height)
            frame, _ = watch.frame(lambda frame, shape=(height, width, 3): frame.image.shape == shape)  # type: ignore[misc]
            read_stamp(frame.image)
            assert watch.source.name.endswith(f", {width}x{height}")


@pytest.mark.parametrize("path", ["nolength.mjpg", "dashes.mjpg", "garbage.mjpg", "moved", "tür.mjpg"])
def test_odd_streams(camera: MjpegCamera, path: str) -> None:
    with watching(camera.at(path)) as watch:
        frames = [watch.frame()[0] for _ in range(10)]
        assert [frame.id for frame in frames] == list(range(10))
        stamps = [read_stamp(frame.image) for frame in frames]  # of "garbage", none that broke off
        assert stamps == sorted(set(stamps))


def test_pictures_that_are_never_whole_are_no_pictures(camera: MjpegCamera) -> None:
    with watching(camera.at("rubbish.mjpg")) as watch:
        text, seconds = watch.trouble()
        assert "cannot be decoded" in text
        assert seconds < NOTICED_S
        assert "trying again in 0.5 s" in watch.trouble("trying again")[0]


@pytest.mark.parametrize("path", ["basic.mjpg", "digest.mjpg"])
def test_a_login_is_used_and_never_shown(camera: MjpegCamera, path: str) -> None:
    login = f"{USER}:{quote(PASSWORD, safe='')}"
    with watching(camera.at(path, login) + "?token=s3cret") as watch:
        watch.frame()
        assert watch.source.name == f"{camera.at(path)}?..., 640x368"
        camera.kill()
        assert watch.trouble()[0].startswith(f"{camera.at(path)}?...: the connection ended")
    camera.start()
    wanted = refusal(camera.at(path))
    assert "wants a user name and a password" in wanted
    assert camera.at("...", "USER:PASSWORD") in wanted  # with its port
    assert "refuses this user name and password" in refusal(camera.at(path, f"{USER}:wrong"))
    address = Address.parse(camera.at(path, login))
    assert quote(PASSWORD, safe="") not in repr(address)
    assert PASSWORD not in repr(address)


def test_what_is_no_stream_is_refused_with_a_reason(camera: MjpegCamera) -> None:
    assert "no such path" in refusal(camera.at("nothing"))
    assert "this is a web page" in refusal(camera.at("page"))
    assert "this is one picture" in refusal(camera.at("picture.jpg"))
    assert "this is a clip" in refusal(camera.at("clip.mp4"))
    assert "no answer in 2 s" in refusal(camera.at("silent"))
    assert "does not speak TLS" in refusal(camera.url.replace("http", "https"))
    assert "no such host" in refusal("http://no-such-host.invalid/stream")
    camera.kill()
    assert "nobody listens there" in refusal(camera.url)
    assert "nobody listens there" in refusal(camera.url.replace("http", "rtsp"))
    assert "nobody listens there" in refusal(camera.url.replace("http", "tcp"))
    assert "or this OpenCV was built without SRT" in refusal("srt://127.0.0.1:9")


def test_a_stream_that_trickles_has_stalled() -> None:
    """A byte now and then keeps every timeout of a socket quiet."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while True:
                    viewer, _ = listener.accept()
                    with viewer, contextlib.suppress(OSError):
                        viewer.recv(4096)
                        viewer.sendall(_MULTIPART + b"--x\r\nContent-Length: 1000\r\n\r\n")
                        for byte in bytes(1000):
                            viewer.sendall(bytes([byte]))
                            time.sleep(0.1)

        threading.Thread(target=trickle, daemon=True).start()
        with watching(f"http://127.0.0.1:{listener.getsockname()[1]}/") as watch:
            text, seconds = watch.trouble()
            assert "no whole picture for 2 s" in text
            assert seconds < NOTICED_S


@contextlib.contextmanager
def slow_camera(*, first_s: float = 0, between_s: float = 0, sending_s: float = 0) -> Iterator[tuple[str, list[float]]]:
    """Yield the address of a camera that takes its time, and when each of its viewers came.

    first_s: from the headers to the first picture. between_s: from picture to picture. sending_s: for each one's bytes.
    """
    came: list[float] = []
    jpeg = cv2.imencode(".jpg", picture(7))[1].tobytes()

    def serve(viewer: socket.socket) -> None:
        with viewer, contextlib.suppress(OSError):
            viewer.recv(4096)
            viewer.sendall(_MULTIPART)
            time.sleep(first_s)
            while True:
                viewer.sendall(f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode())
                for part in np.array_split(np.frombuffer(jpeg, np.uint8), 30):
                    viewer.sendall(part.tobytes())
                    time.sleep(sending_s / 30)
                viewer.sendall(b"\r\n")
                time.sleep(between_s)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                viewer, _ = listener.accept()
                came.append(time.monotonic())
                threading.Thread(target=serve, args=(viewer,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", came


def test_a_slow_link_is_said_and_not_hung_up_on() -> None:
    """Three seconds for each picture, whose bytes keep coming."""
    with slow_camera(sending_s=3) as (url, came), watching(url) as watch:
        text, seconds = watch.trouble()
        assert text == f"{url}: no whole picture for 2 s"
        assert seconds < NOTICED_S
        assert [watch.frame()[0].id for _ in range(3)] == [0, 1, 2]
        assert len(came) == 1


@pytest.mark.parametrize("first_s", [0.0, 3.0])
def test_a_camera_with_a_picture_every_three_seconds_is_learned(first_s: float) -> None:
    with slow_camera(first_s=first_s, between_s=3) as (url, came), watching(url) as watch:
        if not first_s:
            watch.frame()
        text, seconds = watch.trouble()
        assert text == f"{url}: no whole picture for 2 s: trying again in 0.5 s"
        assert seconds < NOTICED_S
        watch.frame()
        for _ in range(3):
            assert isinstance(next(watch._items), Frame)  # and nothing is said any more
        assert len(came) == 2


@pytest.mark.slow
def test_a_camera_that_takes_ten_seconds_to_its_first_picture_is_shown() -> None:
    with slow_camera(first_s=10, between_s=0.1) as (url, came), watching(url) as watch:
        assert watch.trouble()[1] < NOTICED_S
        assert watch.frame()[1] < 30
        assert 12 < came[-1] - came[0] < 20
        assert [isinstance(next(watch._items), Frame) for _ in range(20)] == [True] * 20
        assert watch.source._camera.waits_s == 2  # a stall is noticed as soon as ever


@pytest.mark.parametrize(
    "answer",
    [
        b"hello",
        b"HTTP/1.0 200 OK\r\n\r\n" + bytes(range(256)) * 100,
        b"HTTP/1.0 200 OK\r\n\r\n--" + b"y" * 20_000,
        _MULTIPART + b"y" * 20_000,
        _MULTIPART + b"--x\r\nContent-Length: 99999999999\r\n\r\n",
        _MULTIPART + b"--x\r\n" + b"a: b\r\n" * 200,
        b"HTTP/1.0 401 No\r\nWWW-Authenticate: Negotiate\r\n\r\n",
        b"HTTP/1.0 503 Busy\r\n\r\n",
        b"",
    ],
)
def test_answers_of_what_is_no_camera(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    viewer, _ = listener.accept()
                    with viewer:
                        viewer.recv(4096)
                        viewer.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        if b"multipart" in answer:  # promising at first
            with watching(url) as watch:
                assert "no MJPEG" in watch.trouble()[0]
        else:
            assert url in refusal(url)
            assert url in refusal(url.replace("//", f"//{USER}:{quote(PASSWORD, safe='')}@"))


def _wait_for_a_listener(port: int) -> None:
    """Wait until somebody listens at this port, and do not knock: whose only viewer that is would serve no other."""
    listens = f":{port:04X} 00000000:0000 0A "  # state LISTEN
    until = time.monotonic() + 30
    while listens not in Path("/proc/net/tcp").read_text():
        assert time.monotonic() < until, f"nobody listens at {port}"
        time.sleep(0.01)


def test_ffmpeg_as_a_camera(tmp_path: Path) -> None:
    """Servers of others: MJPEG without a content type that says so, and MPEG-TS over TCP."""
    film = str(clip(tmp_path / "clip.avi", 500))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    http, tcp = f"http://127.0.0.1:{port}/", f"tcp://127.0.0.1:{port}"
    for url, output in (
        (http, ["-f", "mpjpeg", "-listen", "1", http]),
        (tcp, ["-c:v", "libx264", "-tune", "zerolatency", "-g", "10", "-f", "mpegts", f"{tcp}?listen"]),
    ):
        try:
            server = subprocess.Popen(["ffmpeg", "-loglevel", "error", "-re", "-i", film, *output])
        except FileNotFoundError:
            pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
        try:
            _wait_for_a_listener(port)
            with watching(url) as watch:
                assert [watch.frame()[0].id for _ in range(10)] == list(range(10))
        finally:
            server.kill()
            server.wait()


# FFMPEG


def test_no_setting_of_ffmpeg_stays_behind(camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "fflags;nobuffer")
    for before in (dict(os.environ), {}):
        source = LiveSource(FfmpegCamera(Address.parse(camera.url)))
        watch = Watch(source)
        watch.frame()
        watch.close()
        assert os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS") == before.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")
        assert "OPENCV_FFMPEG_LOGLEVEL" not in os.environ
        monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)


_LEFT_OPEN = """
import sys, threading
from edgenet.camera.sources.address import Address
from edgenet.camera.sources.ffmpeg import FfmpegCamera
from edgenet.camera.frame import Frame
from edgenet.camera.sources.live import LiveSource
source = LiveSource(FfmpegCamera(Address.parse(sys.argv[1])))
next(source.frames(threading.Event()))
print("seen", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("stalled", [False, True])
def test_a_process_that_ends_with_a_camera_open_ends_well(stalled: bool) -> None:
    """A thread that is in OpenCV when the interpreter ends aborts the process: exit code 134, a core dump."""
    for _ in range(1 if stalled else 4):
        command = [sys.executable, "-c", _LEFT_OPEN]
        with (
            MjpegCamera(fps=300, size=(320, 240)) as camera,
            subprocess.Popen([*command, camera.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child,
        ):
            assert child.stdin
            assert child.stdout
            assert child.stdout.readline() == "seen\n"
            if stalled:
                camera.stall()
                time.sleep(0.3)
            start = time.monotonic()
            child.stdin.close()
            assert child.wait(20) == 0
            assert time.monotonic() - start < 2


class Capture:
    """Stands where OpenCV's would: its pictures are numbered, each grab takes what it is told, and decoding 0.1 s."""

    def __init__(self, *grabs_s: float) -> None:
        self.grabs_s = grabs_s
        self.grabbed_ns: list[int] = []

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def grab(self) -> bool:
        time.sleep(self.grabs_s[len(self.grabbed_ns)])
        self.grabbed_ns.append(time.monotonic_ns())
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        time.sleep(0.1)
        return True, np.full((4, 4, 3), len(self.grabbed_ns) - 1, np.uint8)

    def release(self) -> None: ...


def test_what_a_decoder_held_in_a_pause_is_left_out_and_a_pictures_time_is_before_it_was_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capture = Capture(0.4, 0, 0.4, 0, 0)  # the first may take long: nothing was held before it
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    monkeypatch.setattr(ffmpeg, "TIMEOUT_S", 0.3)
    camera = FfmpegCamera(Address.parse("tcp://127.0.0.1:9"))
    camera.open()
    shots = [camera.read() for _ in range(4)]
    camera.close()
    numbers = [int(shot.image[0, 0, 0]) for shot in shots if shot.image is not None]
    assert numbers == [0, 1, 3, 4]
    waited_ns = [shot.captured_ns - capture.grabbed_ns[number] for number, shot in zip(numbers, shots, strict=True)]
    assert min(waited_ns) >= 0
    assert np.median(waited_ns) < 0.1e9


def test_proxies_are_not_asked_for_cameras(camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with watching(camera.url) as watch:
        assert watch.frame()[0].id == 0
