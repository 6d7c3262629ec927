"""Who may talk to the web page: hosts, origins, the token, and the headers that keep browsers strict.

Two ways in, two dangers. On loopback there is no token: any page in the user's own browser could reach us, by a name of
its own that it points here (DNS rebinding) or by opening our socket; so the Host header must be a loopback name, and a
WebSocket's Origin must be our own. On any other address everybody in the network can reach us: they need the token.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from edgenet.errors import EdgenetError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

# Nothing comes from elsewhere, nothing is evaluated but WebAssembly, and nobody frames the page.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",  # no other page shows /stream.mjpg
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",  # the address has the token
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate, its chain included, and its private key: PEM files. Raises EdgenetError where they are no pair."""

    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        for file in (self.certificate, self.key):
            try:
                file.open("rb").close()
            except OSError as exc:
                raise EdgenetError(f"{file}: {exc.strerror}; give a PEM file") from exc
        try:  # a key that wants a password fails here: nobody is asked for one
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (ssl.SSLError, ValueError) as exc:
            why = getattr(exc, "reason", None) or "not PEM, or the key wants a password"
            raise EdgenetError(
                f"{self.certificate} and {self.key} are no certificate and its key ({why}); make a pair: openssl req "
                "-x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=edgenet -keyout key.pem -out cert.pem"
            ) from exc


def new_token() -> str:
    """Make a token that nobody guesses: 128 bits, safe in an address."""
    return secrets.token_urlsafe(16)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reachable(host: str) -> str:
    """Return a name for an address to print: of "every address" (0.0.0.0, ::) the one that other machines use."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return f"[{host}]" if address.version == 6 else host
    family, away = (socket.AF_INET, "192.0.2.1") if address.version == 4 else (socket.AF_INET6, "2001:db8::1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((away, 9))  # nothing is sent: the kernel only chooses the way, and so our address on it
            found = str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
    return f"[{found}]" if address.version == 6 else found


class Guard:
    """Stands before every route and socket; what it refuses, the application never sees.

    host: what the server listens on. port: names the cookie, since cookies do not tell ports apart; so does TLS, as
    browsers keep one of TLS from being replaced without. token: None where none is needed. Refused is answered with
    403, a socket before it opens.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._cookie = f"edgenet_{port}"
        self._hosts = _LOOPBACK_NAMES | {reachable(host)} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("token")
        headers = dict(HEADERS)
        secure = scope["scheme"] in ("https", "wss")
        name = f"{self._cookie}_tls" if secure else self._cookie
        if self._token and query:  # if it is right, the cookie speaks from now on, also for what the page fetches
            headers["set-cookie"] = f"{name}={query[0]}; Path=/; HttpOnly; SameSite=Strict"
            if secure:
                headers["set-cookie"] += "; Secure"
        refusal = self._refusal(scope["type"], given, query[0] if query else _cookie(given.get("cookie", ""), name))
        if refusal:
            await _refuse(scope, send, refusal)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _adding(headers, send))

    def _refusal(self, kind: str, given: Mapping[str, str], token: str) -> str:
        host = given.get("host", "").lower()
        name = host.rsplit(":", 1)[0] if host.rsplit(":", 1)[-1].isdigit() else host
        if self._hosts is not None and name not in self._hosts:
            return "this server answers this machine alone: open http://127.0.0.1 and its port"
        origin = given.get("origin")
        if kind == "websocket" and origin is not None and origin.lower().partition("://")[2] != host:
            return "a page of another origin may not open this socket"
        if self._token is not None and not secrets.compare_digest(  # in constant time
            token.encode("utf-8", "surrogateescape"), self._token
        ):
            return "the token is wrong or missing: open the address that edgenet printed, with its ?token=..."
        return ""


def _cookie(header: str, name: str) -> str:
    """Return a cookie, whatever stands beside it: other servers of this machine set theirs for the same host."""
    from starlette.requests import cookie_parser

    return cookie_parser(header).get(name, "")


async def _refuse(scope: Scope, send: Send, why: str) -> None:
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    headers: Iterable[tuple[str, str]] = (*HEADERS.items(), ("content-type", "text/plain; charset=utf-8"))
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": f"{kind}.start", "status": 403, "headers": encoded})
    await send({"type": f"{kind}.body", "body": why.encode() + b"\n"})


def _adding(headers: Mapping[str, str], send: Send) -> Send:
    """Add headers to a response, unless it has them."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in headers.items() if name.encode() not in there]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return adding
