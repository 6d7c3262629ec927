"""RTSP and other streams, by the FFMPEG inside OpenCV."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from edgenet.camera.opencv import environment, opencv, to_bgr
from edgenet.camera.sources.address import TIMEOUT_S, Address, Peers, hang_up, login_refused, no_such_path, unreachable
from edgenet.camera.sources.live import Lost, Shot

# Without nobuffer and fpsprobesize a stream begins with what was read to guess its rate, or loses its first key frame
# to that: a second or two, either way. RTSP over TCP, because a lost UDP packet smears the picture until the next one.
_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|fpsprobesize;0"

# Cameras send a key frame every 1 to 10 s; nothing can be shown before it. A capture whose read ran into its timeout
# never recovers, and the timeout cannot be changed later: so it is this one, and LiveSource interrupts what stalls.
_FIRST_PICTURE_S = 12.0


class FfmpegCamera:
    """A Camera; see live_source."""

    patience_s = _FIRST_PICTURE_S + 1
    waits_s = 0.0

    def __init__(self, address: Address) -> None:
        self.title = address.shown
        self._address = address
        self._peers: Peers = frozenset()
        self._capture: Any = None
        self._seen = False  # a picture since `open`
        self._interrupted = False

    def open(self) -> None:
        """Connect, and wait until FFMPEG knows what the stream is."""
        cv2 = opencv()
        self._interrupted = self._seen = False
        try:
            self._peers = self._address.peers()
            if self._address.scheme in ("rtsp", "rtsps", "rtmp"):
                self._knock()
        except OSError as exc:
            raise unreachable(exc) from exc
        with environment(OPENCV_FFMPEG_CAPTURE_OPTIONS=_OPTIONS, OPENCV_FFMPEG_LOGLEVEL="-8"):
            patience_ms = int(_FIRST_PICTURE_S * 1000)
            settings = [
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience_ms),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience_ms),
                *(cv2.CAP_PROP_N_THREADS, 1),  # each further one delays every picture by one more
            ]
            self._capture = cv2.VideoCapture(self._address.full, cv2.CAP_FFMPEG, settings)
        if not self._capture.isOpened():
            raise self._refusal()

    def read(self) -> Shot:
        """Wait for the next picture, decode it."""
        if self._capture is None:
            raise Lost("the connection is closed")
        while True:
            began = time.monotonic()
            if not self._capture.grab():
                raise Lost("the stream ended")
            if not self._seen or time.monotonic() - began < TIMEOUT_S:
                return self._shot()
            # After a pause comes first what the decoder still held: as old as the pause.

    def _shot(self) -> Shot:
        captured_ns = time.monotonic_ns()
        done, image = self._capture.retrieve()
        if not done:
            raise Lost("the stream cannot be decoded")
        self._seen = True
        return Shot(captured_ns, to_bgr(image))

    def interrupt(self) -> None:
        """End an open or a read that waits."""
        self._interrupted = True
        hang_up(self._peers)

    def close(self) -> None:
        """Hang up."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _knock(self) -> None:
        """See whether somebody is there, and speaks RTSP if that was asked: FFMPEG gives no reasons, and waits long."""
        request = f"OPTIONS {self._address.plain} RTSP/1.0\r\nCSeq: 1\r\n\r\n" if self._address.scheme == "rtsp" else ""
        with self._connect() as connection:
            if request:
                connection.sendall(request.encode())
                if not connection.recv(64).startswith(b"RTSP/"):
                    raise Lost("what answers there is no RTSP server", "check the port; RTSP's own is 554")

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._address.host, self._address.port), timeout=TIMEOUT_S)

    def _refusal(self) -> Lost:
        """Find out why FFMPEG did not open it."""
        code = 0
        try:
            if self._address.scheme == "rtsp" and not self._interrupted:
                code = self._describe()
            elif self._address.scheme == "tcp":
                self._connect().close()
        except OSError as exc:
            return unreachable(exc)
        if code == 404:
            return no_such_path()
        if code in (401, 403) and self._address.user is None:
            return login_refused(self._address)
        if code in (401, 403):
            return Lost("refuses this user name and password, or has no such path", "check the three of them")
        if code >= 400:
            return Lost(f"it answers RTSP {code}", "is its camera connected, or in use by another viewer?")
        if self._address.scheme == "srt":
            relay = "ffmpeg -i ADDRESS -c copy -f mpegts udp://127.0.0.1:9000 and --source udp://127.0.0.1:9000"
            return Lost("gives no stream, or this OpenCV was built without SRT, as pip's is", f"then relay it: {relay}")
        return Lost("gives no stream that can be decoded", "try it with: ffplay ADDRESS")

    def _describe(self) -> int:
        """Return the status with which an RTSP server answers DESCRIBE, asked without login. Raises OSError."""
        request = f"DESCRIBE {self._address.plain} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
        with self._connect() as connection:
            connection.sendall(request.encode())
            status = re.match(rb"RTSP/1\.\d (\d{3})", connection.recv(64))
        return int(status[1]) if status else 0
