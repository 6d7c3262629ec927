"""The page's server: one acknowledgement a frame, one encoding a frame, and viewers of every kind."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from edgenet import artifact
from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Controls
from edgenet.camera.opencv import decode_jpeg
from edgenet.camera.sources.browser import BrowserSource
from edgenet.camera.web import broadcast, server
from edgenet.camera.web.broadcast import encode
from edgenet.camera.web.server import WebView
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Pixels

from .browser import drain, eventually, get, jpeg, plain, unpack, update

ACK = '{"do": "ack"}'


@pytest.fixture
def view() -> Iterator[WebView]:
    running = WebView(Controls())
    running.start()
    yield running
    running.close()


@pytest.fixture
def join() -> Iterator[Callable[[WebView], ClientConnection]]:
    """Open sockets that are closed in the end."""
    with ExitStack() as stack:

        def opened(view: WebView) -> ClientConnection:
            return stack.enter_context(connect(f"ws://127.0.0.1:{view.port}/ws", compression=None))

        yield opened


Join = Callable[[WebView], ClientConnection]


def stats(view: WebView) -> Any:
    return json.loads(get(f"{view.url}stats.json")[2])


def receive(viewer: ClientConnection, timeout_s: float = 5) -> tuple[dict[str, Any], bytes]:
    message = viewer.recv(timeout_s)
    assert isinstance(message, bytes)
    return unpack(message)


def colour(picture: bytes) -> list[int]:
    with Image.open(io.BytesIO(picture)) as image:
        return [int(level) for level in np.asarray(image)[image.height // 2, image.width // 2]]


def test_a_viewer_gets_the_newest_frame_only_after_it_acknowledged_the_last(view: WebView, join: Join) -> None:
    viewer = join(view)
    view.show(update(0, plain(255, 0, 0)))
    state, picture = receive(viewer)
    assert (state["frame"], state["age_ms"]) == (0, [])
    assert np.abs(np.subtract(colour(picture), (0, 0, 255))).max() < 8
    for number in range(1, 6):
        view.show(update(number, plain(0, 0, 255)))
    with pytest.raises(TimeoutError):
        viewer.recv(0.3)
    viewer.send(ACK)
    state, picture = receive(viewer)
    assert state["frame"] == 5
    assert np.abs(np.subtract(colour(picture), (255, 0, 0))).max() < 8
    assert state["age_ms"][0] >= 300  # of the frame before, which it took so long to acknowledge


def test_the_state_says_everything_that_the_page_shows(view: WebView, join: Join) -> None:
    view.show(update(3, plain(0, 0, 0), label="tench"))
    state, _ = receive(join(view))
    assert state["top"][0] == {"index": 0, "label": "tench", "raw": 0.75, "smoothed": 0.75}
    assert state["raw"]["label"] == "tench"
    assert (state["paused"], state["mirror"], state["rotate"]) == (False, False, 0)
    wanted = {"camera_fps": 30.0, "inference_fps": 29.5, "dropped": 7, "temperature_c": 41.5, "precision": "int8"}
    assert wanted.items() <= state["stats"].items()
    assert stats(view).items() >= {"viewers": 1, "frame": 3, "stats": state["stats"]}.items()


def test_a_picture_that_was_sent_is_not_sent_again(view: WebView, join: Join) -> None:
    viewer = join(view)
    shown = update(0, plain(0, 0, 0))
    view.show(shown)
    assert receive(viewer)[1]
    viewer.send(ACK)
    view.show(shown)  # new figures about the same frame
    assert receive(viewer)[1] == b""
    viewer.send(ACK)
    view.show(update(1, trouble="camera 0 is gone"))
    state, picture = receive(viewer)
    assert (state["stats"]["trouble"], picture) == ("camera 0 is gone", b"")


def test_pictures_are_encoded_once_and_only_while_somebody_watches(view: WebView, join: Join) -> None:
    for number in range(10):
        view.show(update(number, plain(0, 0, 0)))
    assert stats(view)["encoded"] == 0
    viewers = [join(view) for _ in range(5)]
    assert {receive(viewer)[0]["frame"] for viewer in viewers} == {9}
    assert stats(view)["encoded"] == 1
    for viewer in viewers:
        viewer.close()
    eventually(lambda: stats(view)["viewers"] == 0)
    view.show(update(10, plain(0, 0, 0)))
    time.sleep(0.2)
    assert stats(view)["encoded"] == 1


def test_a_cameras_own_jpeg_goes_on_as_it_is(view: WebView, join: Join) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None], (480, 640, 3))
    rough = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    turned, upside = io.BytesIO(), Image.Exif()
    upside[0x0112] = 3  # orientation
    Image.fromarray(smooth).save(turned, "JPEG", exif=upside)
    viewer = join(view)
    view.show(update(0, smooth, own=jpeg(smooth)))
    assert receive(viewer)[1] == jpeg(smooth)
    assert stats(view)["encoded"] == 0
    for number, (picture, own) in enumerate(
        [
            (smooth, turned.getvalue()),  # browsers would turn it
            (rough, jpeg(rough, 100)),  # too much for a network
            (smooth, jpeg(smooth[:240])),  # of another size
            (smooth, jpeg(smooth)[:-2000][:300]),  # no JPEG
            (plain(0, 0, 0, (960, 1920)), jpeg(plain(0, 0, 0, (960, 1920)))),  # wider than what is shown
        ],
        start=1,
    ):
        viewer.send(ACK)
        view.show(update(number, picture, own=own))
        sent = receive(viewer)[1]
        assert sent not in (own, b"")
        assert stats(view)["encoded"] == number


def test_without_news_the_last_ones_are_said_again_so_that_silence_means_something(view: WebView, join: Join) -> None:
    viewer = join(view)
    view.show(update(0, plain(0, 0, 0), trouble="camera 0 is gone"))
    assert receive(viewer)[1] != b""
    for _ in range(2):
        viewer.send('{"do": "ack"}')
        state, picture = receive(viewer, 2)
        assert (state["frame"], state["stats"]["trouble"], picture) == (0, "camera 0 is gone", b"")


def test_a_frame_that_is_seen_anew_in_a_pause_is_no_age(view: WebView, join: Join) -> None:
    viewer = join(view)
    view.show(replace(update(0, plain(0, 0, 0)), paused=True))
    assert receive(viewer)[0]["age_ms"] == []
    time.sleep(0.3)  # after which it is said anew
    viewer.send('{"do": "ack"}')
    assert receive(viewer)[0]["age_ms"] == []


def test_a_viewer_that_wants_no_pictures_costs_none(view: WebView, join: Join) -> None:
    viewer = join(view)
    viewer.send('{"do": "pictures", "wanted": false}')
    time.sleep(0.2)
    view.show(update(0, plain(0, 0, 0)))
    state, picture = receive(viewer)
    assert (state["frame"], picture, stats(view)["encoded"]) == (0, b"", 0)


def test_a_viewer_that_never_acknowledges_costs_nothing(view: WebView, join: Join) -> None:
    viewer = join(view)
    view.show(update(0, plain(0, 0, 0)))
    receive(viewer)
    for number in range(1, 50):
        view.show(update(number, plain(0, 0, 0)))
        time.sleep(0.005)
    assert stats(view)["encoded"] == 1
    with pytest.raises(TimeoutError):
        viewer.recv(0.1)


def test_fifty_viewers_watch_and_a_slow_one_slows_nobody(view: WebView, join: Join) -> None:
    viewers = [join(view) for _ in range(50)]
    seen: list[list[int]] = [[] for _ in viewers]

    def watch(index: int) -> None:
        viewer, wait = viewers[index], 0.4 if index == 0 else 0.0
        try:
            while seen[index][-1:] != [59]:
                seen[index].append(receive(viewer)[0]["frame"])
                time.sleep(wait)
                viewer.send(ACK)
        except (TimeoutError, ConnectionClosed):
            return

    threads = [threading.Thread(target=watch, args=(index,)) for index in range(50)]
    for thread in threads:
        thread.start()
    for number in range(60):
        view.show(update(number, plain(number, 0, 0)))
        time.sleep(0.05)
    for thread in threads:
        thread.join(15)
    assert all(frames[-1] == 59 for frames in seen)
    assert all(frames == sorted(set(frames)) for frames in seen)
    assert len(seen[0]) < 15
    assert min(len(frames) for frames in seen[1:]) > 2 * len(seen[0])
    assert stats(view)["encoded"] <= 60


def test_there_are_at_most_64_viewers(view: WebView, join: Join) -> None:
    viewers = [join(view) for _ in range(64)]
    eventually(lambda: stats(view)["viewers"] == 64)
    with pytest.raises(ConnectionClosed) as refused:
        join(view).recv(5)
    assert refused.value.rcvd is not None
    assert refused.value.rcvd.code == 1013
    assert get(f"{view.url}stream.mjpg")[0] == 503
    viewers[0].close()
    eventually(lambda: stats(view)["viewers"] == 63)
    view.show(update(0, plain(0, 0, 0)))
    assert receive(join(view))[0]["frame"] == 0


def test_a_viewer_whose_socket_is_silent_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PING_S", 0.2)
    monkeypatch.setattr(server, "_SILENCE_S", 0.4)
    view = WebView(Controls())
    view.start()
    try:
        with raw(view) as silent, connect(f"ws://127.0.0.1:{view.port}/ws") as alive:
            eventually(lambda: stats(view)["viewers"] == 2)
            eventually(lambda: stats(view)["viewers"] == 1)
            view.show(update(0, plain(0, 0, 0)))
            assert receive(alive)[0]["frame"] == 0  # it never acknowledged, and its socket answers pings
            silent.settimeout(5)
            while silent.recv(4096):  # until the end
                pass
    finally:
        view.close()


def raw(view: WebView) -> socket.socket:
    """Open the socket by hand, and never answer anything."""
    plug = socket.create_connection(("127.0.0.1", view.port))
    head = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    plug.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
    assert plug.recv(12) == b"HTTP/1.1 101"
    return plug


def test_the_mjpeg_stream_gives_each_new_frame_once_at_most_1280_wide(view: WebView) -> None:
    with socket.create_connection(("127.0.0.1", view.port)) as plug:
        plug.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\n\r\n".encode())
        eventually(lambda: stats(view)["viewers"] == 1)
        shown = update(0, plain(0, 255, 0, (1080, 1920)))
        view.show(shown)
        view.show(shown)
        data = b""
        plug.settimeout(5)
        while data.count(b"--edgenet-frame") < 1 or b"\xff\xd9" not in data:
            data += plug.recv(65536)
        assert b"content-type: multipart/x-mixed-replace; boundary=edgenet-frame" in data.lower()
        picture = data[data.index(b"\xff\xd8") : data.index(b"\xff\xd9") + 2]
        with Image.open(io.BytesIO(picture)) as image:
            assert (image.format, image.size) == ("JPEG", (1280, 720))
        assert drain(plug, 0.3).strip() == b""
    eventually(lambda: stats(view)["viewers"] == 0)
    assert stats(view)["encoded"] == 1


def test_opencv_reads_the_stream(view: WebView) -> None:
    import cv2

    stop = threading.Event()

    def feed() -> None:
        number = 0
        while not stop.wait(0.03):
            view.show(update(number := number + 1, plain(0, 0, 250)))

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        capture = cv2.VideoCapture(f"{view.url}stream.mjpg", cv2.CAP_FFMPEG)
        read, image = capture.read()
        capture.release()
    finally:
        stop.set()
        feeding.join()
    assert read
    assert np.abs(image[10, 10].astype(int) - (0, 0, 250)).max() < 10


def next_part(stream: Any) -> bytes:
    """Read the next picture of a stream."""
    length = 0
    while (line := stream.readline().strip()) or not length:
        name, _, value = line.partition(b": ")
        length = int(value) if name == b"Content-Length" else length
    return bytes(stream.read(length))


def test_the_stream_is_mirrored_here_and_the_page_by_itself(view: WebView, join: Join) -> None:
    image = plain(0, 0, 0, (480, 640))
    image[:, 320:] = 255
    own = jpeg(image)
    shown = update(0, image, own=own)
    viewer = join(view)
    view.show(replace(shown, mirror=True))
    assert receive(viewer)[1] == own
    assert stats(view)["encoded"] == 0  # nobody watches the stream
    left = lambda picture: int(decode_jpeg(picture)[240, 160, 0])  # noqa: E731
    with (
        urllib.request.urlopen(f"{view.url}stream.mjpg") as one,
        urllib.request.urlopen(f"{view.url}stream.mjpg") as two,
    ):
        for stream in (one, two):
            assert left(next_part(stream)) > 200
        assert stats(view)["encoded"] == 1  # once for both
        view.show(replace(shown, mirror=False))  # in a pause, too: it is the same picture
        for stream in (one, two):
            assert next_part(stream) == own
        view.show(replace(shown, mirror=True))
        assert left(next_part(one)) > 200
        assert stats(view)["encoded"] == 1
    viewer.send(ACK)
    assert receive(viewer)[1] == b""  # no more pictures for the page


def test_asking_for_the_streams_head_takes_no_viewers_place(view: WebView) -> None:
    view.show(update(0, plain(0, 0, 0)))
    with socket.create_connection(("127.0.0.1", view.port)) as plug:
        plug.sendall(b"HEAD /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = drain(plug, 0.5)
        assert head.startswith(b"HTTP/1.1 200")
        assert b"multipart/x-mixed-replace" in head
        assert head.endswith(b"\r\n\r\n")
        assert stats(view)["viewers"] == 0


def test_health_tells_whether_there_are_pictures(view: WebView) -> None:
    assert get(f"{view.url}healthz")[0] == 200
    view.show(update(0, trouble="camera 0 is gone: trying again in 2 s"))
    status, _, body = get(f"{view.url}healthz")
    assert (status, json.loads(body)["trouble"]) == (503, "camera 0 is gone: trying again in 2 s")
    view.show(update(1, plain(0, 0, 0)))
    assert get(f"{view.url}healthz")[0] == 200


def test_buttons_reach_the_controls(view: WebView, join: Join) -> None:
    controls = Controls()
    other = WebView(controls)
    other.start()
    try:
        viewer = join(other)
        for button in ("pause", "mirror", "rotate", "rotate", "save", "precision"):
            viewer.send(json.dumps({"do": button}))
        eventually(controls.toggle_precision.is_set)
        assert (controls.paused, controls.mirror, controls.rotate) == (True, True, 180)
        assert controls.save.is_set()
        assert not controls.quit.is_set()
        for button in ("pause", "rotate", "rotate"):
            viewer.send(json.dumps({"do": button}))
        eventually(lambda: (controls.paused, controls.rotate) == (False, 0))
    finally:
        other.close()


def test_pictures_of_a_viewers_camera_go_to_the_inbox_one_viewer_at_a_time(join: Join) -> None:
    inbox = BrowserSource().inbox
    view = WebView(Controls(), inbox=inbox)
    view.start()
    try:
        first, second = join(view), join(view)
        red = jpeg(np.full((48, 64, 3), (250, 0, 0), np.uint8))

        def answer(viewer: ClientConnection, picture: bytes = red) -> Any:
            viewer.send(picture)
            return json.loads(viewer.recv(5))

        assert answer(second, b"no picture") == {"taken": None}  # which claims nothing
        assert answer(first) == {"taken": 0}
        assert answer(first, b"no picture") == {"taken": None}
        second.send('{"do": "pictures", "wanted": true}')  # nobody stops the camera of another
        assert answer(second)["busy"].startswith("another page sends its camera: stop it there")
        first.send('{"do": "pictures", "wanted": true}')  # it has stopped its camera
        eventually(lambda: answer(second).get("taken"))
        assert "another page" in answer(first)["busy"]
        time.sleep(2.2)  # it sends nothing more, and its socket stays open
        assert "taken" in answer(first)
        first.close()
        eventually(lambda: "taken" in answer(second))
        assert inbox.refused == 2
        assert inbox.dropped == 3  # of five, nobody took any
    finally:
        view.close()


def test_pictures_that_nobody_asked_for_are_turned_away(view: WebView, join: Join) -> None:
    viewer = join(view)
    viewer.send(b"\xff\xd8")
    assert "--source browser" in json.loads(viewer.recv(5))["busy"]


def test_a_model_for_the_page_is_served_with_what_the_page_must_know(view: WebView) -> None:
    assert get(f"{view.url}model.tflite")[0] == 404
    assert json.loads(get(f"{view.url}config.json")[2]) == {"camera": False, "cut": False, "model": None}
    file = default_model()
    view.in_page.use(file)
    view.in_page.smooth_s = 0.25
    status, headers, body = get(f"{view.url}model.tflite")
    assert (status, body, headers["cache-control"]) == (200, file.read_bytes(), "no-store")
    model = json.loads(get(f"{view.url}config.json")[2])["model"]
    assert (model["precision"], model["crop"], model["smooth_s"]) == ("int8", "center", 0.25)
    assert "circle" in model["labels"]
    view.in_page.labels = ("mine",)
    assert json.loads(get(f"{view.url}config.json")[2])["model"]["labels"] == ["mine"]
    with pytest.raises(UsageError, match=r"\.tflite alone"):
        view.in_page.use(file.with_suffix(".onnx"))
    known = artifact.load(file)
    assert known is not None
    floats = replace(known.manifest, input=replace(known.manifest.input, dtype="float32"))
    with pytest.raises(UsageError, match=r"takes float32, and the page gives uint8"):
        view.in_page.use(file, replace(known, manifest=floats))


def test_a_model_that_has_changed_is_not_served_with_what_was_known_of_the_other(view: WebView, tmp_path: Path) -> None:
    file = tmp_path / "mine.tflite"
    file.write_bytes(default_model().read_bytes())
    view.in_page.use(file)
    assert get(f"{view.url}model.tflite")[0] == 200
    file.write_bytes(default_model().with_name("symbols_float32.tflite").read_bytes())
    status, _, body = get(f"{view.url}model.tflite")
    assert (status, body) == (409, b"mine.tflite has changed: start edgenet camera again\n")


def test_a_file_that_a_browser_has_is_not_sent_again(view: WebView) -> None:
    for path in ("", "page/page.js", "page/litert/litert_wasm_internal.wasm"):
        url = f"http://127.0.0.1:{view.port}/{path}"
        status, headers, body = get(url)
        assert (status, headers["cache-control"]) == (200, "no-cache")  # it asks: an upgrade is seen at once
        again, told, nothing = get(url, {"If-None-Match": headers["etag"]})
        assert (again, told["etag"], nothing) == (304, headers["etag"], b"")
        assert get(url, {"If-None-Match": '"of another version"'})[::2] == (200, body)


def test_a_port_that_is_taken_is_one_clear_line(view: WebView) -> None:
    with pytest.raises(EdgenetError, match=rf"127\.0\.0\.1:{view.port} .*in use.*--port") as refused:
        WebView(Controls(), port=view.port).start()
    assert "\n" not in str(refused.value)
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(EdgenetError, match="--host") as refused:  # no port would help
            WebView(Controls(), host=host).start()
        assert "\n" not in str(refused.value)
        assert "--port" not in str(refused.value)
    with pytest.raises(UsageError, match="65535"):
        WebView(Controls(), port=70000)


def test_it_closes_in_less_than_a_second_whoever_hangs_on_it(join: Join) -> None:
    view = WebView(Controls())
    view.close()  # before it was started
    view.start()
    viewer, deaf = join(view), raw(view)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream = socket.create_connection(("127.0.0.1", view.port))
    stream.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\n\r\n".encode())
    idle = socket.create_connection(("127.0.0.1", view.port))
    eventually(lambda: stats(view)["viewers"] == 3)
    noise = np.random.default_rng(0).integers(0, 256, (1080, 1280, 3), dtype=np.uint8)
    for number in range(20):  # megabytes that two of them never read
        view.show(update(number, noise.copy()))
        time.sleep(0.02)
    began = time.monotonic()
    view.close()
    took = time.monotonic() - began
    assert took < 1
    view.close()
    view.show(update(99, noise))  # nobody is there, and nothing happens
    receive(viewer)  # the one frame that it did not acknowledge
    with pytest.raises(ConnectionClosed) as told:
        viewer.recv(5)
    assert told.value.rcvd is not None  # a goodbye
    assert told.value.rcvd.code == 1012
    for plug in (deaf, stream, idle):
        plug.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", view.port))


def test_who_watched_to_the_end_is_told_that_it_was_the_end_even_who_looks_away(join: Join) -> None:
    view = WebView(Controls())
    view.start()
    attentive, away = join(view), join(view)
    view.show(update(0, plain(0, 0, 0)))
    for viewer in (attentive, away):
        receive(viewer)
    attentive.send(ACK)
    view.end()
    view.close()
    for viewer in (attentive, away):
        with pytest.raises(ConnectionClosed) as told:
            viewer.recv(5)
        assert told.value.rcvd is not None
        assert (told.value.rcvd.code, told.value.rcvd.reason) == (1000, "all was shown")


def test_who_watches_from_afar_sees_the_last_of_a_clip_before_the_goodbye(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast.Broadcast, "farewell_s", 5.0)  # on a busy machine, too
    view = WebView(Controls())
    view.start()
    afar = join(view)
    view.show(update(0, plain(0, 0, 0)))
    receive(afar)
    for number in range(1, 30):
        view.show(update(number, plain(0, 0, 8 * number)))
    view.end()
    ending = threading.Thread(target=view.close)
    ending.start()
    time.sleep(0.15)  # the way of the acknowledgement
    afar.send(ACK)
    state, picture = receive(afar)
    assert state["frame"] == 29
    assert colour(picture)[0] == pytest.approx(8 * 29, abs=6)
    time.sleep(0.1)
    afar.send(ACK)
    with pytest.raises(ConnectionClosed) as told:
        afar.recv(5)
    assert told.value.rcvd is not None
    assert told.value.rcvd.code == 1000
    ending.join()


def test_a_slow_mjpeg_viewer_sees_what_is_nearly_new_and_slows_nobody(view: WebView, join: Join) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.connect(("127.0.0.1", view.port))
        slow.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\n\r\n".encode())
        viewer = join(view)
        eventually(lambda: stats(view)["viewers"] == 2)
        noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        for number in range(100):
            view.show(update(number, noise.copy()))
            state, picture = receive(viewer)
            assert state["frame"] == number
            viewer.send(ACK)
        waiting = len(drain(slow, 1))
        assert len(picture) * 100 > 4 << 20
        assert waiting < 1 << 20  # the buffers on the way hold no more: the rest was skipped


@pytest.mark.parametrize(
    ("size", "encoded"), [((1, 1), (1, 1)), ((4320, 7680), (1280, 720)), ((9000, 3), (1, 4096)), ((2, 5000), (1280, 1))]
)
def test_pictures_of_any_size_are_encoded(size: tuple[int, int], encoded: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(encode(plain(0, 0, 0, size)))) as image:
        assert (image.format, image.size) == ("JPEG", encoded)


def test_a_broken_models_nan_does_not_break_the_page(view: WebView, join: Join) -> None:
    shown = update(0, plain(0, 0, 0))
    assert shown.answer is not None
    nan = replace(shown.answer.raw, raw=float("nan"), smoothed=float("nan"))
    view.show(replace(shown, answer=replace(shown.answer, top=(nan,), raw=nan)))
    assert receive(join(view))[0]["raw"]["raw"] == 0  # JSON has no NaN, and JavaScript reads none


def test_showing_takes_no_time(view: WebView, join: Join) -> None:
    viewer = join(view)  # it never reads
    shown = update(0, plain(0, 0, 0, (720, 1280)))
    eventually(lambda: stats(view)["viewers"] == 1)
    began = time.monotonic()
    for _ in range(1000):
        view.show(shown)
    assert time.monotonic() - began < 1  # a thousandth of a second each, at the very most
    viewer.close()


def test_the_command_line_imports_no_web_server() -> None:
    code = (
        "import edgenet.camera.web.server, sys; print([m for m in sys.modules if m in {'starlette', 'uvicorn', 'cv2'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ages_are_of_the_last_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgenet.camera.web import viewers

    ages = viewers.Ages()
    assert ages.percentiles() == []
    frame = update(0, plain(0, 0, 0)).answer
    assert frame is not None
    for _ in range(100):
        ages.add(frame.frame)
    p50, p95 = ages.percentiles()
    assert 0 <= p50 <= p95 < 1000
    now = viewers.time.monotonic_ns()
    monkeypatch.setattr(viewers.time, "monotonic_ns", lambda: now + 2_100_000_000)
    assert ages.percentiles() == []


def test_a_viewer_who_leaves_takes_nobody_elses_picture_along(
    view: WebView, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, done = threading.Event(), threading.Event()

    def slow(image: Pixels, mirror: bool) -> bytes:
        encoding.set()
        done.wait(10)
        return encode(image, mirror)

    monkeypatch.setattr(broadcast, "encode", slow)
    leaver, stayer = join(view), join(view)
    eventually(lambda: stats(view)["viewers"] == 2)
    view.show(update(0, plain(0, 0, 255)))
    assert encoding.wait(5)
    time.sleep(0.2)  # both wait for it
    leaver.close()
    eventually(lambda: stats(view)["viewers"] == 1)
    done.set()
    state, sent = receive(stayer)
    assert state["frame"] == 0
    assert np.abs(np.subtract(colour(sent), (255, 0, 0))).max() < 8
    assert stats(view)["encoded"] == 1


def test_what_comes_while_a_picture_is_encoded_costs_none_and_the_last_of_it_is_not_lost(
    view: WebView, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def slow(image: Pixels, mirror: bool) -> bytes:
        encoded.append(int(image[0, 0, 0]))
        time.sleep(0.2)
        return encode(image, mirror)

    monkeypatch.setattr(broadcast, "encode", slow)
    viewer = join(view)
    eventually(lambda: stats(view)["viewers"] == 1)
    time.sleep(0.1)  # it waits
    for number in range(5):  # all within the first one's encoding
        view.show(update(number, plain(number, 0, 0)))
    assert receive(viewer)[0]["frame"] == 0
    eventually(lambda: stats(view)["frame"] == 4)
    viewer.send(ACK)
    assert receive(viewer, 0.9)[0]["frame"] == 4  # before it would be said again
    assert encoded == [0, 4]
    viewer.send(ACK)
    time.sleep(0.1)
    view.show(update(5, plain(5, 0, 0)))
    view.show(update(6, plain(6, 0, 0)))
    view.show(update(7))  # trouble, and no picture
    assert receive(viewer)[0]["frame"] == 5
    viewer.send(ACK)
    state, picture = receive(viewer, 0.9)
    assert (state["frame"], picture) == (None, b"")
    assert encoded == [0, 4, 5]
