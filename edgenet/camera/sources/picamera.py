"""The Raspberry Pi's own camera modules, through picamera2."""

from __future__ import annotations

import importlib
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from edgenet.camera.opencv import to_bgr
from edgenet.camera.sources.live import LiveSource, Lost, Shot
from edgenet.camera.sources.v4l2 import SIZE
from edgenet.errors import SourceError

_TIMEOUT_S = 2.0
_INSTALL = "sudo apt install python3-picamera2, and make the environment with: python3 -m venv --system-site-packages"


def open_picamera(size: tuple[int, int] | None = None) -> LiveSource:
    """Open the first camera module. size: (width, height). Raises SourceError."""
    return LiveSource(PicameraCamera(size or SIZE))


class PicameraCamera:
    """A Camera; see live_source."""

    title = "picamera2"
    patience_s = 6.0
    waits_s = 0.0

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._camera: Any = None

    def open(self) -> None:
        """Start the camera's video mode. Raises SourceError where picamera2 is missing: no use in trying again."""
        library = _picamera2()
        try:
            self._camera = library()
            # libcamera names the bytes of a little-endian word: "RGB888" is blue, green, red in memory.
            wanted = {"size": self._size, "format": "RGB888"}
            self._camera.configure(self._camera.create_video_configuration(main=wanted))
            self._camera.start()
        except IndexError as exc:
            raise Lost("no camera module is connected", "check its cable; see: rpicam-hello --list-cameras") from exc
        except (RuntimeError, OSError) as exc:
            raise Lost(f"does not start ({exc})", "is another program using it?") from exc

    def read(self) -> Shot:
        """Wait for the next picture; its time is when the sensor began to send it."""
        if self._camera is None:
            raise Lost("it is closed")
        try:
            (image,), metadata = self._camera.capture_arrays(["main"], wait=_TIMEOUT_S)
        except (TimeoutError, FutureTimeoutError) as exc:
            raise Lost(f"no picture for {_TIMEOUT_S:g} s") from exc
        except (RuntimeError, OSError) as exc:
            raise Lost(f"gives no picture ({exc})") from exc
        return Shot(_stamp(metadata), to_bgr(image))

    def interrupt(self) -> None:
        """There is no way, and no need: it waits in Python, for two seconds at most."""

    def close(self) -> None:
        """Stop the camera."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()


def _stamp(metadata: dict[str, Any]) -> int:
    """Return the picture's time on time.monotonic_ns(); the sensor's clock also counts while the machine sleeps."""
    now_ns = time.monotonic_ns()
    stamp_ns = metadata.get("SensorTimestamp")
    if not stamp_ns or not hasattr(time, "CLOCK_BOOTTIME"):
        return now_ns
    age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(stamp_ns)
    return now_ns - age_ns if 0 <= age_ns < 1_000_000_000 else now_ns


def _picamera2() -> Any:
    """Return the class. Raises SourceError with what to do."""
    try:
        return importlib.import_module("picamera2").Picamera2
    except ModuleNotFoundError as exc:
        raise SourceError(f"picamera2: {exc.name} is not installed; try: {_INSTALL}") from exc
    except (ImportError, ValueError) as exc:  # ValueError: Debian's extensions were built for numpy 1
        cure = "pip install 'numpy<2' 'opencv-python<4.12'" if "numpy" in str(exc) else _INSTALL
        raise SourceError(f"picamera2 cannot be loaded ({' '.join(str(exc).split())}); try: {cure}") from exc
