"""MJPEG over HTTP: the parts of a multipart/x-mixed-replace answer, one JPEG each.

Read by ourselves and not by FFMPEG: a picture's time is that of its last byte, before decoding; a new resolution is
taken as it comes (OpenCV would squeeze it into the first one's); only the newest picture is decoded; and what goes
wrong has a reason. The thread that reads is in Python alone, so nothing waits for it.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Protocol

from edgenet.camera.address import TIMEOUT_S, Address, Peers, hang_up, login_refused, no_such_path, unreachable
from edgenet.camera.live_source import STALLED_S, Lost, Shot

_MAX_LINE = 8192
_MAX_PICTURE = 64 << 20  # bytes
_PIECE = 1 << 16


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

    patience_s = STALLED_S

    def __init__(self, address: Address) -> None:
        self.title = address.shown
        self._address = address
        self._peers: Peers = frozenset()
        self._answer: http.client.HTTPResponse | None = None
        self._parts: _Parts | None = None

    def open(self) -> None:
        """Ask for the stream."""
        self._answer = answer = self._ask()
        try:
            self._parts = _Parts(answer, _boundary(answer.headers))
        except (OSError, http.client.HTTPException) as exc:
            raise _broken(exc) from exc

    def read(self) -> Shot:
        """Wait for the next picture, undecoded."""
        if not self._parts:
            raise Lost("the connection is closed")
        try:
            picture = self._parts.picture()
        except (OSError, ValueError, http.client.HTTPException) as exc:  # ValueError: closed, or a senseless length
            raise _broken(exc) from exc
        return Shot(time.monotonic_ns(), None, picture)

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

    def picture(self) -> bytes:
        """Return the next picture. Raises OSError (TimeoutError after TIMEOUT_S); ValueError for junk."""
        self._deadline = time.monotonic() + TIMEOUT_S
        while True:
            while not self._line().lstrip(b"-").startswith(self._boundary):
                pass
            headers = self._headers()
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


def _broken(exc: Exception) -> Lost:
    if isinstance(exc, TimeoutError):
        return Lost(f"no whole picture for {TIMEOUT_S:g} s")
    if isinstance(exc, (ConnectionError, http.client.IncompleteRead)):
        return Lost("the connection ended", "is it on?")
    return Lost("what it sends is no MJPEG", "is this a camera's address?")
