"""A camera whose pictures tell their own age: MJPEG over HTTP at a fixed rate, each picture stamped with the time.

The stamp is 32 bits of time.monotonic() in milliseconds and 8 bits of checksum, drawn as blocks that survive JPEG; the
clock is the same in all processes of a machine, so whoever holds a picture knows its true age:

    with MjpegCamera(fps=30, size=(1280, 720)) as camera:
        ... camera.url ...
        age_ms(image)

The camera runs in a process of its own, as a real one would: it shares no interpreter lock with what is measured, and
`kill` kills it. `python mjpeg_camera.py --fps 30 --size 1280x720` runs one by hand and prints its port.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import math
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_BITS, _COLUMNS = 40, 8  # 32 of the stamp, 8 of its checksum
_ROWS = _BITS // _COLUMNS
_BLOCK = 16  # pixels a side: JPEG's own unit with halved colour
USER, PASSWORD = "viewer", "s3cret/@:word"  # of the private paths

_DIGEST = 'Digest realm="camera", nonce="77", qop="auth"'
_PAGE = b"<html><body>camera</body></html>"


def draw_stamp(image: Pixels, ms: int) -> None:
    """Draw the low 32 bits of `ms` into the upper left corner of a picture [h, w, 3]."""
    block = _block(image)
    value = (ms & 0xFFFFFFFF) << 8 | _check(ms)
    bits = np.array([value >> i & 1 for i in range(_BITS)], np.uint8).reshape(_ROWS, _COLUMNS)
    blocks = np.kron(bits * 215 + 20, np.ones((block, block), np.uint8))
    image[: blocks.shape[0], : blocks.shape[1]] = blocks[..., None]


def read_stamp(image: Pixels) -> int:
    """Return the stamp of a picture [h, w, 3], in milliseconds modulo 2**32. Raises ValueError where there is none."""
    block = _block(image)
    corner = image[: _ROWS * block, : _COLUMNS * block].mean(axis=2)
    edge = block // 4
    cells = corner.reshape(_ROWS, block, _COLUMNS, block)[:, edge : block - edge, :, edge : block - edge]
    value = sum(int(bright) << i for i, bright in enumerate((cells.mean(axis=(1, 3)) > 127).ravel()))
    ms, check = value >> 8, value & 0xFF
    if check != _check(ms):
        raise ValueError(f"no stamp in this picture of {image.shape[1]}x{image.shape[0]}")
    return ms


def age_ms(image: Pixels, now_ns: int | None = None) -> float:
    """Return how long ago a picture was taken, at `now_ns` of time.monotonic_ns() (now): milliseconds."""
    now = (time.monotonic_ns() if now_ns is None else now_ns) / 1e6
    return (now - read_stamp(image) + 2**31) % 2**32 - 2**31


def _check(ms: int) -> int:
    return zlib.crc32((ms & 0xFFFFFFFF).to_bytes(4, "little")) & 0xFF


def _block(image: Pixels) -> int:
    block = min(_BLOCK, image.shape[1] // _COLUMNS, image.shape[0] // _ROWS)
    if block < 4:
        raise ValueError(f"no room for a stamp in {image.shape[1]}x{image.shape[0]}: 32x20 at least")
    return block


class MjpegCamera:
    """The camera, seen from a test: a context manager. size: (width, height)."""

    def __init__(self, fps: float = 30.0, size: tuple[int, int] = (640, 480)) -> None:
        self.fps = fps
        self.size = size
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The stream's address."""
        return self.at("stream.mjpg")

    def at(self, path: str, login: str = "") -> str:
        """Return the address of one of its paths; see _Handler.do_GET. login: "user:password", percent-encoded."""
        return f"http://{login + '@' if login else ''}127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        """Come back, on the same port as before."""
        size = "x".join(map(str, self.size))
        arguments = ["--port", str(self.port), "--fps", str(self.fps), "--size", size]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.kill()
            raise RuntimeError("the camera did not start")
        self.port = int(line)

    def kill(self) -> None:
        """Die at once: its connections break, nobody listens. Harmless twice."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()

    def stall(self) -> None:
        """Stop in the middle of a picture, with every connection open; new ones are taken, and get nothing."""
        self._say("stall")

    def resume(self) -> None:
        """Go on after `stall`."""
        self._say("resume")

    def resize(self, width: int, height: int) -> None:
        """Change the resolution in the middle of the stream."""
        self.size = (width, height)
        self._say(f"size {width}x{height}")

    def _say(self, line: str) -> None:
        """Tell the camera something; returns once it has done it."""
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def __enter__(self) -> MjpegCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class _Server(ThreadingHTTPServer):
    """The camera itself: one thread takes pictures at the rate, one a viewer sends them."""

    daemon_threads = True

    def __init__(self, port: int, fps: float, size: tuple[int, int]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.fps = fps
        self.size = size
        self.running = threading.Event()
        self.running.set()
        self._viewers = 0
        self._taken = threading.Condition()
        self._picture = b""
        self._number = 0
        threading.Thread(target=self._shoot, daemon=True).start()

    def pictures(self) -> Iterator[bytes]:
        """Yield the newest picture (JPEG), each once."""
        with self._taken:
            self._viewers += 1
            number = self._number
        try:
            while True:
                with self._taken:
                    self._taken.wait_for(lambda number=number: self._number != number)  # type: ignore[misc]
                    number, picture = self._number, self._picture
                yield picture
        finally:
            with self._taken:
                self._viewers -= 1

    def _shoot(self) -> None:
        import cv2

        scenes: dict[tuple[int, int], list[Pixels]] = {}
        due, count = time.monotonic(), 0
        while True:
            # Where it is late it leaves pictures out, as cameras do: none follows another faster than the rate.
            due += max(1, math.ceil((time.monotonic() - due) * self.fps)) / self.fps
            time.sleep(max(0.0, due - time.monotonic()))
            if not self._viewers or not self.running.is_set():
                continue
            size, count = self.size, count + 1
            views = scenes.setdefault(size, []) or scenes[size]
            if not views:
                views += _scenes(*size)
            image = views[count % len(views)]
            draw_stamp(image, time.monotonic_ns() // 1_000_000)
            _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])
            with self._taken:
                self._picture, self._number = jpeg.tobytes(), self._number + 1
                self._taken.notify_all()


def _scenes(width: int, height: int) -> list[Pixels]:
    """Return a few pictures with enough in them to make JPEGs of a usual size: 0.1 MB at 720p."""
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(1).integers(0, 12, (height, width))
    scenes = []
    for step in range(6):
        planes = [(x + 9 * step) // 4, y // 3, (x // 32 + y // 32 + step) % 2 * 90]
        scenes.append((np.stack(planes, axis=2) + grain[..., None]).clip(0, 255).astype(np.uint8))
    return scenes


class _Handler(BaseHTTPRequestHandler):
    """One viewer."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Serve any NAME.mjpg (nolength, dashes, garbage, rubbish, basic, digest), and what is no stream."""
        path = self.path.lstrip("/").partition("?")[0]
        kinds = {"page": ("text/html", _PAGE), "picture.jpg": ("image/jpeg", _PAGE), "clip.mp4": ("video/mp4", _PAGE)}
        if path in kinds:
            self._answer(200, *kinds[path])
        elif path == "silent":
            time.sleep(60)
        elif path == "moved":
            self._answer(302, "text/plain", b"", Location="/stream.mjpg")
        elif path == "basic.mjpg" and self.headers.get("Authorization") != _basic():
            self._answer(401, "text/plain", b"", **{"WWW-Authenticate": 'Basic realm="camera"'})
        elif path == "digest.mjpg" and not self._digest():
            self._answer(401, "text/plain", b"", **{"WWW-Authenticate": _DIGEST})
        elif path.endswith(".mjpg"):
            dashes = {"nolength.mjpg": "--", "dashes.mjpg": "----"}.get(path, "")
            self._stream(dashes, whole={"garbage.mjpg": 2, "rubbish.mjpg": 0}.get(path, 1))
        else:
            self._answer(404, "text/plain", b"no such path")

    def _stream(self, dashes: str, whole: int) -> None:
        """Send pictures for ever, one in `whole` of them not broken off.

        dashes: before each part, without lengths, where the boundary is said to begin with two itself.
        """
        boundary = "--pic" if dashes else "pic"
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={boundary}")
        self.send_header("Connection", "close")
        self.end_headers()
        for number, picture in enumerate(self.server.pictures()):
            if not whole or number % whole:
                picture = picture[: len(picture) // 2] + bytes(range(256)) * 8
            length = "" if dashes else f"Content-Length: {len(picture)}\r\n"
            part = f"{dashes or '--'}pic\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + picture + b"\r\n"
            half = len(part) // 2
            try:
                self.wfile.write(part[:half])
                self.server.running.wait()
                self.wfile.write(part[half:])
            except OSError:  # the viewer left
                break
        self.close_connection = True

    def _answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _digest(self) -> bool:
        """Whether the request carries the digest (RFC 7616, MD5) that user and password give."""
        kind, _, rest = self.headers.get("Authorization", "").partition(" ")
        said = dict(item.strip().split("=", 1) for item in rest.split(",")) if kind == "Digest" else {}
        said = {name: value.strip('"') for name, value in said.items()}
        secret = _md5(f"{USER}:camera:{PASSWORD}")
        middle = ":".join(said.get(name, "") for name in ("nonce", "nc", "cnonce", "qop"))
        return said.get("response") == _md5(f"{secret}:{middle}:{_md5('GET:' + self.path)}")

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def _basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main() -> None:
    """Run a camera until stdin ends; it takes "stall", "resume" and "size WxH" there, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--size", type=_size, default=(640, 480))
    arguments = parser.parse_args()
    server = _Server(arguments.port, arguments.fps, arguments.size)
    print(cast(tuple[str, int], server.server_address)[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "size":
            server.size = _size(rest)
        elif word == "stall":
            server.running.clear()
        else:
            server.running.set()
        print("done", flush=True)


if __name__ == "__main__":
    main()
