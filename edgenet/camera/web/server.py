"""The web page's server: a thread with an event loop of its own, beside the pipeline."""

from __future__ import annotations

import asyncio
import errno
import functools
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

from edgenet.camera.frame import Controls, Update
from edgenet.camera.sources.browser import MAX_JPEG_BYTES, FrameInbox
from edgenet.camera.web.broadcast import MAX_VIEWERS, Broadcast
from edgenet.camera.web.routes import InPage, Routes
from edgenet.camera.web.security import Guard, Tls, is_loopback, new_token, reachable
from edgenet.camera.web.viewers import MAX_TEXT_BYTES, Cameras
from edgenet.errors import EdgenetError, UsageError

if TYPE_CHECKING:
    import uvicorn

_PING_S, _SILENCE_S = 20.0, 40.0  # a viewer is asked so often, and closed where it keeps silent so long
_CONNECTIONS = 4 * MAX_VIEWERS  # of whatever kind, from whomever; more are dropped
_REQUEST_S = 10.0  # until a connection has asked for something
_SEND_BUFFER = 128 << 10  # bytes in the kernel: a slow MJPEG viewer sees what is that old, not what its pipe can hold
_GOODBYE_S = 0.1  # for farewells to go out
_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,128}")


class WebView:
    """The camera's page. A `Sink`: show() returns at once, whoever watches.

    host: what to listen on; anything but loopback demands a token, which is made where none is given. port: 0 chooses
    one. token: 8 letters, digits, - and _ or more. inbox: where pictures of the viewers' own cameras go; None: nowhere.
    tls: serves https. in_page: the model that runs in the page itself (LiteRT.js), on the viewer's own camera.
    cut: the model is shown a part of each picture: that comes back to whose camera it is.
    Raises UsageError for another port or token than that.
    """

    def __init__(
        self,
        controls: Controls,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        inbox: FrameInbox | None = None,
        tls: Tls | None = None,
        in_page: InPage | None = None,
        cut: bool = False,
    ) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise UsageError("that token cannot stand in an address: give 8 or more letters, digits, - and _")
        if not 0 <= port <= 65535:
            raise UsageError(f"port {port}: there are 1 to 65535, and 0 chooses one")
        self._host, self._port = host, port
        self._token = token or (None if is_loopback(host) else new_token())
        self._inbox = inbox
        self._broadcast = Broadcast(controls)
        self._tls, self._cut = tls, cut
        self.in_page = in_page or InPage()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._port

    @property
    def url(self) -> str:
        """What to open in a browser, once started; the token included."""
        return self._url(reachable(self._host))

    @property
    def local_url(self) -> str:
        """The same for this machine itself, and for a phone whose port adb made ours."""
        return self._url("127.0.0.1")

    def _url(self, host: str) -> str:
        query = f"?token={self._token}" if self._token else ""
        return f"http{'s' if self._tls else ''}://{host}:{self._port}/{query}"

    def start(self) -> None:
        """Listen and serve. Raises EdgenetError where the port is taken, or the packages are not installed."""
        try:
            import starlette  # noqa: F401
            import uvicorn  # noqa: F401
            import websockets  # noqa: F401
        except ImportError as exc:
            raise EdgenetError(f'the web page needs {exc.name}: pip install "edgenet[camera]"') from exc
        door = self._listen()
        self._port = int(door.getsockname()[1])
        self._thread = threading.Thread(target=self._run, args=(door,), name="edgenet-web", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise EdgenetError(f"the web page's server does not start: {self._failure}") from self._failure

    def show(self, update: Update) -> None:
        """Keep the newest update for whoever is ready for it."""
        self._broadcast.publish(update)

    def notice(self, text: str) -> None:
        """Show a line on the page for a moment."""
        self._broadcast.notice(text)

    @property
    def watched(self) -> threading.Event:
        """Set once anybody watches."""
        return self._broadcast.watched

    def end(self) -> None:
        """Let viewers know as it closes that all was shown: nobody waits for more."""
        self._broadcast.all_shown = True

    def close(self) -> None:
        """Say goodbye to the viewers and end, in less than a second; harmless twice."""
        if self._thread is None or self._loop is None or self._ended is None:
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(5)
        self._thread = None

    def _listen(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
        except (OSError, OverflowError) as exc:
            raise EdgenetError(f"{self._host}: no address to listen on ({exc}); try --host 127.0.0.1") from exc
        door = socket.socket(family, kind, protocol)
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # connections inherit it
            door.bind(address)
            door.listen(128)
        except (OSError, OverflowError) as exc:
            door.close()
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            if isinstance(exc, OSError) and exc.errno == errno.EADDRNOTAVAIL:
                raise EdgenetError(
                    f"cannot listen on {self._host} ({why}); give --host an address of this machine, or 0.0.0.0"
                ) from exc
            raise EdgenetError(
                f"cannot listen on {self._host}:{self._port} ({why}); choose another with --port"
            ) from exc
        return door

    def _run(self, door: socket.socket) -> None:
        try:
            asyncio.run(self._serve(door))
        except BaseException as exc:  # noqa: BLE001 - told to whoever waits in start()
            self._failure = exc
        finally:
            door.close()
            self._ready.set()

    async def _serve(self, door: socket.socket) -> None:
        server = self._server()
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        if self._tls:  # uvicorn has no option for it: a minute, in which anybody may open any number
            create = functools.partial(self._loop.create_server, ssl_handshake_timeout=_REQUEST_S)
            self._loop.create_server = create  # type: ignore[method-assign]
        self._broadcast.open()
        serving = asyncio.create_task(server.serve(sockets=[door]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        self._ready.set()
        ending = asyncio.create_task(self._ended.wait())
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        await self._broadcast.close()
        server.should_exit = True
        await asyncio.wait({serving}, timeout=2 * _GOODBYE_S)
        for connection in list(server.server_state.connections):  # whoever does not listen to goodbyes
            connection.transport.abort()
        await asyncio.wait({serving}, timeout=_GOODBYE_S)
        if serving.done():
            await serving  # what it raised, if anything
        serving.cancel()  # from Python 3.12 on it would wait for who has not even greeted in TLS

    def _server(self) -> uvicorn.Server:
        import uvicorn

        routes = Routes(self._broadcast, Cameras(self._inbox), self.in_page, self._cut)
        config = uvicorn.Config(
            Guard(routes.application(), self._host, self._port, self._token),
            loop="asyncio",
            http=_bounded_http(),
            ws=_bounded_websocket(),
            ws_max_size=MAX_JPEG_BYTES if self._inbox else MAX_TEXT_BYTES,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_SILENCE_S,
            ws_per_message_deflate=False,  # pictures do not shrink, and what grows when unpacked is not wanted
            ssl_certfile=self._tls.certificate if self._tls else None,
            ssl_keyfile=self._tls.key if self._tls else None,
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        return uvicorn.Server(config)


def _bounded_http() -> type[Any]:
    """Return uvicorn's HTTP protocol, which by itself lets anybody open any number of connections and say nothing."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class BoundedHttp(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._answered: object = None  # the request that was answered already when this was looked at last
            if len(self.connections) > _CONNECTIONS:
                transport.abort()
            else:
                self.loop.call_later(_REQUEST_S, self._hurry)

        def _hurry(self) -> None:
            """End a connection that asks for nothing, or for nothing more; another look at it follows."""
            if self not in self.connections:  # it has ended, or is a WebSocket now
                return
            answered = self.cycle if self.cycle is not None and self.cycle.response_complete else None
            if self.cycle is None or (answered is not None and answered is self._answered):
                self.transport.abort()
                return
            self._answered = answered
            self.loop.call_later(_REQUEST_S, self._hurry)

    return BoundedHttp


def _bounded_websocket() -> type[Any]:
    """Return uvicorn's WebSocket protocol, which by itself answers pings into memory where nobody reads the answers."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    class BoundedWebSocket(WebSocketsSansIOProtocol):
        def handle_ping(self) -> None:
            if self.transport.get_write_buffer_size() > MAX_JPEG_BYTES:
                self.transport.abort()
            else:
                super().handle_ping()

    return BoundedWebSocket
