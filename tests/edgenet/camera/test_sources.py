from __future__ import annotations

import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenet.camera import live_source
from edgenet.camera.frame import Frame, Source, Trouble
from edgenet.camera.live_source import LiveSource, Lost, Shot
from edgenet.camera.opencv import decode_jpeg, environment, jpeg_pixels, to_bgr
from edgenet.camera.sources import first_camera, open_source
from edgenet.errors import SourceError
from edgenet.image import Pixels, decode

from .mjpeg_camera import draw_stamp, read_stamp


def everything(source: Source) -> tuple[list[Frame], list[str]]:
    """Return all frames and all trouble of a source that ends."""
    items = list(source.frames(threading.Event()))
    source.close()
    source.close()
    frames = [item for item in items if isinstance(item, Frame)]
    return frames, [item.text for item in items if isinstance(item, Trouble)]


def picture(number: int, size: tuple[int, int] = (96, 64)) -> Pixels:
    image = np.full((size[1], size[0], 3), (200, 100, 20), np.uint8)
    draw_stamp(image, number)
    return image


def clip(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for number in range(frames):
        writer.write(picture(number))
    writer.release()
    return path


def ffmpeg(path: Path, picture_format: str, codec: str, size: str = "64x48") -> Path:
    """Make a clip of 2 frames, red above green, in any pixel format."""
    width, height = map(int, size.split("x"))
    image = np.zeros((height, width, 3), np.uint8)
    image[: (height + 1) // 2], image[(height + 1) // 2 :] = (255, 0, 0), (0, 255, 0)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "5", "-i", "-"]
    try:
        done = subprocess.run(
            ["ffmpeg", "-y", "-loglevel", "error", *raw, "-pix_fmt", picture_format, "-c:v", codec, str(path)],
            input=image.tobytes() * 2,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
    assert done.returncode == 0, done.stderr
    return path


def refusal(text: str) -> str:
    with pytest.raises(SourceError) as refused:
        open_source(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# Clips


def test_a_clip_gives_every_frame_in_order_and_ends(tmp_path: Path) -> None:
    source = open_source(str(clip(tmp_path / "a b%d.avi", 60)))
    assert not source.live
    assert source.name.endswith("a b%d.avi, 96x64")
    frames, trouble = everything(source)
    assert [read_stamp(frame.image) for frame in frames] == [frame.id for frame in frames] == list(range(60))
    assert not trouble
    assert all(one.captured_ns < other.captured_ns for one, other in pairwise(frames))
    assert len({frame.image.ctypes.data for frame in frames}) == 60  # each its own memory


def test_a_clip_ends_when_it_shall(tmp_path: Path) -> None:
    stop = threading.Event()
    source = open_source(str(clip(tmp_path / "clip.avi", 30)))
    frames = source.frames(stop)
    next(frames)
    stop.set()
    assert list(frames) == []
    source.close()
    source = open_source(f"file://{tmp_path / 'clip.avi'}")
    frames = source.frames(threading.Event())
    next(frames)
    source.close()  # from another thread as far as the clip knows
    assert list(frames) == []


@pytest.mark.parametrize(
    ("picture_format", "codec", "name"),
    [
        ("gray", "ffv1", "gray.mkv"),
        ("gray10le", "ffv1", "gray10.mkv"),
        ("gray16le", "ffv1", "gray16.mkv"),
        ("yuv444p10le", "ffv1", "ten.mkv"),
        ("rgb48be", "png", "rgb48.mov"),
        ("rgba", "png", "rgba.mov"),
        ("yuv420p10le", "libx264", "h264.mp4"),
    ],
)
def test_every_kind_of_pixel_becomes_uint8_bgr(tmp_path: Path, picture_format: str, codec: str, name: str) -> None:
    frames, trouble = everything(open_source(str(ffmpeg(tmp_path / name, picture_format, codec))))
    assert (len(frames), trouble) == (2, [])
    for frame in frames:
        assert (frame.image.dtype, frame.image.shape, frame.image.flags.c_contiguous) == (np.uint8, (48, 64, 3), True)
        above, below = frame.image[4, 30].astype(int), frame.image[44, 30].astype(int)
        wanted = ([76] * 3, [150] * 3) if "gray" in picture_format else ([0, 0, 255], [0, 255, 0])
        assert abs(above - wanted[0]).max() <= 4
        assert abs(below - wanted[1]).max() <= 4


@pytest.mark.parametrize(("size", "codec"), [("1x1", "png"), ("7680x4320", "mjpeg")])
def test_a_picture_of_one_pixel_and_one_of_33_million(tmp_path: Path, size: str, codec: str) -> None:
    kind = "yuvj420p" if codec == "mjpeg" else "rgb24"
    frames, _ = everything(open_source(str(ffmpeg(tmp_path / "clip.mov", kind, codec, size))))
    assert len(frames) == 2
    assert "x".join(map(str, frames[0].image.shape[1::-1])) == size
    assert abs(frames[0].image[0, 0].astype(int) - [0, 0, 255]).max() <= 4


def test_a_clip_cut_short_gives_what_there_is_and_says_so(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.avi", 100).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    frames, trouble = everything(open_source(str(tmp_path / "half.avi")))
    assert 30 < len(frames) < 70
    assert [read_stamp(frame.image) for frame in frames] == list(range(len(frames)))
    assert trouble == [f"{tmp_path / 'half.avi'}: ended after {len(frames)} of 100 frames: damaged or cut short"]


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "text.txt", "junk.mkv", "headless.mp4", "model.tflite"])
def test_what_is_no_clip_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content = {
        "empty.mp4": b"",
        "text": b"a line of text\n" * 200,  # which FFMPEG would draw
        "headless.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\x01\0\0mdat" + bytes(65528),
    }
    data = content.get("text" if "text" in name else name, bytes(range(256)) * 40)
    (tmp_path / name).write_bytes(data)
    assert f"{name}: no clip that can be decoded" in refusal(str(tmp_path / name))


def test_paths_that_name_nothing_to_show(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no such file" in refusal(str(tmp_path / "none.mp4"))
    assert "no such file" in refusal(str(tmp_path / "shot_%04d.png"))
    assert "no such file" in refusal(str(tmp_path / "a\nb.mp4"))
    assert "no image in this folder" in refusal(str(tmp_path / "empty"))
    assert "not a regular file" in refusal("/dev/null")
    assert "cannot be read" in refusal("a\0b.mp4")
    assert "no source" in refusal(" ")


def test_real_clips_give_as_many_frames_as_ffprobe_counts(data: Path) -> None:
    for name, count in {"book.mkv": 109, "bottle-detection.mp4": 1189, "car-detection.mp4": 377}.items():
        source = open_source(str(data / "videos" / name))
        ids = [item.id for item in source.frames(threading.Event()) if isinstance(item, Frame)]
        source.close()
        assert ids == list(range(count)), name


# Pictures


def test_a_folder_of_pictures_is_what_evaluation_sees(pictures: Path) -> None:
    frames, trouble = everything(open_source(str(pictures)))
    files = sorted(pictures.glob("*/*"))
    assert (len(frames), trouble) == (len(files), [])
    for file, frame in zip(files, frames, strict=True):
        assert (frame.image[..., ::-1] == decode(file)).all()


def test_a_sequence_goes_by_number_and_leaves_out_what_is_damaged(tmp_path: Path) -> None:
    for number in (0, 1, 2, 9, 10, 11):
        cv2.imwrite(str(tmp_path / f"shot_{number}.png"), picture(number))
    (tmp_path / "shot_2.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "shot_x.png"), picture(99))
    frames, trouble = everything(open_source(str(tmp_path / "shot_%d.png")))
    assert [read_stamp(frame.image) for frame in frames] == [0, 1, 9, 10, 11]
    assert [frame.id for frame in frames] == [0, 1, 2, 3, 4]
    assert len(trouble) == 1
    assert "shot_2.png: not an image" in trouble[0]
    frames, _ = everything(open_source(str(tmp_path / "shot_%02d.png")))
    assert [read_stamp(frame.image) for frame in frames] == [10, 11]


def test_one_picture_is_one_frame(tmp_path: Path) -> None:
    deep = np.full((20, 32, 3), (0x1234, 0x80FF, 0xFF00), np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    frames, _ = everything(open_source(str(tmp_path / "deep.png")))
    assert len(frames) == 1
    assert frames[0].image[0, 0].tolist() == [0x12, 0x80, 0xFF]
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    assert "bad.jpg" in refusal(str(tmp_path / "bad.jpg"))


# What every camera shares


def test_any_array_a_camera_gives_becomes_bgr() -> None:
    bgr = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert to_bgr(bgr) is bgr
    assert (to_bgr(np.dstack([bgr, bgr[..., :1]])) == bgr).all()
    for grey in (bgr[..., 0], bgr[..., :1], bgr[..., 0].astype(np.uint16) << 8 | 0xFF):
        assert (to_bgr(grey) == bgr[..., :1]).all()
    for wrong in (bgr.astype(np.float32), bgr[..., :2], bgr[:0], bgr[None]):
        with pytest.raises(ValueError, match="is no picture"):
            to_bgr(wrong)


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
    monkeypatch.setattr(live_source, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(live_source, "LAST_RETRY_S", 0.2)
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


def test_without_picamera2_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match=r"apt install python3-picamera2.*--system-site-packages"):
        open_source("picamera2")
    monkeypatch.delitem(sys.modules, "picamera2")
    (tmp_path / "picamera2.py").write_text("raise ValueError('numpy.dtype size changed,\\nincompatible')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "pip install 'numpy<2'" in refusal("picamera2")


def test_addresses_of_no_camera() -> None:
    assert "ftp://" in refusal("ftp://host/clip.mp4")
    assert "names no host" in refusal("rtsp:///live")
    assert "names no host or port" in refusal("tcp://127.0.0.1")
    assert "cannot be read" in refusal("http://user:pass@[::1/x")
    assert "names no host" in refusal("http://a b/x")


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
    code = "import edgenet.camera.sources, sys; print({'cv2', 'tensorflow', 'picamera2', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
