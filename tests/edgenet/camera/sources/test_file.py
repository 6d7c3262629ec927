from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenet.camera.frame import Frame, Source, Trouble
from edgenet.camera.sources.file import ClipSource
from edgenet.camera.sources.opening import open_source
from edgenet.errors import SourceError
from edgenet.image import Pixels, decode
from tests.edgenet.camera.mjpeg_camera import draw_stamp, read_stamp


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


def ffmpeg(path: Path, picture_format: str, codec: str, size: str = "64x48", options: Sequence[str] = ()) -> Path:
    """Make a clip of 2 frames, red above green, in any pixel format. options: of ffmpeg, for what it writes."""
    width, height = map(int, size.split("x"))
    image = np.zeros((height, width, 3), np.uint8)
    image[: (height + 1) // 2], image[(height + 1) // 2 :] = (255, 0, 0), (0, 255, 0)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "5", "-i", "-"]
    try:
        done = subprocess.run(
            [
                "ffmpeg",
                "-y",
                "-loglevel",
                "error",
                *raw,
                "-pix_fmt",
                picture_format,
                "-c:v",
                codec,
                *options,
                str(path),
            ],
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
    (tmp_path / "clip.avi").rename(tmp_path / "a clip.avi")
    source = open_source(f"file://{tmp_path}/a%20clip.avi")
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


@pytest.mark.parametrize(
    ("pixel", "turned", "size"),
    [
        ("16/11", False, (93, 48)),
        ("8/9", False, (57, 48)),
        ("16/11", True, (33, 64)),
        ("80/79", False, (64, 48)),
        ("0", False, (64, 48)),
    ],
)
def test_a_clip_whose_pixels_are_not_square_is_shown_as_wide_as_it_is_meant(
    tmp_path: Path, pixel: str, turned: bool, size: tuple[int, int]
) -> None:
    path = ffmpeg(tmp_path / "clip.mp4", "yuv420p", "mpeg4", options=["-vf", f"setsar={pixel}"])
    if turned:  # by its track's matrix, the second in it (ISO 14496-12, 8.3.2)
        one, none, last = ((value).to_bytes(4, "big") for value in (1 << 16, 0, 1 << 30))
        before, header, rest = path.read_bytes().split(b"".join([one, none * 3, one, none * 3, last]))
        held = b"".join([none, one, none, (-1 << 16).to_bytes(4, "big", signed=True), none * 4, last])
        path.write_bytes(before + b"".join([one, none * 3, one, none * 3, last]) + header + held + rest)
    frames, trouble = everything(open_source(str(path)))
    assert (len(frames), trouble) == (2, [])
    assert {frame.image.shape for frame in frames} == {(*size[::-1], 3)}


def test_a_clip_cut_short_gives_what_there_is_and_says_so(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.avi", 100).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    frames, trouble = everything(open_source(str(tmp_path / "half.avi")))
    assert 30 < len(frames) < 70
    assert [read_stamp(frame.image) for frame in frames] == list(range(len(frames)))
    assert trouble == [f"{tmp_path / 'half.avi'}: ended after {len(frames)} of 100 frames: damaged or cut short"]


UNEVEN = [*np.arange(0, 1, 0.1), 1.0, 1.5, 2.0, 2.5]  # s


def uneven(path: Path) -> Path:
    """Make a clip whose frames come ten times a second, and from 1 s on twice a second, for 3 s: as UNEVEN says."""
    codec = {".webm": ["-c:v", "libvpx", "-deadline", "realtime"], ".gif": []}.get(path.suffix, ["-c:v", "mpeg4"])
    picked = ["-vf", "select='lt(t,1)+not(mod(n,5))'", "-fps_mode", "vfr"]
    command = ["ffmpeg", "-y", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=96x64:r=10:d=3", *picked, *codec]
    try:
        subprocess.run([*command, str(path)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "gif"])
def test_frames_of_an_uneven_clip_have_the_times_of_their_container(tmp_path: Path, suffix: str) -> None:
    frames, trouble = everything(open_source(str(uneven(tmp_path / f"clip.{suffix}"))))
    assert trouble == []
    assert [frame.at_s for frame in frames] == pytest.approx(UNEVEN, abs=0.002)
    lasting = [frame.lasts_s for frame in frames[:-1]]
    assert lasting == pytest.approx([other - one for one, other in pairwise(UNEVEN)], abs=0.002)
    assert 0.05 < frames[-1].lasts_s < 0.6


@pytest.mark.parametrize("suffix", ["mkv", "webm", "avi"])
def test_an_uneven_clip_that_is_cut_short_is_still_found(tmp_path: Path, suffix: str) -> None:
    path = uneven(tmp_path / f"clip.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames, (trouble,) = everything(open_source(str(path)))
    assert 2 < len(frames) < len(UNEVEN)
    of = r"\d+ of 26 frames" if suffix == "avi" else r"[01]\.\d of 2\.6 s"
    assert re.fullmatch(rf".*clip\.{suffix}: ended after {of}: damaged or cut short", trouble)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_clip_that_was_trimmed_without_encoding_it_is_not_called_damaged(tmp_path: Path, suffix: str) -> None:
    """It still holds, and counts, what comes after the key frame before."""
    whole, trimmed = tmp_path / "whole.mp4", tmp_path / f"trimmed.{suffix}"
    made = ["-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=2", "-c:v", "mpeg4", "-g", "100", str(whole)]
    cut = ["-ss", "0.7", "-i", str(whole), "-c", "copy", "-movflags", "faststart", str(trimmed)]
    try:
        for arguments in (made, cut):
            subprocess.run(["ffmpeg", "-v", "error", *arguments], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
    frames, trouble = everything(open_source(str(trimmed)))
    assert (len(frames) < 40, trouble) == (True, [])
    trimmed.write_bytes(trimmed.read_bytes()[: trimmed.stat().st_size * 3 // 4])
    frames, trouble = everything(open_source(str(trimmed)))
    assert trouble == [f"{trimmed}: ended after {len(frames)} of 50 frames: damaged or cut short"]


def test_a_damaged_packet_is_not_the_end_of_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.mov"
    made = ["-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=2", "-c:v", "png", str(path)]
    try:
        subprocess.run(["ffmpeg", "-v", "error", *made], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    frames, trouble = everything(open_source(str(path)))
    assert len(frames) in (48, 49)
    assert trouble == []
    at = [frame.at_s for frame in frames]
    assert at == sorted(at)
    assert at[-1] == pytest.approx(49 / 25, abs=0.03)  # those behind it are where they were


@pytest.mark.parametrize("suffix", ["ts", "mpg", "flv"])
def test_a_clip_whose_sound_lasts_longer_is_not_called_damaged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    codecs = ["-c:v", "flv" if suffix == "flv" else "mpeg2video", "-c:a", "mp2" if suffix != "flv" else "adpcm_swf"]
    picture_, sound = "testsrc=s=96x64:r=25:d=1", "sine=duration=3:sample_rate=44100"
    made = ["-f", "lavfi", "-i", picture_, "-f", "lavfi", "-i", sound, *codecs, str(path)]
    try:
        subprocess.run(["ffmpeg", "-v", "error", *made], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
    frames, trouble = everything(open_source(str(path)))
    assert (len(frames), trouble) == (25, [])


@pytest.mark.parametrize("hours", [0, 1])
def test_a_clip_without_times_that_make_sense_has_those_of_its_rate(tmp_path: Path, hours: int) -> None:
    source = open_source(str(clip(tmp_path / "clip.avi", 10)))
    assert isinstance(source, ClipSource)
    capture = source._capture
    stamps_ms = (number * hours * 3.6e6 for number in range(1, 99))  # hours from frame to frame
    source._count += 2  # what a container promises is off by a few

    class Timeless:
        def get(self, what: int) -> float:
            return next(stamps_ms) if what == cv2.CAP_PROP_POS_MSEC else float(capture.get(what))

        def __getattr__(self, name: str) -> object:
            return getattr(capture, name)

    source._capture = Timeless()
    frames, trouble = everything(source)
    assert trouble == []
    assert [frame.at_s for frame in frames] == pytest.approx([number / 25 for number in range(10)])


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
    assert everything(open_source(f"file://{tmp_path}/sh%6Ft_%02d.png"))[0]
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
