"""Who may talk to the page: tokens, hosts, origins; and what nobody may send."""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Controls
from edgenet.camera.sources.browser import BrowserSource
from edgenet.camera.web import security, server
from edgenet.camera.web.routes import page_files
from edgenet.camera.web.security import Tls
from edgenet.camera.web.server import WebView
from edgenet.errors import UsageError

from .browser import drain, eventually, get, own_certificate, plain, unpack, update

ROUTES = ("", "config.json", "model.tflite", "healthz", "stats.json", "stream.mjpg", "page/page.js", "nothing", "ws")
TOKEN = "a-token-of-a-test"


@pytest.fixture(scope="module")
def view() -> Iterator[WebView]:
    running = WebView(Controls())
    running.start()
    yield running
    running.close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[WebView]:
    running = WebView(Controls(), host="0.0.0.0", token=TOKEN)
    running.start()
    yield running
    running.close()


def at(view: WebView, path: str = "", scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{view.port}/{path}"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("query", "cookie"),
    [
        ("", ""),
        ("?token=", ""),
        ("?token=wrong", ""),
        (f"?token={TOKEN}x", ""),
        (f"?token={TOKEN[:-1]}", ""),
        ("?token=%ff%00", ""),
        (f"?token=wrong&token={TOKEN}", ""),
        (f"?Token={TOKEN}", ""),
        ("", "wrong"),
        ("?token=wrong", TOKEN),
        ("", f'"{TOKEN}'),
    ],
)
def test_every_route_demands_the_token(guarded: WebView, path: str, query: str, cookie: str) -> None:
    headers = {"Cookie": f"edgenet_{guarded.port}={cookie}"} if cookie else {}
    status, given, body = get(at(guarded, path + query), headers)
    assert status == 403
    assert b"the token is wrong or missing" in body
    assert "set-cookie" not in given


@pytest.mark.parametrize("address", ["ws", "ws?token=wrong"])
def test_a_socket_without_the_token_never_opens(guarded: WebView, address: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(at(guarded, address, "ws")):
        pass
    assert refused.value.response.status_code == 403
    assert json.loads(get(at(guarded, f"stats.json?token={TOKEN}"))[2])["viewers"] == 0


def test_the_token_in_the_address_is_a_cookie_from_then_on(guarded: WebView) -> None:
    status, headers, _ = get(at(guarded, f"?token={TOKEN}"))
    assert status == 200
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert cookie == f"edgenet_{guarded.port}={TOKEN}"  # cookies do not tell ports apart: their names do
    for path in ("", "page/page.js", "config.json"):
        assert get(at(guarded, path), {"Cookie": f"other=1; {cookie}"})[0] == 200
    for beside in ('other={"a": 1}', "other=a b", "other"):  # another server's on this host, as browsers take them
        assert get(at(guarded, "healthz"), {"Cookie": f"{beside}; {cookie}"})[0] == 200
    guarded.show(update(0, plain(0, 0, 0)))
    for address, more in ((f"ws?token={TOKEN}", {}), ("ws", {"Cookie": cookie})):
        with connect(at(guarded, address, "ws"), additional_headers=more) as viewer:
            message = viewer.recv(5)
            assert isinstance(message, bytes)
            assert unpack(message)[0]["frame"] == 0


def test_tokens_are_compared_in_constant_time(guarded: WebView, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def spy(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return secrets.compare_digest(one, other)

    monkeypatch.setattr(security, "secrets", type("Spy", (), {"compare_digest": staticmethod(spy)}))
    assert get(at(guarded, "?token=wrong"))[0] == 403
    assert get(at(guarded, f"?token={TOKEN}"))[0] == 200
    assert compared == [b"wrong", TOKEN.encode()]


def test_any_host_but_loopback_gets_a_token_and_loopback_none() -> None:
    for host, needed in (("127.0.0.1", False), ("localhost", False), ("::1", False), ("127.8.8.8", False)):
        assert ("token=" in WebView(Controls(), host=host).url) is needed
    addresses = [
        WebView(Controls(), host=host).url for host in ("0.0.0.0", "::", "192.168.1.5", "board.local", "0.0.0.0")
    ]
    tokens = [address.rpartition("?token=")[2] for address in addresses]
    assert all(len(token) >= 22 for token in tokens)
    assert len(set(tokens)) == len(tokens)
    assert "0.0.0.0" not in addresses[0]  # what other machines use
    assert addresses[2].startswith("http://192.168.1.5:")
    assert "?token=12345678" in WebView(Controls(), token="12345678").url
    for bad in ("", "short", "with space", "a;b=c;d=e", "ü" * 10):
        with pytest.raises(UsageError, match="token"):
            WebView(Controls(), token=bad)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil:1", ""]
)
def test_on_loopback_other_names_are_refused(view: WebView, path: str, host: str) -> None:
    status, _, body = get(at(view, path), {"Host": host.format(port=view.port)})
    assert status == 403  # a page whose name was pointed here (DNS rebinding) reads nothing
    assert b"this machine alone" in body


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}", "localhost:9"]
)
def test_loopbacks_own_names_are_answered_on_any_port(view: WebView, host: str) -> None:
    assert get(at(view), {"Host": host.format(port=view.port)})[0] == 200  # a tunnel has a port of its own


@pytest.mark.parametrize(
    ("origin", "opens"),
    [
        ("http://127.0.0.1:{port}", True),
        (None, True),  # no browser
        ("https://127.0.0.1:{port}", True),  # behind something that speaks TLS
        ("http://evil.example", False),
        ("http://127.0.0.1:1", False),
        ("http://127.0.0.1", False),
        ("http://localhost:{port}", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_a_socket_opens_for_our_own_page_alone(view: WebView, origin: str | None, opens: bool) -> None:
    more = {} if origin is None else {"Origin": origin.format(port=view.port)}
    if opens:
        with connect(at(view, "ws", "ws"), additional_headers=more):
            return
    with pytest.raises(InvalidStatus) as refused, connect(at(view, "ws", "ws"), additional_headers=more):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", [*ROUTES[:5], "page/page.js", "nothing", "page/nothing"])
def test_every_answer_has_the_strict_headers(view: WebView, path: str) -> None:
    for host in ("127.0.0.1", "evil.example"):
        _, headers, _ = get(at(view, path), {"Host": host})
        assert security.HEADERS.items() <= headers.items()
    policy = security.HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert not {"*", "http:", "https:", "'unsafe-inline'", "'unsafe-eval'", "data:"} & set(
        policy.replace(";", " ").split()
    )


@pytest.mark.parametrize(
    "path",
    [
        "page/../server.py", "page/..%2fserver.py", "page/%2e%2e/server.py", "page/....//server.py", "../../etc/passwd",
        "page//etc/passwd", "page/%2fetc%2fpasswd", "page/..\\server.py", "page/litert/../../server.py", "page/",
        "page/litert", "page/page.js%00", "page/./page.js",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(view: WebView, path: str) -> None:
    with socket.create_connection(("127.0.0.1", view.port)) as plug:  # clients mend such paths before they ask
        plug.sendall(f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: plug.recv(65536), b""))
    assert answer.split(b"\r\n")[0].split()[1] in (b"404", b"400")


def test_only_what_lies_in_the_page_is_served() -> None:
    folder = Path(server.__file__).with_name("page")
    files = page_files()
    assert {"index.html", "page.js", "litert/litert.js", "litert/litert_wasm_internal.wasm"} <= set(files)
    assert all(folder in file.parents and file.resolve() == file for file in files.values())


def answer_to(view: WebView, data: bytes, opcode: int, length: int | None = None) -> bytes:
    """Send one frame (masked with zeros) on a socket opened by hand; all that comes back. length: what it claims."""
    size = len(data) if length is None else length
    with socket.create_connection(("127.0.0.1", view.port)) as plug:
        head = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        plug.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
        answer = plug.recv(65536)
        with suppress(OSError):
            plug.sendall(struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size) + bytes(4) + data)
        answer += drain(plug, 10)
    return answer.partition(b"\r\n\r\n")[2]


def closing_code(answer: bytes) -> int:
    at = answer.index(b"\x88")
    return int.from_bytes(answer[at + 2 : at + 4], "big")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("garbage", 1008),
        ("", 1008),
        ("[]", 1008),
        ("null", 1008),
        ("1e999", 1008),
        ('{"do": "quit"}', 1008),
        ('{"do": "__init__"}', 1008),
        ('{"do": ["ack"]}', 1008),
        ("[" * 4000, 1008),
        ('{"do": "ack", "pad": "' + "x" * 5000 + '"}', 1009),
        ("x" * (5 << 20), 1009),
    ],
)
@pytest.mark.parametrize("camera", [False, True])
def test_a_viewer_that_sends_nonsense_is_closed_and_nobody_else(message: str, code: int, camera: bool) -> None:
    controls = Controls()
    view = WebView(controls, inbox=BrowserSource().inbox if camera else None)
    view.start()
    try:
        with connect(at(view, "ws", "ws")) as good:
            with suppress(ConnectionClosed), connect(at(view, "ws", "ws")) as bad:
                bad.send(message)
                bad.recv(10)
            assert bad.close_code in (code, 1006)  # what was still under way may have broken it first
            view.show(update(0, plain(0, 0, 0)))
            assert good.recv(5)
            eventually(lambda: json.loads(get(at(view, "stats.json"))[2])["viewers"] == 1)
    finally:
        view.close()
    assert not controls.quit.is_set()


@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [
        (1, b"\xff\xfe", 1007),  # no UTF-8
        (3, b"", 1002),  # no such kind of frame
        (9, bytes(200), 1002),  # a ping is not so long
        (0, b"", 1002),  # continues nothing
    ],
)
def test_what_is_no_websocket_is_closed(view: WebView, opcode: int, data: bytes, code: int) -> None:
    assert closing_code(answer_to(view, data, opcode)) == code
    assert get(at(view, "healthz"))[0] == 200


@pytest.mark.parametrize("camera", [False, True])
@pytest.mark.parametrize("opcode", [1, 2])
def test_a_message_of_100_mb_is_closed_at_its_head(camera: bool, opcode: int) -> None:
    view = WebView(Controls(), inbox=BrowserSource().inbox if camera else None)
    view.start()
    try:
        before = resident()
        assert closing_code(answer_to(view, b"", opcode, 100 << 20)) == 1009  # before any of it was sent
        with suppress(ConnectionClosed), connect(at(view, "ws", "ws")) as viewer:
            viewer.send(b"x" * (1 << 20) for _ in range(100))  # in pieces whose heads do not tell
        with suppress(ConnectionClosed), connect(at(view, "ws", "ws")) as viewer:
            viewer.send(bytes(100 << 20))
        assert resident() - before < 250 << 20  # this process is the client, too: it alone holds 100 MB and a mask
        assert get(at(view, "healthz"))[0] == 200
    finally:
        view.close()


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_compression_is_never_agreed_to(view: WebView) -> None:
    with connect(at(view, "ws", "ws"), compression="deflate") as viewer:
        assert "sec-websocket-extensions" not in viewer.response.headers


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00\x01", b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20), os.urandom(5000)],
)
def test_what_is_no_http_is_closed(view: WebView, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", view.port)) as plug:
        with suppress(OSError):
            plug.sendall(data + b"\r\n\r\n")
        began = time.monotonic()
        drain(plug, 5)
        assert time.monotonic() - began < 4  # it ended
    assert get(at(view, "healthz"))[0] == 200


def test_connections_that_ask_for_nothing_end_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_REQUEST_S", 0.5)
    monkeypatch.setattr(server, "_CONNECTIONS", 20)
    view = WebView(Controls())
    view.start()
    try:
        plugs = [socket.create_connection(("127.0.0.1", view.port)) for _ in range(40)]
        time.sleep(0.2)
        open_ones = sum(not ended(plug) for plug in plugs)
        assert open_ones == 20
        eventually(lambda: all(ended(plug) for plug in plugs))
        assert get(at(view, "healthz"))[0] == 200
        for plug in plugs:
            plug.close()
    finally:
        view.close()


def test_connections_that_ask_for_nothing_more_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_REQUEST_S", 0.5)
    view = WebView(Controls())
    view.start()
    try:
        with (
            socket.create_connection(("127.0.0.1", view.port)) as refused,
            socket.create_connection(("127.0.0.1", view.port)) as streaming,
            connect(f"ws://127.0.0.1:{view.port}/ws") as viewer,
        ):
            refused.sendall(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert refused.recv(4096).split()[1] in (b"400", b"403")
            refused.sendall(b"G")
            streaming.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\n\r\n".encode())
            eventually(lambda: ended(refused), 3)
            time.sleep(1.5)
            view.show(update(0, plain(0, 0, 0)))
            assert viewer.recv(5)
            eventually(lambda: b"\xff\xd8" in drain(streaming, 0.3))
    finally:
        view.close()


def test_who_does_not_even_greet_in_tls_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "_REQUEST_S", 0.5)
    certificate, key = own_certificate(tmp_path)
    view = WebView(Controls(), tls=Tls(certificate, key))
    view.start()
    try:
        with socket.create_connection(("127.0.0.1", view.port)) as silent:
            eventually(lambda: ended(silent), 3)
        monkeypatch.setattr(server, "_REQUEST_S", 10.0)
        with socket.create_connection(("127.0.0.1", view.port)):
            time.sleep(0.1)
            thread = next(one for one in threading.enumerate() if one is view._thread)
            began = time.monotonic()
            view.close()  # not for that, either
            assert time.monotonic() - began < 1
            assert not thread.is_alive()
    finally:
        view.close()


def ended(plug: socket.socket) -> bool:
    plug.setblocking(False)
    try:
        return plug.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_pings_that_nobody_reads_the_answers_of_do_not_fill_memory(view: WebView) -> None:
    with socket.create_connection(("127.0.0.1", view.port)) as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        plug.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
        pings = (b"\x89\xfd" + bytes(4) + bytes(125)) * 5000
        plug.settimeout(5)
        with pytest.raises(ConnectionError):
            plug.sendall(pings * 60)  # 39 MB, answered with as much
    assert get(at(view, "healthz"))[0] == 200


def test_a_manifest_that_does_not_fit_does_not_break_the_page(
    view: WebView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(default_model().read_bytes())
    file.with_name("model.tflite.json").write_text("{}")
    monkeypatch.setattr(view.in_page, "file", None)  # put back in the end
    view.in_page.use(file)
    assert json.loads(get(at(view, "config.json"))[2])["model"]["labels"] == []
    file.unlink()
    assert get(at(view, "model.tflite"))[0] == 404


def test_over_tls_the_tokens_cookie_is_for_tls_alone(tmp_path: Path) -> None:
    certificate, key = own_certificate(tmp_path)
    view = WebView(Controls(), host="0.0.0.0", token=TOKEN, tls=Tls(certificate, key))
    view.start()
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False  # it is of another name
    try:
        address = at(view, f"?token={TOKEN}", "https")
        with urllib.request.urlopen(address, timeout=10, context=trusting) as answer:
            cookie, *attributes = answer.headers["set-cookie"].split("; ")
        assert cookie == f"edgenet_{view.port}_tls={TOKEN}"  # a browser would keep it from one without TLS
        assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict", "Secure"}
        other = urllib.request.Request(at(view, "page/page.js", "https"), headers={"Cookie": cookie})
        with urllib.request.urlopen(other, timeout=10, context=trusting) as answer:
            assert answer.status == 200
    finally:
        view.close()
