"""The address of a camera: taken apart, shown without its password, and why it cannot be reached."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import string
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from edgenet.camera.sources.live import Lost
from edgenet.errors import SourceError

TIMEOUT_S = 2.0  # for whatever a camera shall answer

Peers: TypeAlias = frozenset[tuple[object, ...]]

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935}


@dataclass(frozen=True, slots=True)
class Address:
    """A camera's address.

    Attributes:
        shown: what people may read: without user, password and query, which often holds another password.
        plain: the address without user and password, as it is sent. full: with both, as given.
    """

    scheme: str
    host: str
    port: int
    shown: str
    plain: str = field(repr=False)
    full: str = field(repr=False)
    user: str | None = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Take an address apart. Raises SourceError, without the text itself, where it is none."""
        try:
            parts = urlsplit(text)
            port = parts.port or _PORTS.get(parts.scheme, 0)
            host = parts.hostname or ""
        except ValueError as exc:
            raise SourceError("this address cannot be read; write it as rtsp://HOST:PORT/PATH") from exc
        needs_port = parts.scheme in ("tcp", "udp", "srt")
        if not text.isprintable() or " " in text or (needs_port and not port) or not (host or parts.scheme == "udp"):
            example = f"{parts.scheme}://HOST:PORT" + ("" if needs_port else "/PATH")
            raise SourceError(f"this {parts.scheme} address names no host or port; write it as {example}")
        bare = parts.netloc.rpartition("@")[2]
        # rtsp://USER:12/34@HOST: what seems host and path may be a password with a / in it.
        where = "..." if "@" in parts.path and ":" in parts.netloc and bare == parts.netloc else f"{bare}{parts.path}"
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port,
            shown=f"{parts.scheme}://{where}" + ("?..." if parts.query else ""),
            plain=urlunsplit((parts.scheme, bare, _in_ascii(parts.path), _in_ascii(parts.query), "")),
            full=text,
            user=None if parts.username is None else unquote(parts.username),
            password=unquote(parts.password or ""),
        )

    def peers(self) -> Peers:
        """Return what connections to this address are connected to. Raises OSError where its name is unknown."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM) if self.host else []
        except UnicodeError as exc:  # a part of its name is empty, or too long
            raise socket.gaierror(socket.EAI_NONAME, str(exc)) from exc
        return frozenset(info[4][:2] for info in found)


def _in_ascii(text: str) -> str:
    """Write other letters as %C3%B6, as browsers do; what is written so already stays."""
    return quote(text, safe=string.punctuation)


def hang_up(peers: Peers) -> None:
    """Shut our connections to `peers` down: whoever waits for bytes there, in FFMPEG too, gets an end at once.

    FFMPEG cannot be told to stop waiting, and closing a capture that another thread reads crashes; but its socket is
    one of this process's files. Where the system does not list those (Windows) the timeouts must do.
    """
    with suppress(OSError):
        ours = Path("/proc/self/fd")
        for file in list((ours if ours.is_dir() else Path("/dev/fd")).iterdir()):
            _shut(int(file.name), peers)


def _shut(descriptor: int, peers: Peers) -> None:
    with suppress(OSError):  # closed meanwhile, or not connected
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.getpeername()[:2] in peers:
                connection.shutdown(socket.SHUT_RDWR)


def unreachable(exc: OSError) -> Lost:
    """Say why a connection failed, and what to do."""
    if isinstance(exc, socket.gaierror):
        return Lost("no such host", "check its name, or give its number")
    if isinstance(exc, TimeoutError):
        return Lost(f"no answer in {TIMEOUT_S:g} s", "is it on, and in this network?")
    if isinstance(exc, ConnectionRefusedError):
        return Lost("nobody listens there (connection refused)", "is it on, and is the port right?")
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Lost("its certificate is not trusted", "use http://, or name the certificate in SSL_CERT_FILE")
    if isinstance(exc, ssl.SSLError):
        return Lost("it does not speak TLS there", "use http:// or rtsp://, or another port")
    if isinstance(exc, ConnectionError):
        return Lost("the connection broke", "is it on?")
    return Lost(f"cannot be reached ({exc.strerror or type(exc).__name__})", "check the address and the network")


def login_refused(address: Address) -> Lost:
    """Say that user and password are missing or wrong."""
    if address.user is None:
        where = urlsplit(address.plain).netloc
        cure = f"give them: {address.scheme}://USER:PASSWORD@{where}/..., with @ : / written %40 %3A %2F"
        return Lost("wants a user name and a password", cure)
    return Lost("refuses this user name and password", "check them; @ : / in them are written %40 %3A %2F")


def no_such_path() -> Lost:
    """Say that the host is right and the path is not."""
    return Lost("there is no such path on it", "the stream's path is in the camera's manual or on its web page")
