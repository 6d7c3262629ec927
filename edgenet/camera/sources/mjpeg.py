"""MJPEG over HTTP: the parts of a multipart/x-mixed-replace answer, one JPEG each.

Read by ourselves and not by FFMPEG: a picture's time is that of its last byte, before decoding; a new resolution is
taken as it comes (OpenCV would squeeze it into the first one's); only the newest picture is decoded; and what goes
wrong has a reason. The thread that reads is in Python alone, so nothing waits for it.

A camera that is silent for 2 s is left and asked again, and then given twice as long each time: some need long for
their first picture. So is one that takes long from picture to picture, and none is left while a picture's bytes come.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any, Protocol, cast

from edgenet.camera.sources.address import TIMEOUT_S, Address, Peers, hang_up, login_refused, no_such_path, unreachable
from edgenet.camera.sources.live import SLACK_S, Lost, Shot

_MAX_LINE = 8192
_MAX_PICTURE = 64 << 20  # bytes
_PIECE = 1 << 16
_MOST_S = 16.0  # of silence
_LONGEST_S = 30.0  # from the first to the last byte of a picture


class OtherContentError(Lost):
    """It answers, but not with MJPEG. kind: its content type. bounded: it says how long it is, as a file does."""

    def __init__(self, kind: str, bounded: bool) -> None:
        super().__init__(f"it sends {kind}, not MJPEG")
        self.kind = kind
        self.bounded = bounded


class _Asked(urllib.request.BaseHandler):
    """Closes the answer that asks for a login, before the handlers that log in: they forget it."""

    handler_order = 100  # theirs is 490 and 500

    def http_error_401(self, _: object, answer: IO[bytes], *__: object) -> None:
        answer.close()


class HttpCamera:
    """A Camera; see live_source. `open` raises OtherContentError for what is no MJPEG."""

    def __init__(self, address: Address) -> None:
        self.title = address.shown
        self.waits_s = TIMEOUT_S
        self._address = address
        self._peers: Peers = frozenset()
        self._answer: http.client.HTTPResponse | None = None
        self._parts: _Parts | None = None
        self._since = 0.0  # time.monotonic() of `open`, or of the last picture
        self._seen = False  # a picture since `open`

    @property
    def patience_s(self) -> float:
        """How long the first picture may take: longer each time that it was waited for in vain."""
        return self.waits_s + SLACK_S

    def open(self) -> None:
        """Ask for the stream."""
        self._answer = answer = self._ask()
        self._since, self._seen = time.monotonic(), False
        try:
            self._parts = _Parts(answer, _boundary(answer.headers))
        except (OSError, ValueError, http.client.HTTPException) as exc:  # ValueError: a boundary without end
            raise self._broken(exc) from exc

    def read(self) -> Shot:
        """Wait for the next picture, undecoded."""
        if not self._parts or not self._answer:
            raise Lost("the connection is closed")
        try:
            if self._answer.fp:  # urllib keeps the socket to itself
                cast(Any, self._answer.fp).raw._sock.settimeout(self.waits_s)
            picture = self._parts.picture(self.waits_s)
        except (OSError, ValueError, http.client.HTTPException) as exc:  # ValueError: closed, or a senseless length
            raise self._broken(exc) from exc
        now_ns = time.monotonic_ns()
        if self._seen:
            self.waits_s = min(_MOST_S, max(TIMEOUT_S, 2 * (now_ns / 1e9 - self._since)))
        self._since, self._seen = now_ns / 1e9, True
        return Shot(now_ns, None, picture)

    def interrupt(self) -> None:
        """End a read that waits."""
        hang_up(self._peers)

    def close(self) -> None:
        """Hang up."""
        answer, self._answer, self._parts = self._answer, None, None
        if answer:
            answer.close()

    def _ask(self) -> http.client.HTTPResponse:
        """Send the request, with the login the camera asks for. Cameras are near: proxies are not asked."""
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self._address.user is not None:
            passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            passwords.add_password(None, self._address.plain, self._address.user, self._address.password)
            basic, digest = urllib.request.HTTPBasicAuthHandler, urllib.request.HTTPDigestAuthHandler
            handlers += [_Asked(), basic(passwords), digest(passwords)]
        opener = urllib.request.build_opener(*handlers)
        try:
            self._peers = self._address.peers()
            answer: http.client.HTTPResponse = opener.open(self._address.plain, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as exc:
            exc.close()
            raise self._refused(exc.code) from exc
        except urllib.error.URLError as exc:
            raise unreachable(exc.reason if isinstance(exc.reason, OSError) else OSError(str(exc.reason))) from exc
        except OSError as exc:
            raise unreachable(exc) from exc
        except http.client.HTTPException as exc:
            raise Lost(f"its answer is not understood ({type(exc).__name__})", "is this a camera's address?") from exc
        except ValueError as exc:
            raise Lost("asks for a login that is neither Basic nor Digest", "choose one of them in the camera") from exc
        return answer

    def _broken(self, exc: Exception) -> Lost:
        if isinstance(exc, TimeoutError):
            self.waits_s = min(_MOST_S, 2 * self.waits_s)
            return Lost(f"no whole picture for {time.monotonic() - self._since:.0f} s")
        if isinstance(exc, (ConnectionError, http.client.IncompleteRead)):
            return Lost("the connection ended", "is it on?")
        return Lost("what it sends is no MJPEG", "is this a camera's address?")

    def _refused(self, code: int) -> Lost:
        if code in (401, 403):
            return login_refused(self._address)
        if code in (404, 410):
            return no_such_path()
        return Lost(f"it answers HTTP {code}", "is another viewer using it? Is it starting?")


class _Bytes(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _Parts:
    """The parts of a multipart answer.

    Lengths are optional: without one, a part ends where the next boundary begins. Boundaries are compared without their
    leading dashes, of which cameras have any number.
    """

    def __init__(self, stream: _Bytes, boundary: bytes | None) -> None:
        self._stream = stream
        self._held = bytearray()
        self._deadline = time.monotonic() + TIMEOUT_S
        self._boundary = boundary or self._first_line()

    def picture(self, within_s: float) -> bytes:
        """Return the next picture, which begins within so long. Raises OSError (TimeoutError); ValueError for junk."""
        begun = time.monotonic() + within_s
        while True:
            self._deadline = begun
            while not self._line().lstrip(b"-").startswith(self._boundary):
                pass
            headers = self._headers()
            self._deadline = time.monotonic() + _LONGEST_S
            length = headers.get(b"content-length", b"")
            part = self._exactly(int(length)) if length.isdigit() and int(length) else self._until_boundary()
            if part and headers.get(b"content-type", b"image/").lower().startswith(b"image/"):
                return part

    def _headers(self) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = {}
        for _ in range(100):
            line = self._line()
            if not line:
                return headers
            name, value = line.split(b":", 1) if b":" in line else (line, b"")
            headers[name.strip().lower()] = value.strip()
        raise ValueError("no end of headers")

    def _first_line(self) -> bytes:
        """Return the boundary that the stream itself begins with. Raises OtherContentError where it does not."""
        while len(self._held) < 2:
            self._fill()
        if not self._held.startswith(b"--"):
            raise OtherContentError("application/octet-stream", bounded=False)
        end = -1
        while (end := self._held.find(b"\n")) < 0:
            self._fill(_MAX_LINE)
        return bytes(self._held[:end]).strip().lstrip(b"-")

    def _line(self) -> bytes:
        while (end := self._held.find(b"\n")) < 0:
            self._fill(_MAX_LINE)
        line = bytes(self._held[:end]).strip()
        del self._held[: end + 1]
        return line

    def _exactly(self, length: int) -> bytes:
        if length > _MAX_PICTURE:
            raise ValueError("a picture of senseless length")
        while len(self._held) < length:
            self._fill(_MAX_PICTURE)
        part = bytes(self._held[:length])
        del self._held[:length]
        return part

    def _until_boundary(self) -> bytes:
        start = 0
        while True:
            at = self._held.find(self._boundary, start)
            if at < 0:
                start = max(0, len(self._held) - len(self._boundary))
                self._fill(_MAX_PICTURE)
                continue
            end = len(self._held[:at].rstrip(b"-")) if self._held[at - 1 : at] == b"-" else at
            if end < at and self._held[end - 1 : end] == b"\n":
                part = bytes(self._held[:end])
                del self._held[:end]  # the boundary stays for the next part
                return part
            start = at + 1

    def _fill(self, limit: int = _MAX_LINE) -> None:
        """Read what has arrived, at least one byte."""
        if len(self._held) > limit:
            raise ValueError("no end of a line or picture")
        piece = self._stream.read1(_PIECE)
        if not piece:
            raise ConnectionAbortedError
        self._held += piece
        if time.monotonic() > self._deadline:  # it trickles
            raise TimeoutError


def _boundary(headers: Message) -> bytes | None:
    """Return what separates the parts, without dashes; None where the stream itself says. Raises OtherContentError."""
    kind = headers.get_content_type() if "Content-Type" in headers else "application/octet-stream"
    if kind.startswith("multipart/"):
        boundary = headers.get_boundary("")
        return boundary.lstrip("-").encode("latin-1") or None
    if kind == "application/octet-stream":
        return None
    raise OtherContentError(kind, bounded="Content-Length" in headers)
