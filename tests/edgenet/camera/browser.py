"""A real Chromium whose camera is a clip, and what camera tests show it: pictures, updates, a model that answers."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devices.runtimes.model_process import ModelProcess
from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Answer, Controls, Frame, Ranked, Stats, Trouble, Update
from edgenet.camera.sources.browser import BrowserSource
from edgenet.camera.web.server import WebView
from edgenet.image import Pixels, Preprocessing, fit
from edgenet.symbols.generate import render
from edgenet.symbols.glyphs import LABELS

CLIP_SIZE = (640, 480)
SHOWN = "document.querySelector('#labels li:first-child .name')?.title"
CORNER_CAMERA = """
    const paper = document.createElement("canvas");
    [paper.width, paper.height] = [320, 240];
    const pen = paper.getContext("2d");
    let count = 0;
    setInterval(() => {
        pen.fillStyle = ["#000000", "#000010"][count++ % 2];
        pen.fillRect(0, 0, 320, 240);
        pen.fillStyle = window.corner ?? "#ff0000";
        pen.fillRect(0, 0, 160, 120);
    }, 100);
    navigator.mediaDevices.getUserMedia = async () => paper.captureStream();
"""


@contextmanager
def playwright() -> Iterator[Any]:
    """Yield playwright, of which one can run at a time; skip where it, or Chromium, is not installed."""
    if not _chromium():
        pytest.skip("no Chromium: apt install chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no playwright: pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        yield play


@contextmanager
def browser(play: Any, clip: Path | None = None, cameras: int = 0, text_px: int = 0) -> Iterator[Any]:
    """Yield playwright's Browser; its camera plays a clip (.mjpeg), over and over; or it has several: a clock each.

    text_px: how large its user likes text.
    """
    options = ["--no-sandbox", "--use-fake-ui-for-media-stream"]
    if clip is not None:
        options += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={clip}"]
    if cameras:
        options += [f"--use-fake-device-for-media-stream=device-count={cameras}"]
    if text_px:
        options += [f"--blink-settings=defaultFontSize={text_px}"]
    running = play.chromium.launch(executable_path=_chromium(), headless=True, args=options)
    try:
        yield running
    finally:
        running.close()


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass(slots=True)
class Page:
    """A page in a context of its own, and everything it complained of."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def until(self, expression: str, seconds: float = 30.0) -> None:
        """Wait until a JavaScript expression is true; playwright's own way needs eval, which the page forbids."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(f"() => Boolean({expression})"):
            assert time.monotonic() < end, (
                f"{expression} never came true; the page says: {self.page.inner_text('body')}"
            )
            self.page.wait_for_timeout(30)


@contextmanager
def opened(running: Any, url: str, **options: Any) -> Iterator[Page]:
    """Open an address; options: of the context, such as viewport and color_scheme."""
    context = running.new_context(**options)
    context.set_default_timeout(30_000)
    shown = Page(context.new_page())
    shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    shown.page.on("console", lambda said: shown.complaints.extend(_complaint(said)))
    try:
        shown.page.goto(url)
        yield shown
    finally:
        context.close()


def _complaint(said: Any) -> list[str]:
    told = said.text.startswith(("INFO: ", "WARNING: "))  # LiteRT says all as errors
    return [said.text] if said.type == "error" and not told else []


def clip(path: Path, picture: Pixels) -> Pixels:
    """Write a clip of one picture, RGB, in the middle of black frames; the frame as a camera's page sees it, RGB.

    Chromium takes what its fake camera plays for studio range (Y 16..235), and a JPEG has full range; so it is squeezed
    before.
    """
    width, height = CLIP_SIZE
    image = Image.fromarray(picture)
    scale = min(width / image.width, height / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    frame = Image.new("RGB", CLIP_SIZE)
    frame.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    luma = [round(16 + level * 219 / 255) for level in range(256)]
    chroma = [round(128 + (level - 128) * 224 / 255) for level in range(256)]
    stream = io.BytesIO()
    frame.convert("YCbCr").point(luma + chroma + chroma).save(stream, "JPEG", quality=98)
    path.write_bytes(stream.getvalue() * 30)
    return np.asarray(frame)


def known_symbol(path: Path) -> tuple[str, Pixels]:
    """Write a clip of a generated symbol that the embedded model knows; its label, and its frame."""
    with ModelProcess(default_model()) as model:
        for number in range(100):
            frame = clip(path, render(number % len(LABELS), 1000 + number, 480))
            scores = model.run(fit(frame, Preprocessing(*model.info.inputs[0].shape[1:3]))[None])[0]
            if scores.argmax() == number % len(LABELS) and scores.max() > 0.95:
                return LABELS[number % len(LABELS)], frame
    raise AssertionError("the embedded model knows none of its symbols")


def jpeg(picture: Pixels, quality: int = 95) -> bytes:
    """Encode RGB pixels."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def update(
    number: int, picture: Pixels | None = None, *, label: str = "circle", trouble: str = "", own: bytes | None = None
) -> Update:
    """Make an update about a picture (or none: there is no answer yet), BGR; own: the JPEG that a camera sent it as."""
    stats = Stats(30.0, 29.5, 20.0, 30.0, 0.3, 5.0, 0.2, 7, 41.5, "symbols", "int8", "LiteRT", 1, "camera 0", trouble)
    if picture is None:
        return Update(None, stats, False, False)
    frame = Frame(number, time.monotonic_ns(), picture, own)
    top = tuple(Ranked(i, name, share, share) for i, (name, share) in enumerate([(label, 0.75), ("star", 0.125)]))
    return Update(Answer(frame, top, top[0], 300_000, 5_000_000), stats, False, False)


def plain(blue: int, green: int, red: int, size: tuple[int, int] = (48, 64)) -> Pixels:
    """Return a picture of one colour, BGR [*size, 3]."""
    return np.full((*size, 3), (blue, green, red), np.uint8)


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate as people make one, and its key, PEM; skip where there is no openssl."""
    if not shutil.which("openssl"):
        pytest.skip("for a certificate: apt install openssl")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=edgenet"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def eventually(true: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until something is true, and return it; fails after so long."""
    until = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
    return value


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """GET an address: status, headers by lower-case name, body."""
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            headers_given = {name.lower(): value for name, value in refused.headers.items()}
            return refused.code, headers_given, refused.read()


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a message of the socket into its state and its JPEG."""
    length = int.from_bytes(message[:4], "big")
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def drain(plug: socket.socket, quiet_s: float) -> bytes:
    """Read until the other side ends, or keeps quiet for so long."""
    data = b""
    plug.settimeout(quiet_s)
    with suppress(TimeoutError, ConnectionResetError):
        while piece := plug.recv(1 << 20):
            data += piece
    return data


@contextmanager
def serving(controls: Controls | None = None, **options: Any) -> Iterator[WebView]:
    """Yield a page's server that nothing is shown on yet."""
    view = WebView(controls or Controls(), **options)
    view.start()
    try:
        yield view
    finally:
        view.close()


def pixel(page: Any, x: float = 0.5, y: float = 0.5) -> list[int]:
    """Return what the canvas shows at a place, RGB."""
    script = """([x, y]) => {
        const canvas = document.getElementById("picture");
        const data = canvas.getContext("2d").getImageData(canvas.width * x, canvas.height * y, 1, 1).data;
        return [...data].slice(0, 3);
    }"""
    return list(page.evaluate(script, [x, y]))


def figures(page: Any) -> dict[str, str]:
    """Return the figures that a page shows, by their names."""
    pairs = page.evaluate(
        "[...document.querySelectorAll('#figures > div')].map((pair) => [...pair.children].map((c) => c.textContent))"
    )
    return dict(pairs)


class Answering(threading.Thread):
    """The simplest loop there is between a browser's camera and the page: each frame's answer is shown."""

    def __init__(self, source: BrowserSource, view: WebView, file: Path, labels: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.source, self.view, self.file, self.labels = source, view, file, labels
        self.stop = threading.Event()
        self.answered = 0

    def run(self) -> None:
        with ModelProcess(self.file) as model:
            _, height, width, _ = model.info.inputs[0].shape
            for item in self.source.frames(self.stop):
                if isinstance(item, Trouble):
                    self.view.show(update(0, trouble=item.text))
                    continue
                began = time.monotonic_ns()
                pixels = fit(item.image[:, :, ::-1], Preprocessing(height, width))[None]
                scores = model.run(pixels)[0].astype(np.float64)
                took = time.monotonic_ns() - began
                order = np.argsort(-scores)[:5]
                top = tuple(Ranked(int(i), self.labels[i], float(scores[i]), float(scores[i])) for i in order)
                name = self.source.name
                stats = Stats(30, 30, 1, 2, 1, took / 1e6, 0, 0, None, self.file.stem, "int8", "LiteRT", 1, name, "")
                self.view.show(Update(Answer(item, top, top[0], 0, took), stats, False, False))
                self.answered += 1


@contextmanager
def answering(file: Path, labels: Sequence[str]) -> Iterator[tuple[WebView, Answering]]:
    """Serve the page with --source browser, and a model here that answers."""
    source = BrowserSource()
    view = WebView(Controls(), inbox=source.inbox)
    view.start()
    loop = Answering(source, view, file, labels)
    loop.start()
    try:
        yield view, loop
    finally:
        loop.stop.set()
        loop.join(10)
        source.close()
        view.close()
