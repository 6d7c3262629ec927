"""Pictures that a browser sends: what comes out as frames, and what does not."""

from __future__ import annotations

import threading
import time
import tracemalloc

import numpy as np
import pytest

from edgenet.camera.frame import Frame, Trouble
from edgenet.camera.sources import browser
from edgenet.camera.sources.browser import MAX_JPEG_BYTES, BrowserSource
from tests.edgenet.camera.browser import jpeg

RED = np.full((48, 64, 3), (250, 10, 10), np.uint8)  # RGB


def bomb(width: int, height: int) -> bytes:
    """A small JPEG whose head claims another size."""
    data = bytearray(jpeg(RED))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_a_picture_comes_out_as_a_frame_in_opencvs_order() -> None:
    source, stop = BrowserSource(), threading.Event()
    frames = source.frames(stop)
    assert isinstance(next(frames), Trouble)  # nobody has sent anything yet
    before = time.monotonic_ns()
    number = source.inbox.put_jpeg(jpeg(RED))
    frame = next(frames)
    assert isinstance(frame, Frame)
    assert (frame.id, frame.image.shape, frame.image.dtype) == (number, (48, 64, 3), np.uint8)
    assert before <= frame.captured_ns <= time.monotonic_ns()
    assert np.abs(frame.image[20, 20].astype(int) - (10, 10, 250)).max() < 6
    assert source.live
    assert source.name == "browser camera, 64x48"


def test_only_the_newest_picture_waits() -> None:
    source = BrowserSource()
    numbers = [source.inbox.put_jpeg(jpeg(RED)) for _ in range(5)]
    frames = source.frames(threading.Event())
    next(frames)
    frame = next(frames)
    assert isinstance(frame, Frame)
    assert frame.id == numbers[-1]
    assert numbers == sorted(set(numbers))  # ids grow, and none is used twice


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"GIF89a" + bytes(100),
        bytes(1000),
        jpeg(RED)[:60],
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bomb(65500, 65500),
        bomb(4097, 2),
        bomb(4000, 4000),
        bomb(0, 0),
        jpeg(RED) + bytes(MAX_JPEG_BYTES),
        jpeg(RED)[:2] + b"\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00" + bomb(65500, 65500)[2:],
        jpeg(RED)[:2] + b"\xff\xc0\x00\x0b\x08\xff\x00\xff\x00\x01\x01\x11\x00" + jpeg(RED)[2:],
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000,
        b"\xff\xd8\xff\xe0\x00\x00" + jpeg(RED)[2:],
    ],
)
def test_what_is_no_picture_of_a_size_that_is_taken_is_refused_before_it_is_decoded(data: bytes) -> None:
    inbox = BrowserSource().inbox
    tracemalloc.start()
    assert inbox.put_jpeg(data) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert inbox.refused == 1
    assert inbox.take(0) is None
    assert peak < 1 << 20


def test_a_damaged_picture_is_dropped_and_counted_and_the_next_one_comes() -> None:
    source = BrowserSource()
    frames = source.frames(threading.Event())
    next(frames)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    whole = jpeg(noise)
    assert source.inbox.put_jpeg(whole[: len(whole) // 2]) is not None  # its head is sound
    threading.Timer(0.3, source.inbox.put_jpeg, (jpeg(RED),)).start()
    frame = next(frames)
    assert isinstance(frame, Frame)
    assert frame.image.shape == (48, 64, 3)  # and never a half-grey one of 300 x 300
    assert source.inbox.refused == 1


def test_silence_is_said_once_and_ends_with_the_next_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "_SILENT_S", 0.3)
    source, stop = BrowserSource(), threading.Event()
    frames = source.frames(stop)
    first = next(frames)
    source.inbox.put_jpeg(jpeg(RED))
    assert isinstance(next(frames), Frame)
    second = next(frames)
    assert isinstance(first, Trouble)
    assert isinstance(second, Trouble)
    assert first != second
    threading.Timer(1.0, source.inbox.put_jpeg, (jpeg(RED),)).start()
    assert isinstance(next(frames), Frame)  # and not Trouble again


@pytest.mark.parametrize("how", ["stop", "close"])
def test_it_ends_soon_when_it_is_to(how: str) -> None:
    source, stop = BrowserSource(), threading.Event()
    began = time.monotonic()
    threading.Timer(0.1, stop.set if how == "stop" else source.close).start()
    assert [type(item) for item in source.frames(stop)] == [Trouble]
    assert time.monotonic() - began < 2
    source.close()
    source.close()


def test_a_pictures_time_is_that_of_its_arrival_however_long_it_waits() -> None:
    source = BrowserSource()
    frames = source.frames(threading.Event())
    next(frames)
    source.inbox.put_jpeg(jpeg(RED))
    arrived = time.monotonic_ns()
    time.sleep(0.2)
    frame = next(frames)
    assert isinstance(frame, Frame)
    assert frame.captured_ns <= arrived
