"""Clips and pictures as a Source: every frame in order, none dropped, and then an end."""

from __future__ import annotations

import math
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.camera.frame import Frame, Source, Trouble
from edgenet.camera.opencv import environment, opencv, to_bgr
from edgenet.dataset import image_files
from edgenet.errors import EdgenetError, SourceError
from edgenet.image import SUFFIXES, ImageError, Pixels, decode

_CLIPS = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
_PATTERN = re.compile(r"%(0?)(\d*)d")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # how Matroska and its pictures begin
_LONGEST_S = 10.0  # that a frame may last, unless the whole clip is longer
_ODD_PIXELS, _SENSELESS_PIXELS = math.log2(1.02), 3.0  # what rounding a clip's size makes; a factor of 8
_DAMAGED = 8  # reads that may fail one after another in the middle of a clip: packets that are damaged
_TEXT = (b"ansi", b"bfi ", b"idf ", b"xbin")  # FFMPEG draws any text file as a film of a terminal


def open_file(path: Path) -> Source:
    """Open a clip, a picture, a folder of pictures (any depth, by path) or a sequence such as shot_%04d.png.

    Pictures are decoded by edgenet.image, as evaluation does: upright, the same bytes. Raises SourceError.
    """
    shown, unplayed = _shown(str(path)), ""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            unplayed = _unplayed(path)
            return PictureSource(shown, image_files(path), f"{shown}: {unplayed}" if unplayed else "")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{shown}: not a regular file; give a clip, a picture, a folder of pictures or a camera")
        with path.open("rb"):
            pass
    except FileNotFoundError as exc:
        files = _sequence(path)
        if not files:
            raise SourceError(f"{shown}: no such file; check the path") from exc
        return PictureSource(shown, files)
    except PermissionError as exc:
        raise SourceError(f"{shown}: no permission to read it; try: chmod +r") from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise SourceError(f"{shown}: cannot be read ({exc}); check the path and the disk") from exc
    except SourceError:
        raise
    except EdgenetError as exc:  # of image_files: no picture in the folder
        raise SourceError(f"{exc}; {unplayed}" if unplayed else str(exc)) from exc
    if path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".gif":
        return PictureSource(shown, [path])
    return ClipSource(path, shown)


def _shown(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _unplayed(folder: Path) -> str:
    """Say that the clips in a folder are not played, and which there are; "" where there is none."""
    found = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _CLIPS and file.name[0] != ".")
    if not found:
        return ""
    names = ", ".join(map(_shown, found[:3])) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return f"of a folder the pictures are shown, clips are not played: give the path of one ({names})"


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files that open_file would read, also where it would refuse them."""
    try:
        if path.is_dir():
            return image_files(path)
        return (path, *([] if path.exists() else _sequence(path)))
    except (OSError, ValueError, EdgenetError):  # a NUL in the path; no picture in the folder
        return (path,)


def _sequence(path: Path) -> list[Path]:
    """Return the files that a name with one %d or %04d stands for, by number."""
    if len(_PATTERN.findall(path.name)) != 1:
        return []
    before, zero, width, after = _PATTERN.split(path.name)
    digits = f"[0-9]{{{width}}}" if zero and width else "[0-9]+"
    wanted = re.compile(f"{re.escape(before)}({digits}){re.escape(after)}")
    try:
        found = [(match, file) for file in path.parent.iterdir() if (match := wanted.fullmatch(file.name))]
    except OSError:
        return []
    return [file for match, file in sorted(found, key=lambda pair: int(pair[0][1]))]


class PictureSource:
    """Pictures as a Source; one that cannot be decoded is told as Trouble and left out.

    note: Trouble that is told before the first.
    """

    live = False
    dropped = 0
    fps: float | None = None

    def __init__(self, shown: str, files: Sequence[Path], note: str = "") -> None:
        self._files, self._note = files, note
        self.name = shown if len(files) == 1 else f"{shown}, {len(files)} pictures"
        if len(files) == 1:
            self._decode(files[0])

    def frames(self, stop: threading.Event) -> Iterator[Frame | Trouble]:
        """Yield every picture. Raises SourceError if none could be decoded."""
        count = 0
        if self._note:
            yield Trouble(self._note)
        for file in self._files:
            if stop.is_set():
                return
            try:
                image = self._decode(file)
            except SourceError as exc:
                yield Trouble(str(exc))
                continue
            yield Frame(count, time.monotonic_ns(), image)
            count += 1
        if not count:
            raise SourceError(f"{self.name}: none of them can be decoded")

    def close(self) -> None:
        """Nothing is held open."""

    @staticmethod
    def _decode(file: Path) -> Pixels:
        try:
            return np.ascontiguousarray(decode(file)[..., ::-1])
        except ImageError as exc:
            raise SourceError(str(exc)) from exc


class ClipSource:
    """A clip as a Source, decoded by OpenCV; upright, and as wide as it is meant, if the clip says so.

    fps: what the clip says, None where it says nothing sensible. Each frame has its own time: that of the container,
    or where it has none, what the rate says. Raises SourceError if not even the first frame can be decoded; a clip that
    ends early ends with Trouble that says so.
    """

    live = False
    dropped = 0

    def __init__(self, path: Path, shown: str) -> None:
        cv2 = opencv()
        self._lock = threading.Lock()
        self._stamp_s = 0.0  # of the frame that was read last, by its container
        try:
            with environment(OPENCV_FFMPEG_LOGLEVEL="-8"):
                self._capture: Any = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        except (cv2.error, UnicodeError) as exc:
            raise SourceError(f"{shown}: OpenCV cannot open a file of this name; rename it") from exc
        self._wide = self._pixels_wide()
        codec = (int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little")
        self._first = None if codec.lower() in _TEXT else self._read()
        if self._first is None:
            self.close()
            raise SourceError(
                f"{shown}: no clip that can be decoded, or damaged at its start; convert it: ffmpeg -i IN OUT.mp4"
            )
        count, fps = self._capture.get(cv2.CAP_PROP_FRAME_COUNT), self._capture.get(cv2.CAP_PROP_FPS)
        self._count = int(count) if 0 < count < 1e9 else 0
        self.fps = float(fps) if 0 < fps <= 1000 else None
        self._usual_s = 1 / self.fps if self.fps else 0.0
        self._cut_short, self._played_s, self._counted = _cut_short(path), _played_s(path), _counted(path)
        self._shown = shown
        self.name = f"{shown}, {self._first.shape[1]}x{self._first.shape[0]}"

    def frames(self, stop: threading.Event) -> Iterator[Frame | Trouble]:
        """Yield every frame that can be decoded."""
        image, number, at_s, longest_s = self._first, 0, 0.0, 0.0
        self._first = None
        while image is not None and not stop.is_set():
            stamp_s = self._stamp_s
            following = self._read()
            lasts_s = self._usual_s if following is None else self._lasts_s(self._stamp_s - stamp_s)
            yield Frame(number, time.monotonic_ns(), image, None, at_s, lasts_s)
            if self._capture is None:
                return
            image, number, at_s, longest_s = following, number + 1, at_s + lasts_s, max(longest_s, lasts_s)
        if image is None and (share := self._share(number, at_s, longest_s)):
            yield Trouble(f"{self._shown}: ended after {share}: damaged or cut short")

    def close(self) -> None:
        """Close the file; harmless twice."""
        with self._lock:
            capture, self._capture = self._capture, None
            if capture is not None:
                capture.release()

    def _read(self) -> Pixels | None:
        with self._lock:
            if self._capture is None:
                return None
            for _ in range(_DAMAGED):  # OpenCV says of a damaged packet what it says of the end
                done, image = self._capture.read()
                if done:
                    break
            self._stamp_s = self._capture.get(opencv().CAP_PROP_POS_MSEC) / 1e3
        if not done:
            return None
        if self._wide != 1:
            wide = max(1, round(image.shape[1] * self._wide))
            image = opencv().resize(image, (wide, image.shape[0]), interpolation=opencv().INTER_LINEAR)
        return to_bgr(image)

    def _pixels_wide(self) -> float:
        """How wide pixels are meant to be shown, as television's and camcorders' are; 1 is as wide as high."""
        cv2 = opencv()
        across, down = self._capture.get(cv2.CAP_PROP_SAR_NUM), self._capture.get(cv2.CAP_PROP_SAR_DEN)
        wide = across / down if across > 0 and down > 0 else 1.0
        if self._capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180:  # OpenCV has turned the picture
            wide = 1 / wide
        return wide if _ODD_PIXELS < abs(math.log2(wide)) < _SENSELESS_PIXELS else 1.0

    def _lasts_s(self, seconds: float) -> float:
        """How long a frame is shown, by its container; what that cannot mean is what the rate says."""
        return seconds if 0 < seconds <= max(_LONGEST_S, self._count * self._usual_s) else self._usual_s

    def _share(self, number: int, seconds: float, longest_s: float) -> str:
        """How much of the clip there was, of how much; "" where nothing is known to be missing.

        longest_s: that one frame was shown; what a container promises is off by a few.
        """
        promised_s = min(self._count * self._usual_s, self._played_s or math.inf)
        if self._cut_short is False or (self._cut_short and 0 < promised_s <= seconds + longest_s):
            return ""
        if self._cut_short:
            return f"{seconds:.1f} of {promised_s:.1f} s" if promised_s else f"{seconds:.1f} s"
        # Fewer frames alone mean nothing: the rate is that of the shortest ones, or counts what was left out.
        short = self._counted and number < self._count and seconds + 2 * longest_s < 0.98 * promised_s
        return f"{number} of {self._count} frames" if short else ""


def _cut_short(path: Path) -> bool | None:
    """Whether a Matroska or WebM file is shorter than it says; None of other files, and where it does not say.

    Such a file counts no frames: OpenCV makes a number of them up from its length and rate.
    """
    with path.open("rb") as file:
        head = file.read(1 << 12)
    if not head.startswith(_EBML):
        return None
    header, at = _vint(head, len(_EBML))
    at += header or 0
    length, begin = _vint(head, at + len(_SEGMENT))
    if head[at : at + len(_SEGMENT)] != _SEGMENT or length is None:
        return None
    return path.stat().st_size < begin + length


def _counted(path: Path) -> bool:
    """Whether the number of frames means something: MP4, MOV and AVI count them, and GIF has nothing else.

    Of other files OpenCV makes one up from the length, which is that of the sound where it lasts longer.
    """
    with path.open("rb") as file:
        head = file.read(12)
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") or head[8:] == b"AVI " or head[:3] == b"GIF"
    )


def _played_s(path: Path) -> float:
    """How much of an MP4 or MOV is played, by its head (ISO 14496-12, 8.2.2); 0 of other files, and of fragments.

    Such a file also holds, and counts, frames that its edit list leaves out, where it was trimmed without encoding it.
    """
    at, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while at < end:
            file.seek(at)
            head = file.read(40)
            size = int.from_bytes(head[:4], "big")
            if head[4:8] == b"moov" and head[12:16] == b"mvhd":
                wide = head[16:17] == b"\1"  # its times are of 64 bits
                figures = head[36:] + file.read(8) if wide else head[28:36]
                scale, length = int.from_bytes(figures[:4], "big"), int.from_bytes(figures[4:], "big")
                return length / scale if scale else 0.0
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            if size < 8:  # as long as the file, or no such file at all
                break
            at += size
    return 0.0


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Read one of EBML's integers (RFC 8794, section 4), None where it is unknown; and where it ends."""
    size = 9 - data[at].bit_length() if at < len(data) else 1
    most = (1 << 7 * size) - 1
    value = int.from_bytes(data[at : at + size], "big") & most
    return None if value == most else value, at + size
