"""The page in a real Chromium, whose camera plays a clip of a picture whose top-1 is known."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.model_process import ModelProcess
from edgenet import artifact
from edgenet.camera.browser_source import FrameInbox
from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Controls, Update
from edgenet.camera.smoothing import Smoother
from edgenet.camera.web import broadcast
from edgenet.camera.web.server import WebView
from edgenet.image import Pixels, Preprocessing, decode, fit
from edgenet.labels import read_labels
from edgenet.symbols.generate import render
from edgenet.symbols.glyphs import LABELS

from .browser import SHOWN, answering, browser, clip, eventually, get, known_symbol, opened, plain, playwright, update

HOT_DOG = "hotdog, hot dog, red hot"
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True, "has_touch": True}


@contextmanager
def serving(controls: Controls | None = None, **options: Any) -> Iterator[WebView]:
    view = WebView(controls or Controls(), **options)
    view.start()
    try:
        yield view
    finally:
        view.close()


@pytest.fixture(scope="module")
def symbol(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Pixels]:
    """A clip of a generated symbol that the embedded model knows; the clip, its label, its frame."""
    path = tmp_path_factory.mktemp("clip") / "symbol.mjpeg"
    return path, *known_symbol(path)


@pytest.fixture(scope="module")
def play() -> Iterator[Any]:
    with playwright() as running:
        yield running


@pytest.fixture(scope="module")
def chrome(play: Any, symbol: tuple[Path, str, Pixels]) -> Iterator[Any]:
    with browser(play, symbol[0]) as running:
        yield running


def pixel(page: Any, x: float = 0.5, y: float = 0.5) -> list[int]:
    """Return what the canvas shows at a place, RGB."""
    script = """([x, y]) => {
        const canvas = document.getElementById("picture");
        const data = canvas.getContext("2d").getImageData(canvas.width * x, canvas.height * y, 1, 1).data;
        return [...data].slice(0, 3);
    }"""
    return list(page.evaluate(script, [x, y]))


def figures(page: Any) -> dict[str, str]:
    pairs = page.evaluate(
        "[...document.querySelectorAll('#figures > div')].map((pair) => [...pair.children].map((c) => c.textContent))"
    )
    return dict(pairs)


@pytest.mark.parametrize("options", [{}, PHONE])
def test_the_page_shows_pictures_labels_and_figures(chrome: Any, options: dict[str, Any]) -> None:
    with serving() as view, opened(chrome, view.url, **options) as page:
        page.wait_for_selector("#empty:visible")
        for number in range(20):
            view.show(update(number, plain(0, 128, 255, (720, 1280)), label="tench, Tinca tinca"))
            page.wait_for_timeout(30)
        page.until(f"{SHOWN} === 'tench, Tinca tinca'")
        assert np.abs(np.subtract(pixel(page), (255, 128, 0))).max() < 10
        assert page.inner_text("#labels li:first-child .share") == "75.0 %"
        assert page.evaluate("document.querySelector('.bar').getBoundingClientRect().width") > 100
        shown = figures(page)
        wanted = {"camera rate": "30.0 fps", "inference rate": "29.5 fps", "dropped": "7", "temperature": "42 °C"}
        assert shown.items() >= wanted.items()
        assert {"age p50 / p95", "preprocess", "inference", "draw"} < set(shown)
        assert page.inner_text("#model") == "symbols · int8 · LiteRT · 1 thread"
        assert page.inner_text("#source") == "camera 0"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
        view.show(update(99, trouble="camera 0 is gone: trying again in 2 s"))
        page.until("document.getElementById('banner').textContent.includes('trying again in 2 s')")
        assert page.is_visible("#banner")
        view.show(update(100, plain(0, 0, 0)))
        page.wait_for_selector("#banner", state="hidden")
        assert page.complaints == []


def test_what_did_not_happen_took_no_time_and_a_picture_that_stays_grows_older(chrome: Any) -> None:
    with serving() as view, opened(chrome, view.url) as page:
        shown = replace(update(0, plain(0, 0, 0)), paused=True)  # what is drawn then is of no age
        view.show(replace(shown, stats=replace(shown.stats, age_p50_ms=6012.0, age_p95_ms=6012.0)))
        page.wait_for_selector("#labels li")
        page.until("document.getElementById('figures').textContent.includes('6012 / 6012 ms')", 5)
        unknown = {"age_p50_ms": 0.0, "age_p95_ms": 0.0, "preprocess_ms": 0.0, "inference_ms": 0.0}
        view.show(replace(shown, stats=replace(shown.stats, **unknown)))
        page.until("!document.getElementById('figures').textContent.includes('6012')")
        assert [figures(page)[name] for name in ("age p50 / p95", "preprocess", "inference")] == ["–"] * 3
        for number in range(1, 9):  # what the page has drawn has an age of its own
            view.show(replace(update(number, plain(0, 0, 0)), stats=replace(shown.stats, age_p95_ms=6012.0)))
            page.wait_for_timeout(60)
        page.until("/[0-9]+ . [0-9]+ ms/.test(document.getElementById('figures').textContent)", 5)
        assert "6012" not in figures(page)["age p50 / p95"]
        assert page.complaints == []


STICKS_OUT = """() => {
    const text = document.createRange();
    const beyond = [...document.querySelectorAll("#figures > div > *, button")].filter((cell) => {
        text.selectNodeContents(cell);
        return text.getBoundingClientRect().right > cell.getBoundingClientRect().right + 0.5;
    });
    const clipped = (element) =>
        element && (getComputedStyle(element).overflowX !== "visible" || clipped(element.parentElement));
    const outside = [...document.body.querySelectorAll("*")].filter((element) => {
        if (clipped(element.parentElement)) return false;
        const { left, right } = element.getBoundingClientRect();
        return left < -0.5 || right > innerWidth + 0.5;
    });
    const wide = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
    return [...new Set([...beyond, ...outside])].map((one) => one.outerHTML).concat(wide);
}"""


def long_figures() -> Update:
    """Return an update of a slow machine, in a pause: the page shows these ages then, not those of what it drew."""
    shown = update(
        0, plain(0, 128, 255, (480, 640)), label="hotdog, hot dog, red hot, and whatever else it may be called"
    )
    slow = {
        "age_p50_ms": 1105.0,
        "age_p95_ms": 2139.0,
        "inference_ms": 1021.0,
        "camera_fps": 1000.0,
        "dropped": 12345678,
    }
    name = "http://a-camera-of-a-long-name.example:8080/stream.mjpg, 1280x720"
    return replace(shown, stats=replace(shown.stats, **slow, source=name), paused=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_screens_of_any_width(chrome: Any, tmp_path: Path, scheme: str) -> None:
    covered = """["banner", "camera"].filter((id) => {
        const { left, right, top, bottom } = document.getElementById(id).getBoundingClientRect();
        return document.elementFromPoint((left + right) / 2, (top + bottom) / 2)?.id !== id;
    })"""
    with serving(inbox=FrameInbox()) as view:
        shown = long_figures()
        trouble = "the browser's camera is gone: start it again on its page"
        view.show(replace(shown, stats=replace(shown.stats, trouble=trouble)))
        for width, height in ((320, 568), (390, 844), (820, 1180), (667, 375), (1280, 720)):
            size = {"width": width, "height": height}
            with opened(chrome, view.url, viewport=size, color_scheme=scheme) as page:
                page.until("document.getElementById('figures').textContent.includes('1105 / 2139 ms')")
                page.screenshot(path=str(tmp_path / f"{width}.png"))
                assert page.evaluate(STICKS_OUT) == []
                assert page.evaluate(covered) == []
                assert (
                    page.evaluate("document.querySelector('.buttons').getBoundingClientRect().height") < 80
                )  # one row


def test_the_page_is_written_as_large_as_its_reader_likes(play: Any, tmp_path: Path) -> None:
    with browser(play, text_px=24) as running, serving() as view:
        view.show(long_figures())
        for width, height in ((320, 568), (390, 844), (1280, 720)):
            with opened(running, view.url, viewport={"width": width, "height": height}) as page:
                page.until("document.getElementById('figures').textContent.includes('1105 / 2139 ms')")
                assert page.evaluate("getComputedStyle(document.querySelector('#figures dd')).fontSize") == "24px"
                page.screenshot(path=str(tmp_path / f"{width}.png"))
                assert page.evaluate(STICKS_OUT) == []


def test_keys_and_buttons_do_the_same(chrome: Any) -> None:
    controls = Controls()
    with serving(controls) as view, opened(chrome, view.url) as page:
        view.show(update(0, plain(0, 0, 0)))
        page.wait_for_selector("#labels li")
        for press in (lambda key, name: page.keyboard.press(key), lambda key, name: page.click(f"[data-do={name}]")):
            controls.rotate, controls.paused, controls.mirror = 0, False, False
            controls.save.clear()
            controls.toggle_precision.clear()
            for key, name in ((" ", "pause"), ("m", "mirror"), ("r", "rotate"), ("s", "save"), ("p", "precision")):
                press(key, name)
            eventually(controls.toggle_precision.is_set)
            assert (controls.paused, controls.mirror, controls.rotate) == (True, True, 90)
            assert controls.save.is_set()
        page.focus("[data-do=mirror]")
        page.keyboard.press(" ")  # presses the button that has the focus
        eventually(lambda: not controls.mirror)
        controls.save.clear()
        page.keyboard.press("Control+s")  # the browser's own
        page.wait_for_timeout(200)
        assert controls.paused
        assert not controls.save.is_set()
        assert page.complaints == []


def test_mirroring_turns_the_display_alone(chrome: Any) -> None:
    with serving() as view, opened(chrome, view.url) as page:
        shown = update(0, plain(0, 0, 0))
        view.show(type(shown)(shown.answer, shown.stats, paused=True, mirror=True))
        page.wait_for_selector(".mirrored")
        assert page.is_visible("#paused")
        assert page.inner_text("[data-do=pause] b") == "Resume"
        assert "matrix(-1" in page.evaluate("getComputedStyle(document.getElementById('picture')).transform")


def test_the_page_comes_back_when_the_server_does(chrome: Any) -> None:
    with serving() as first, opened(chrome, first.url) as page:
        first.show(update(0, plain(0, 0, 0), label="before"))
        page.until(f"{SHOWN} === 'before'")
        first.notice("saved one.png")
        page.until("document.getElementById('toast').textContent === 'saved one.png'")
        first.close()
        page.until("document.getElementById('banner').textContent.includes('trying again')")
        with serving(port=first.port) as second:
            second.show(update(0, plain(0, 0, 0), label="after"))
            page.until(f"{SHOWN} === 'after'")
            page.wait_for_selector("#banner", state="hidden")
            second.notice("saved two.png")
            page.until("document.getElementById('toast').textContent === 'saved two.png'")


def test_a_page_that_has_shown_all_says_so_until_there_is_more(chrome: Any, tmp_path: Path) -> None:
    banner = "document.getElementById('banner').textContent"
    with serving() as first, opened(chrome, first.url) as page:
        first.show(update(0, plain(0, 128, 255), label="before"))
        page.until(f"{SHOWN} === 'before'")
        first.end()
        first.close()
        page.until(f"{banner} === 'That was all. edgenet camera has ended.'")
        page.wait_for_timeout(2500)  # it is looked for again and again, and no trouble
        assert page.evaluate(banner) == "That was all. edgenet camera has ended."
        assert page.is_visible("#banner")
        assert not page.evaluate("document.getElementById('frame').matches('.stale')")
        page.screenshot(path=str(tmp_path / "ended.png"))
        with serving(port=first.port) as second:
            second.show(update(0, plain(0, 0, 0), label="cut short", trouble="clip.mp4: ended after 3 of 9 frames"))
            page.until(f"{SHOWN} === 'cut short'")
            page.until(f"{banner}.startsWith('clip.mp4')")
            second.end()
        page.wait_for_timeout(1000)
        assert page.evaluate(banner).startswith("clip.mp4: ended after 3 of 9")  # that comes first


def test_a_hidden_page_acknowledges_nothing(chrome: Any) -> None:
    with serving() as view, opened(chrome, view.url) as page:
        view.show(update(0, plain(0, 0, 0), label="seen"))
        page.until(f"{SHOWN} === 'seen'")
        page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        for number in range(1, 20):
            view.show(update(number, plain(0, 0, 0), label="unseen"))
            page.wait_for_timeout(20)
        assert page.evaluate(SHOWN) == "seen"
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        page.until(f"{SHOWN} === 'unseen'")


def test_with_a_token_the_printed_address_opens_the_page_and_no_other(chrome: Any) -> None:
    with serving(host="0.0.0.0") as view:
        local = f"http://127.0.0.1:{view.port}/"
        token = view.url.partition("?")[2]
        view.show(update(0, plain(0, 0, 0), label="tench"))
        with opened(chrome, f"{local}?token=wrong") as page:
            assert "token is wrong or missing" in page.inner_text("body")
        with opened(chrome, f"{local}?{token}") as page:
            page.until(f"{SHOWN} === 'tench'")
            assert page.complaints == []
            assert page.evaluate("document.cookie") == ""  # no script reads it
            page.goto(local)  # the cookie is enough
            page.until(f"{SHOWN} === 'tench'")
            view.close()
            with serving(host="0.0.0.0", port=view.port):  # which has a token of its own
                page.until("document.getElementById('banner').textContent.startsWith('The token is missing. Open')")


def test_another_pages_script_cannot_open_the_socket(chrome: Any) -> None:
    script = """(url) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve("open");
        socket.onclose = () => resolve("closed");
    })"""
    with serving() as view, serving() as other, opened(chrome, f"{other.url}healthz") as page:
        page.page.context.add_init_script("")
        evil = page.page.context.new_page()
        evil.goto("data:text/html,<p>evil")
        assert evil.evaluate(script, f"ws://127.0.0.1:{view.port}/ws") == "closed"
        seen = "(url) => fetch(url).then((r) => r.text(), () => 'refused')"
        assert evil.evaluate(seen, f"{view.url}stats.json") == "refused"


def test_a_browsers_camera_is_answered_by_the_server(chrome: Any, symbol: tuple[Path, str, Pixels]) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as page:
        page.until("document.getElementById('banner').textContent.includes('start its camera')")
        page.click("#camera")
        page.until(f"{SHOWN} === {json.dumps(symbol[1])}")
        page.wait_for_selector("#banner", state="hidden")
        eventually(lambda: loop.answered > 30, 30)
        page.until("document.querySelector('#figures').textContent.includes('age')")
        assert page.inner_text("#source") == "browser camera, 640x480"
        assert loop.source.inbox.refused == 0
        middle = symbol[2][240, 320].astype(int)
        assert np.abs(np.subtract(pixel(page), middle)).max() < 40  # it shows what was sent
        assert json.loads(page.evaluate("fetch('stats.json').then((r) => r.text())"))["encoded"] == 0
        page.click("#camera")
        assert page.inner_text("#camera").startswith("Start")
        page.until("document.getElementById('banner').textContent.includes('is gone')")
        view.show(update(10_000, plain(0, 0, 255)))  # of somebody else's camera
        eventually(lambda: np.abs(np.subtract(pixel(page), (255, 0, 0))).max() < 10)
        assert page.complaints == []


def test_a_second_camera_is_told_that_there_is_one(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as first:
        first.click("#camera")
        eventually(lambda: loop.answered > 3, 30)
        with opened(chrome, view.url) as second:
            second.click("#camera")
            second.until("document.getElementById('banner').textContent.includes('another page')")
            second.until(f"{SHOWN} !== undefined")  # and it watches
            assert not second.evaluate("document.getElementById('frame').matches('.stale')")


def test_a_camera_that_was_lost_is_no_trouble_any_more_once_it_was_stopped(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as page:
        page.evaluate(f"() => {{ {SLOW_TO_OPEN} }}")
        page.click("#camera")
        eventually(lambda: loop.answered > 3)
        page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no'); }; }")
        page.evaluate("() => streams.at(-1).getTracks().forEach((track) => track.stop())")
        page.until("document.getElementById('banner').textContent.includes('Trying again')")
        page.click("#camera")
        page.until("!document.getElementById('banner').textContent.includes('Trying again')")


def test_without_a_camera_the_page_says_what_to_do(chrome: Any) -> None:
    denied = "Promise.reject(new DOMException('no', 'NotAllowedError'))"
    refused = f"() => {{ navigator.mediaDevices.getUserMedia = () => {denied}; }}"
    absent = "() => { Object.defineProperty(navigator, 'mediaDevices', {value: undefined}); }"
    for script, words in ((refused, "allow it"), (absent, "localhost")):
        with answering(default_model(), LABELS) as (view, _), opened(chrome, view.url) as page:
            page.evaluate(script)
            page.click("#camera")
            page.until(f"document.getElementById('banner').textContent.includes('{words}')")
            assert page.inner_text("#camera").startswith("Start")


SLOW_TO_OPEN = """
    window.streams = [];
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((resolve) => setTimeout(resolve, window.opensAfter ?? 0));
        window.streams.push(await open(wanted));
        return window.streams.at(-1);
    };
"""
SCREEN = """
    window.locks = [];
    const lock = () => ({ released: false, async release() { this.released = true; } });
    const request = async () => locks[locks.push(lock()) - 1];
    Object.defineProperty(navigator, "wakeLock", { value: { request } });
"""
LIVE = "streams.flatMap((one) => one.getTracks()).filter(({ readyState }) => readyState === 'live').length"


def test_a_camera_that_was_stopped_before_it_was_open_is_off(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as page:
        page.evaluate(f"() => {{ {SLOW_TO_OPEN} {SCREEN} window.opensAfter = 600; }}")
        page.click("#camera")
        page.wait_for_timeout(100)
        page.click("#camera")
        page.until("streams.length === 1")
        page.wait_for_timeout(300)
        assert page.evaluate(LIVE) == 0
        assert loop.answered == 0
        for _ in range(3):  # started, stopped, started: one camera runs
            page.click("#camera")
            page.wait_for_timeout(100)
        eventually(lambda: loop.answered > 3)
        assert page.evaluate(LIVE) == 1
        assert page.evaluate("locks.map(({ released }) => released)") == [False]  # the screen stays on
        page.click("#camera")
        assert page.evaluate(LIVE) == 0
        page.until("locks.every(({ released }) => released)", 5)


CANVAS_CAMERA = """
    const paper = document.createElement("canvas");
    [paper.width, paper.height] = [320, 240];
    const pen = paper.getContext("2d");
    let count = 0;
    window.moving = true;
    setInterval(() => {
        pen.fillStyle = ["red", "blue"][count++ % 2];
        if (moving) pen.fillRect(0, 0, 160, 240);
    }, 100);
    navigator.mediaDevices.getUserMedia = async () => paper.captureStream();
"""


def test_in_the_page_one_loop_runs_however_often_it_is_started_and_a_stalled_camera_is_noticed(chrome: Any) -> None:
    with serving() as view:
        view.in_page.use(default_model())
        with opened(chrome, view.url) as page:
            page.until("document.getElementById('model').textContent.includes('LiteRT.js')")
            downloads: list[Any] = []
            page.page.on("download", lambda one: downloads.append(one))
            page.keyboard.press("s")  # there is no picture yet
            page.evaluate(f"() => {{ {CANVAS_CAMERA} }}")
            for _ in range(7):
                page.click("#camera")
                page.wait_for_timeout(150)
            page.wait_for_timeout(2500)
            assert float(figures(page)["camera rate"].split()[0]) < 15
            assert downloads == []
            page.evaluate("() => { moving = false; }")
            page.until("document.getElementById('banner').textContent.startsWith('No picture comes')", 6)
            assert page.is_visible("#banner")
            page.evaluate("() => { moving = true; }")
            page.wait_for_selector("#banner", state="hidden")
            page.keyboard.press(" ")
            page.wait_for_selector("#paused:visible")
            page.wait_for_timeout(300)
            page.keyboard.press("r")  # what is held is turned
            page.until("document.getElementById('picture').height > document.getElementById('picture').width")
            assert pixel(page, 0.5, 0.9) == [0, 0, 0]  # the right half was never drawn, and lies below now
            assert page.complaints == []


def test_a_slow_model_in_the_page_makes_its_camera_no_faster(chrome: Any) -> None:
    slow = """async () => {
        const { Classifier } = await import("/page/classifier.js");
        const run = Classifier.prototype.run;
        Classifier.prototype.run = async function (pixels) {
            await new Promise((resolve) => setTimeout(resolve, 1100));
            return run.call(this, pixels);
        };
    }"""
    with serving() as view:
        view.in_page.use(default_model())
        with opened(chrome, view.url) as page:
            page.until("document.getElementById('model').textContent.includes('LiteRT.js')")
            page.evaluate(f"() => {{ {CANVAS_CAMERA} }}")
            page.evaluate(slow)
            page.click("#camera")
            page.until("parseFloat(document.querySelector('#figures dd')?.textContent) > 0")
            assert 3 < float(figures(page)["camera rate"].split()[0]) < 15  # it gives 10
            assert int(figures(page)["dropped"]) > 3


def test_the_other_camera_is_the_next_one_where_cameras_look_nowhere(play: Any) -> None:
    with (
        browser(play, cameras=2) as two,
        answering(default_model(), LABELS) as (view, _),
        opened(two, view.url) as page,
    ):
        page.evaluate(f"() => {{ {SLOW_TO_OPEN} }}")
        page.click("#camera")
        page.wait_for_selector("#flip:visible")
        for count in (2, 3):
            page.click("#flip")
            page.until(f"streams.length === {count}")
        used = page.evaluate("streams.map((one) => one.getVideoTracks()[0].getSettings().deviceId)")
        assert used[0] == used[2] != used[1]
        assert page.evaluate(LIVE) == 1


def test_figures_of_the_page_are_those_of_the_last_two_seconds(chrome: Any) -> None:
    script = """async () => {
        const { Recent } = await import("/page/panel.js");
        const recent = new Recent();
        for (const value of [7, 7, 7]) recent.add(value);
        const before = [recent.empty, recent.percentile(0.5)];
        await new Promise((resolve) => setTimeout(resolve, 2100));
        return [...before, recent.empty, recent.percentile(0.5), recent.perSecond];
    }"""
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        assert page.evaluate(script) == [False, 7, True, 0, 0]


class Cable(threading.Thread):
    """A way to a port that can be cut: then nothing goes through any more, and nobody is told.

    slow_s: what each 64 KB take. roams: the server is not told of connections that end.
    """

    def __init__(self, port: int, slow_s: float = 0.0, *, roams: bool = False) -> None:
        super().__init__(daemon=True)
        self.slow_s, self.roams = slow_s, roams
        self._to, self._door = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.whole = threading.Event()
        self.whole.set()
        self._plugs: list[socket.socket] = []

    def run(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._door.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                self._plugs += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def roam(self) -> None:
        """End what runs on the browser's side alone, as where a phone changes its network."""
        for plug in self._plugs[::2]:
            with suppress(OSError):
                plug.shutdown(socket.SHUT_RDWR)

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                self.whole.wait()
                if len(data) > 4096:
                    time.sleep(self.slow_s)
                other.sendall(data)
            if not self.roams:
                other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for plug in (self._door, *self._plugs):
            plug.close()


@contextmanager
def far(view: WebView, slow_s: float = 0.0, *, roams: bool = False) -> Iterator[tuple[Cable, str]]:
    """Yield a cable to the page's server, and the page's address at its end."""
    cable = Cable(view.port, slow_s, roams=roams)
    cable.start()
    try:
        yield cable, f"http://127.0.0.1:{cable.port}/"
    finally:
        cable.close()


@pytest.mark.parametrize("said", [True, False])
def test_a_server_that_vanishes_without_a_word_is_noticed_and_found_again(chrome: Any, said: bool) -> None:
    with serving() as view, far(view) as (cable, address), opened(chrome, address) as page:
        if said:
            view.show(update(0, plain(0, 0, 0), label="before"))
            page.until(f"{SHOWN} === 'before'")
            page.wait_for_timeout(4500)  # a clip that is paused says nothing new, and is no trouble
            assert not page.is_visible("#banner")
        else:
            eventually(lambda: json.loads(get(f"{view.url}stats.json")[2])["viewers"] == 1)
        cable.whole.clear()
        page.until("document.getElementById('banner').textContent.includes('trying again')", 10)
        assert page.evaluate("document.getElementById('frame').matches('.stale')")
        cable.whole.set()
        view.show(update(1, plain(0, 0, 0), label="after"))
        page.until(f"{SHOWN} === 'after'")
        page.wait_for_selector("#banner", state="hidden")


def test_a_picture_that_takes_longer_than_a_word_is_waited_for(chrome: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)  # some 250 KB as JPEG
    with serving() as view, far(view, slow_s=1.5) as (_, address), opened(chrome, address) as page:
        page.page.add_init_script("""
            window.banners = 0;
            addEventListener("DOMContentLoaded", () => {
                const banner = document.getElementById("banner");
                new MutationObserver(() => { banners += !banner.hidden; }).observe(banner, { attributes: true });
            });
        """)
        page.page.reload()
        view.show(update(0, noise, label="slow"))
        page.until(f"{SHOWN} === 'slow'", 20)
        assert page.evaluate("banners") == 0


def test_a_phone_that_changes_its_network_goes_on_sending(chrome: Any) -> None:
    with (
        answering(default_model(), LABELS) as (view, loop),
        far(view, roams=True) as (cable, address),
        opened(chrome, address) as page,
    ):
        page.click("#camera")
        eventually(lambda: loop.answered > 3)
        cable.roam()
        page.wait_for_selector("#banner")
        count = loop.answered
        eventually(lambda: loop.answered > count + 20)
        assert page.inner_text("#camera") == "Stop"
        assert json.loads(get(f"{view.url}stats.json")[2])["encoded"] < 5  # it still sees its own


def paused(page: Any, view: WebView, loop: Any) -> Update:
    """Send pictures of the page's own camera, and pause; what is held."""
    page.click("#camera")
    eventually(lambda: loop.answered > 3)
    loop.stop.set()
    loop.join(10)
    held = replace(update(9, plain(0, 0, 0)), paused=True)
    view.show(held)
    page.wait_for_selector("#paused:visible")
    page.wait_for_timeout(200)
    return held


def test_what_is_held_in_a_pause_is_turned_where_it_was_taken(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as page:
        held = paused(page, view, loop)
        page.keyboard.press("r")
        page.wait_for_timeout(200)
        view.show(held)
        page.until("document.getElementById('picture').height > document.getElementById('picture').width")


def test_a_camera_that_opens_and_gives_nothing_is_said(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, _), opened(chrome, view.url) as page:
        page.evaluate(
            "() => { navigator.mediaDevices.getUserMedia = async () => new MediaStream("
            "document.createElement('canvas').captureStream().getVideoTracks()); }"
        )
        page.click("#camera")
        page.until("document.getElementById('banner').textContent === 'No picture comes from the camera.'", 8)
        page.click("#camera")
        assert page.inner_text("#camera").startswith("Start")


def test_a_page_that_finds_no_room_asks_less_and_less_often(chrome: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MAX_VIEWERS", 0)
    count = """
        window.asked = 0;
        window.WebSocket = class extends WebSocket {
            constructor(...given) { super(...given); asked++; }
        };
    """
    with serving() as view, opened(chrome, "about:blank") as page:
        page.page.add_init_script(count)
        page.goto(view.url)
        page.until("document.getElementById('banner').textContent.startsWith('too many viewers')")
        page.wait_for_timeout(4000)
        assert 3 <= page.evaluate("asked") <= 5  # after .5, 1, 2 and 4 s
        assert page.is_visible("#banner")


def test_the_model_runs_in_the_page(chrome: Any, symbol: tuple[Path, str, Pixels]) -> None:
    controls = Controls(mirror=True, rotate=0)
    with serving(controls) as view:
        view.in_page.use(default_model())
        view.in_page.top = 3
        with opened(chrome, view.url) as page:
            page.until("document.getElementById('model').textContent.includes('LiteRT.js')")
            page.click("#camera")
            page.until(f"{SHOWN} === {json.dumps(symbol[1])}")
            page.until("document.querySelector('#labels .bar').style.getPropertyValue('--smoothed') > 0.9")
            assert page.evaluate("document.querySelectorAll('#labels li').length") == 3
            page.wait_for_selector(".mirrored")
            shown = figures(page)
            assert float(shown["inference"].split()[0]) > 0
            assert {"camera rate", "inference rate", "age p50 / p95", "preprocess", "draw", "dropped"} < set(shown)
            assert page.inner_text("#model") == "symbols_int8 · int8 · LiteRT.js 2.5.3, WebAssembly · 1 thread"
            page.keyboard.press(" ")
            assert page.is_visible("#paused")
            page.keyboard.press("r")
            page.keyboard.press(" ")
            page.until("document.getElementById('picture').height > document.getElementById('picture').width")
            with page.page.expect_download() as still:
                page.keyboard.press("s")
            assert still.value.suggested_filename.endswith(".png")
            assert page.complaints == []


def scores_in_page(page: Any, pixels: Pixels) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Run raw pixels [h, w, 3] through the page's own classifier, without a camera."""
    script = """async (text) => {
        const { Classifier } = await import("/page/classifier.js");
        window.opened ??= Classifier.open((await (await fetch("/config.json")).json()).model);
        const pixels = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        return [...(await (await window.opened).run(pixels))];
    }"""
    return np.array(page.evaluate(script, base64.b64encode(pixels.tobytes()).decode()), np.float32)


def test_a_file_that_the_page_cannot_feed_is_said_in_plain_words(chrome: Any) -> None:
    script = """async (inputs) => {
        const { Classifier } = await import("/page/classifier.js");
        return inputs.map((input) => {
            try {
                return String(new Classifier({}, { getInputDetails: () => [input] }).height);
            } catch ({ message }) {
                return message;
            }
        });
    }"""
    refused = [("float32", [1, 64, 96, 3]), ("uint8", [-1, 64, 96, 3]), ("uint8", [1, 3, 64, 96]), ("uint8", [1, 64])]
    inputs = [{"dtype": dtype, "shape": shape} for dtype, shape in [*refused, ("uint8", [1, 64, 96, 3])]]
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        *words, height = page.evaluate(script, inputs)
    assert height == "64"
    for (dtype, shape), said in zip(refused, words, strict=True):
        takes = f"{dtype} [{','.join(map(str, shape))}]"
        assert said == f"it takes {takes}, and the page gives uint8 [1,height,width,3]; use a file made by edgenet"


def test_the_page_cuts_pictures_as_the_manifest_says_and_times_the_model(chrome: Any) -> None:
    script = """async () => {
        const { Classifier } = await import("/page/classifier.js");
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [40, 20];
        const context = canvas.getContext("2d");
        context.fillStyle = "#ff0000";
        context.fillRect(0, 0, 10, 20);
        return Promise.all(["center", "squash"].map(async (crop) => {
            const config = { crop, probabilities: true, labels: [], top: 1, smooth_s: 0 };
            const classifier = Object.assign(Object.create(Classifier.prototype), { config, width: 10, height: 10 });
            classifier.forget();
            classifier.run = async ([red]) => {
                await new Promise((resolve) => setTimeout(resolve, 100));
                return Float32Array.from([red / 255, 1 - red / 255]);
            };
            return classifier.classify(canvas, context);
        }));
    }"""
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        center, squash = page.evaluate(script)
    assert [one["raw"]["index"] for one in (center, squash)] == [1, 0]  # in the middle is no red
    assert min(center["inference"], squash["inference"]) > 90


def test_a_foreign_files_logits_become_probabilities_in_the_page_as_they_do_here(chrome: Any) -> None:
    script = """async ([config, frames]) => {
        const { Classifier } = await import("/page/classifier.js");
        const classifier = Object.assign(Object.create(Classifier.prototype), { config, logits: false });
        return frames.map((scores) => [...classifier.asProbabilities(Float32Array.from(scores))]);
    }"""
    foreign = {"probabilities": False, "sum_tolerance": 0.02}
    frames = [[0.2, 0.3, 0.5], [0.9, 0.1, 0.3], [4.0, -2.0, 0.5], [0.2, 0.3, 0.5]]
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        shown = page.evaluate(script, [foreign, frames])
        own = page.evaluate(script, [{**foreign, "probabilities": True}, frames[1:2]])
        with pytest.raises(Exception, match="The model answers NaN"):
            page.evaluate(script, [foreign, [[float("nan"), 0.5]]])
    powers = np.exp(frames)
    softmax = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shown, [frames[0], *softmax[1:]], atol=1e-6)  # once logits, always logits
    np.testing.assert_allclose(own, frames[1:2], atol=1e-6)


def test_the_page_puts_the_same_label_first_as_the_server(chrome: Any) -> None:
    """Of a thousand classes, of which none reaches the margin."""
    script = """async ([config, frames]) => {
        const { Classifier } = await import("/page/classifier.js");
        const fresh = { config, average: null, answered: 0, leader: -1 };
        const classifier = Object.assign(Object.create(Classifier.prototype), fresh);
        return frames.map((scores, second) => {
            const { index, smoothed } = classifier.rank(Float32Array.from(scores), 1000 * second).top[0];
            return [index, smoothed];
        });
    }"""
    frames = np.random.default_rng(5).random((12, 1000))
    frames *= 0.96 / frames.sum(axis=1, keepdims=True)
    frames[range(12), [7] * 4 + [900] * 2 + [7] * 2 + [900] * 4] += 0.04
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        for smooth_s in (0.5, 2.0):
            smoother = Smoother(smooth_s)
            here = [smoother(row, second * 1_000_000_000) for second, row in enumerate(frames)]
            there = page.evaluate(script, [{"smooth_s": smooth_s, "labels": [], "top": 5}, frames.tolist()])
            assert [index for index, _ in there] == [leader for _, leader in here]
            np.testing.assert_allclose([share for _, share in there], [mean[at] for mean, at in here], atol=1e-6)
            assert {leader for _, leader in here} == {7, 900}


def test_a_notice_is_shown_for_a_moment_once(chrome: Any) -> None:
    toast = "document.getElementById('toast')"
    with serving() as view, opened(chrome, view.url) as page:
        view.show(update(0, plain(0, 0, 0)))
        page.until(f"{SHOWN} === 'circle'")
        view.notice("saved 20250131-120000-123-tench.png")
        page.until(f"{toast}.matches('.shown') && {toast}.textContent === 'saved 20250131-120000-123-tench.png'")
        page.until(f"!{toast}.matches('.shown')")
        view.show(update(1, plain(0, 0, 0), label="star"))
        page.until(f"{SHOWN} === 'star'")
        assert not page.evaluate(f"{toast}.matches('.shown')")
        with opened(chrome, view.url, **PHONE) as late:
            view.notice("a line " * 30)
            late.until(f"{toast}.matches('.shown')")
            assert late.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert late.evaluate(f"{toast}.getBoundingClientRect().left >= 0")
        assert page.complaints == []


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_litert_in_the_page_answers_what_litert_here_answers(chrome: Any, precision: str) -> None:
    file = default_model().with_name(f"symbols_{precision}.tflite")
    worst, agreed = 0.0, 0
    with serving() as view, ModelProcess(file) as model:
        view.in_page.use(file)
        prep = Preprocessing(*model.info.inputs[0].shape[1:3])
        with opened(chrome, f"{view.url}healthz") as page:
            for number in range(20):
                pixels = fit(render(number, 77, 96), prep)
                here, there = model.run(pixels[None])[0], scores_in_page(page, pixels)
                worst = max(worst, float(np.abs(here - there).max()))
                agreed += int(here.argmax() == there.argmax())
    assert agreed == 20
    assert worst < (0.05 if precision == "int8" else 1e-4)


def test_integers_that_a_foreign_file_answers_are_the_same_probabilities_in_the_page(chrome: Any, data: Path) -> None:
    file = data / "foreign" / "mobilenet_v1_0.25_128_quant.tflite"
    with serving() as view, ModelProcess(file) as model, opened(chrome, f"{view.url}healthz") as page:
        view.in_page.use(file, artifact.describe(file, model.info, None))
        pixels = fit(decode(data / "photos" / "hot_dog.jpg"), Preprocessing(128, 128))
        here = model.run(pixels[None])[0]
        assert here.max() > 0.3
        np.testing.assert_allclose(scores_in_page(page, pixels), here, atol=0.02)


@pytest.mark.parametrize(
    ("size", "out", "crop"),
    [
        ((720, 1280), (224, 224), "center"),
        ((480, 640), (96, 96), "center"),
        ((640, 480), (224, 224), "squash"),
        ((1080, 1920), (224, 224), "center"),
        ((300, 299), (224, 224), "center"),
        ((96, 96), (96, 96), "center"),
        ((50, 40), (224, 224), "center"),
        ((701, 333), (96, 160), "squash"),
        ((1, 1), (96, 96), "center"),
    ],
)
def test_the_pages_preprocessing_is_ours_byte_for_byte(
    chrome: Any, size: tuple[int, int], out: tuple[int, int], crop: Any
) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    script = """async ([text, height, width, outHeight, outWidth, crop]) => {
        const { cropOf, resize } = await import("/page/fit.js");
        const rgb = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const at = cropOf(width, height, outWidth, outHeight, crop);
        const rgba = new Uint8ClampedArray(at.width * at.height * 4);
        for (let y = 0; y < at.height; y++)
            for (let x = 0; x < at.width; x++)
                for (let k = 0; k < 3; k++)
                    rgba[(y * at.width + x) * 4 + k] = rgb[((y + at.top) * width + x + at.left) * 3 + k];
        return [...resize(rgba, at.width, at.height, outWidth, outHeight)];
    }"""
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        text = base64.b64encode(picture.tobytes()).decode()
        there = np.array(page.evaluate(script, [text, *size, *out, crop]), np.uint8).reshape(*out, 3)
    here = fit(picture, Preprocessing(*out, crop))
    if size[0] == size[1] or crop == "center":
        np.testing.assert_array_equal(there, here)
    else:  # the order of Pillow's passes depends on its version, and shows in the last bit
        assert np.abs(there.astype(int) - here).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("where", ["server", "page"])
def test_a_photograph_held_before_the_camera_keeps_its_top_1(play: Any, data: Path, tmp_path: Path, where: str) -> None:
    file = data / "foreign" / "mobilenet_v2_1.0_224_quant.tflite"
    labels = read_labels(data / "foreign" / "imagenet_labels.txt").names
    photo = decode(data / "photos" / "hot_dog.jpg")
    frame = clip(tmp_path / "photo.mjpeg", photo)
    with ModelProcess(file) as model:
        expected = labels[int(model.run(fit(frame, Preprocessing(224, 224))[None])[0].argmax())]
    assert expected == HOT_DOG
    with browser(play, tmp_path / "photo.mjpeg") as running:
        if where == "server":
            with answering(file, labels) as (view, loop), opened(running, view.url) as page:
                page.click("#camera")
                page.until(f"{SHOWN} === {json.dumps(expected)}")
                eventually(lambda: loop.answered > 10, 30)
                assert page.evaluate(SHOWN) == expected
        else:
            with serving() as view:
                view.in_page.use(file)
                view.in_page.labels = labels
                with opened(running, view.url) as page:
                    page.until("document.getElementById('model').textContent.includes('LiteRT.js')")
                    page.click("#camera")
                    page.until(f"{SHOWN} === {json.dumps(expected)}")
                    assert page.complaints == []


def test_the_vendored_runtime_is_licensed_and_light() -> None:
    folder = Path(artifact.__file__).parent / "camera" / "web" / "page" / "litert"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "2.5.3" in (folder / "README.md").read_text()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10 << 20


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


def test_what_is_held_in_a_pause_is_turned_clockwise(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as page:
        page.evaluate(f"() => {{ {CORNER_CAMERA} }}")
        held = paused(page, view, loop)
        page.evaluate("() => { window.corner = '#00ff00'; }")  # it goes on, unseen
        page.wait_for_timeout(300)
        corners = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
        assert [pixel(page, *corner)[0] > 200 for corner in corners] == [True, False, False, False]
        for turns in (1, 2):
            page.keyboard.press("r")
            page.wait_for_timeout(200)
            view.show(held)
            page.until(f"document.getElementById('picture').width === {320 if turns == 2 else 240}")
            assert [pixel(page, *corner)[0] > 200 for corner in corners] == [place == turns for place in range(4)]


TAKEN_EARLIER = """
    const ask = HTMLVideoElement.prototype.requestVideoFrameCallback;
    HTMLVideoElement.prototype.requestVideoFrameCallback = function (come) {
        return ask.call(this, (now, told) => come(now, { ...told, captureTime: now - 400 }));
    };
"""


@pytest.mark.parametrize("where", ["server", "page"])
def test_the_age_of_a_pages_own_pictures_counts_from_when_they_were_taken(chrome: Any, where: str) -> None:
    with answering(default_model(), LABELS) as (own, _), serving() as other:
        other.in_page.use(default_model())
        with opened(chrome, own.url if where == "server" else other.url) as page:
            page.evaluate(f"() => {{ {TAKEN_EARLIER} }}")
            if where == "page":
                page.until("document.getElementById('model').textContent.includes('LiteRT.js')")
            page.click("#camera")
            age = "[...document.querySelectorAll('#figures > div')].find((one) => one.textContent.startsWith('age'))"
            page.until(f"parseInt({age}?.lastChild.textContent) >= 400")
            p50, p95 = (int(one.removesuffix(" ms")) for one in figures(page)["age p50 / p95"].split(" / "))
            assert 400 <= p50 <= p95


def test_percentiles_of_the_page_are_those_of_sorted_values(chrome: Any) -> None:
    script = """async () => {
        const { Recent } = await import("/page/panel.js");
        const recent = new Recent();
        for (let value = 100; value >= 1; value--) recent.add(value);
        return [0.5, 0.95].map((share) => recent.percentile(share));
    }"""
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        assert page.evaluate(script) == pytest.approx([50, 95], abs=1)


def test_what_this_frame_alone_says_is_named_where_it_is_not_on_top(chrome: Any) -> None:
    alone = "document.getElementById('alone').textContent"
    with serving() as view, opened(chrome, view.url) as page:
        same = update(0, plain(0, 0, 0))
        assert same.answer is not None
        first, second = same.answer.top
        view.show(replace(same, answer=replace(same.answer, top=(replace(first, raw=0.25), second), raw=second)))
        page.until(f"{alone} === ': star'")
        assert page.inner_text("#labels li:first-child .share") == "75.0 %"
        bar = "document.querySelector('#labels .bar').style.getPropertyValue"
        assert [float(page.evaluate(f"{bar}('{name}')")) for name in ("--smoothed", "--raw-share")] == [0.75, 0.25]
        view.show(update(1, plain(0, 0, 0), label="tench"))
        page.until(f"{SHOWN} === 'tench'")
        assert page.evaluate(alone) == ""


def test_what_is_held_in_a_pause_is_seen_anew_without_what_was_before(chrome: Any) -> None:
    corner_is_red = """async () => {
        const { Classifier } = await import("/page/classifier.js");
        Classifier.prototype.run = async ([red]) => Float32Array.from(red > 100 ? [1, 0] : [0, 1]);
    }"""
    with serving() as view:
        view.in_page.use(default_model())
        view.in_page.labels, view.in_page.smooth_s = ("as it was", "turned"), 60.0
        with opened(chrome, view.url) as page:
            page.until("document.getElementById('model').textContent.includes('LiteRT.js')")
            page.evaluate(f"() => {{ {CORNER_CAMERA} }}")
            page.evaluate(corner_is_red)
            page.click("#camera")
            page.until(f"{SHOWN} === 'as it was'")
            page.keyboard.press(" ")
            page.keyboard.press("r")
            page.until(f"{SHOWN} === 'turned'", 5)
            page.keyboard.press(" ")
            page.wait_for_timeout(400)
            assert pixel(page, 0.75, 0.25)[0] > 200  # clockwise, as what was held
            page.keyboard.press("m")
            page.wait_for_selector(".mirrored")
            assert page.complaints == []
