"""Cameras plugged in: Video4Linux devices, and whatever OpenCV numbers on other systems.

What a Linux device is, and why it gives nothing, is asked of the kernel before OpenCV is: OpenCV says only that it
failed, and waits ten seconds for a device that is busy.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.camera.opencv import decode_jpeg, environment, opencv, to_bgr
from edgenet.camera.sources.live import STALLED_S, LiveSource, Lost, Shot
from edgenet.errors import SourceError
from edgenet.image import Pixels

SIZE = (1280, 720)  # width, height: what is asked for where nobody says; the camera takes the nearest it has

_QUERYCAP, _REQBUFS = 0x80685600, 0xC0145608  # <linux/videodev2.h>
_CAPTURE, _DEVICE_CAPS = 0x1, 0x80000000
_SENSORS = ("unicam", "rp1-cfe", "bcm2835-isp", "pispbe", "rpi-hevc-dec", "bcm2835-codec")  # only libcamera drives them
_SELECT_S = "2"  # how long OpenCV waits for a picture; read once in a process's life


def open_device(text: str, size: tuple[int, int] | None = None) -> LiveSource:
    """Open a camera by its number ("0") or device ("/dev/video0", "/dev/v4l/by-id/..."). Raises SourceError."""
    return LiveSource(DeviceCamera(text, size or SIZE))


def devices() -> list[Path]:
    """Return the Video4Linux devices there are, whatever they do."""
    return sorted(Path("/dev").glob("video[0-9]*"), key=lambda path: int(re.sub(r"\D", "", path.name)))


class DeviceCamera:
    """A Camera; see live_source. size: (width, height) asked for."""

    patience_s = 6.0  # some webcams take seconds to start
    waits_s = 0.0

    def __init__(self, text: str, size: tuple[int, int]) -> None:
        self.title = f"camera {text}" if text.isdigit() else text
        self._index = int(text) if text.isdigit() else None
        self._path = Path(f"/dev/video{text}" if text.isdigit() else text)
        self._linux = sys.platform == "linux"
        if not self._linux and self._index is None:
            raise SourceError(f"{text}: device files are Linux's; give the camera's number, such as 0")
        self._size = size
        self._capture: Any = None
        self._first: Shot | None = None

    def open(self) -> None:
        """Open the device and wait for its first picture: only that shows that it works."""
        cv2 = opencv()
        if self._linux:
            check(self._path)
        with environment(OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT=_SELECT_S):
            target = str(self._path) if self._linux else self._index
            self._capture = cv2.VideoCapture(target, cv2.CAP_V4L2 if self._linux else cv2.CAP_ANY)
            if not self._capture.isOpened():
                raise Lost("OpenCV cannot open it", f"is it a camera? See: v4l2-ctl -d {self._path} --all")
            # MJPG first: setting it later would undo the size, and uncompressed 720p is 10 fps on USB 2.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
            # OpenCV gives the picture before where one is spoilt: so MJPG is asked for as it comes, and decoded here.
            if self._linux and int(self._capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"MJPG"):
                self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            try:
                self._first = self.read()
            except Lost as exc:
                if self._linux:
                    check(self._path)
                cure = "unplug it and plug it in again, at the computer itself rather than at a hub"
                spoilt = "cannot be decoded" in exc.why
                raise Lost(f"it opens, but {exc.why}" if spoilt else "it opens, but gives no picture", cure) from exc

    def read(self) -> Shot:
        """Wait for the next picture that can be decoded; its time is the driver's own where that is sensible."""
        if self._capture is None:
            raise Lost("it is closed")
        first, self._first = self._first, None
        if first:
            return first
        until = time.monotonic() + STALLED_S
        while time.monotonic() < until:
            if not self._capture.grab():
                raise Lost(self._gone())
            captured_ns = self._stamp(time.monotonic_ns())
            image, jpeg = self._picture()
            if image is not None:  # bad cables and hubs spoil one now and then
                return Shot(captured_ns, image, jpeg)
        raise Lost("its pictures cannot be decoded", "try another cable or port")

    def _picture(self) -> tuple[Pixels | None, bytes | None]:
        """Decode what was grabbed: the picture, None where it is damaged, and the JPEG that it came as, if it did."""
        try:
            done, image = self._capture.retrieve()
            if not done or image is None:
                return None, None
            if image.ndim == 2 and 1 in image.shape:  # a JPEG's bytes; some drivers pad them
                jpeg = image.tobytes().rstrip(b"\0")
                return decode_jpeg(jpeg), jpeg
            return to_bgr(np.asarray(image)), None
        except (opencv().error, ValueError):
            return None, None

    def interrupt(self) -> None:
        """There is no way: OpenCV waits for its own timeout."""

    def close(self) -> None:
        """Let go of the device."""
        capture, self._capture, self._first = self._capture, None, None
        if capture is not None:
            capture.release()

    def _stamp(self, now_ns: int) -> int:
        """Return when the driver had the picture: Video4Linux stamps with this very clock, nearly everywhere."""
        if not self._linux:
            return now_ns
        stamp_ns = int(self._capture.get(opencv().CAP_PROP_POS_MSEC) * 1e6)
        return stamp_ns if 0 <= now_ns - stamp_ns < 1e9 else now_ns

    def _gone(self) -> str:
        if self._linux:
            try:
                os.close(os.open(self._path, os.O_RDWR | os.O_NONBLOCK))
            except OSError:
                return "it was unplugged"
        return "it gives no picture any more"


def check(path: Path) -> None:
    """See whether a Linux device is a camera that is there, ours to use, and free. Raises Lost, with what to do."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        others = ", ".join(f"{other} ({_label(other)})" for other in devices())
        raise Lost(f"there is no {path}", f"there are: {others}" if others else "is a camera plugged in?") from exc
    except PermissionError as exc:
        raise Lost(f"no permission to use {path}", "try: sudo usermod -aG video $USER, and log in again") from exc
    except OSError as exc:
        raise _failed(path, exc) from exc
    try:
        driver, flags = _capability(descriptor)
        if driver.startswith(_SENSORS):
            raise Lost("this is a Raspberry Pi camera module, which needs libcamera", "use --source picamera2")
        if not flags & _CAPTURE:
            raise Lost("this device gives no pictures", "cameras have several; take the one before it")
        _claim(descriptor)
    except OSError as exc:
        raise _failed(path, exc) from exc
    finally:
        os.close(descriptor)


def _failed(path: Path, exc: OSError) -> Lost:
    if exc.errno == errno.EBUSY:
        return Lost("another program is using it", f"close that; this names it: fuser -v {path}")
    if exc.errno in (errno.ENOTTY, errno.EINVAL):
        return Lost(f"{path} is no camera", "give a number, or a /dev/video device")
    if exc.errno in (errno.ENODEV, errno.ENXIO):
        return Lost("it was unplugged")
    return Lost(f"{path} cannot be opened ({exc.strerror})")


def _capability(descriptor: int) -> tuple[str, int]:
    """Return a device's driver and what it can do (VIDIOC_QUERYCAP)."""
    import fcntl

    answer = fcntl.ioctl(descriptor, _QUERYCAP, bytes(104))
    driver, _, _, _, flags, own_flags = struct.unpack_from("16s32s32sIII", answer)
    return driver.split(b"\0")[0].decode(errors="replace"), own_flags if flags & _DEVICE_CAPS else flags


def _claim(descriptor: int) -> None:
    """Ask for a buffer and give it back (VIDIOC_REQBUFS): fails with EBUSY while another program is streaming."""
    import fcntl

    for count in (1, 0):
        fcntl.ioctl(descriptor, _REQBUFS, struct.pack("5I", count, 1, 1, 0, 0))  # video capture, memory-mapped


def _label(path: Path) -> str:
    try:
        return Path("/sys/class/video4linux", path.name, "name").read_text().strip()
    except OSError:
        return "unknown"
