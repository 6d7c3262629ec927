"""The page in a real Chromium: what it shows, how it is laid out, and how it finds its server again."""

from __future__ import annotations

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

from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Controls, Update
from edgenet.camera.sources.browser import FrameInbox
from edgenet.camera.web import broadcast
from edgenet.camera.web.security import Tls
from edgenet.camera.web.server import WebView
from edgenet.symbols.glyphs import LABELS

from .browser import (
    SHOWN,
    answering,
    browser,
    eventually,
    figures,
    get,
    opened,
    own_certificate,
    pixel,
    plain,
    serving,
    update,
)

PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True, "has_touch": True}


@pytest.mark.parametrize("options", [{}, PHONE])
def test_the_page_shows_pictures_labels_and_figures(chrome: Any, options: dict[str, Any]) -> None:
    with serving() as view, opened(chrome, view.url, **options) as page:
        page.wait_for_selector("#empty:visible")
        view.show(replace(update(0), paused=True))
        page.wait_for_selector("#paused:visible")
        edges = "(({ top, bottom }) => [top, bottom])(document.getElementById('%s').getBoundingClientRect())"
        assert page.evaluate(edges % "empty")[1] < page.evaluate(edges % "paused")[0]
        for number in range(20):
            view.show(update(number, plain(0, 128, 255, (720, 1280)), label="tench, Tinca tinca"))
            page.wait_for_timeout(30)
        page.until(f"{SHOWN} === 'tench, Tinca tinca'")
        assert np.abs(np.subtract(pixel(page), (255, 128, 0))).max() < 10
        picture = "document.getElementById('picture')"
        assert page.evaluate(f"{picture}.width === 1280 && {picture}.height === 720")
        assert not page.is_visible("#empty")
        assert page.inner_text("#labels li:first-child .name") == "tench, Tinca tinca"
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
        assert page.is_visible("#figures :text('temperature')")
        unknown = {"age_p50_ms": 0.0, "age_p95_ms": 0.0, "preprocess_ms": 0.0, "inference_ms": 0.0}
        view.show(replace(shown, stats=replace(shown.stats, **unknown, temperature_c=None, threads=4)))
        page.until("!document.getElementById('figures').textContent.includes('6012')")
        assert [figures(page)[name] for name in ("age p50 / p95", "preprocess", "inference")] == ["–"] * 3
        assert not page.is_visible("#figures :text('temperature')")
        assert page.inner_text("#model").endswith(" · 4 threads")
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
        const element = document.getElementById(id);
        return ![0.1, 0.5, 0.9].every((share) => {
            const place = () => {
                const { left, right, top, bottom } = element.getBoundingClientRect();
                return [(left + right) / 2, top + share * (bottom - top)];
            };
            scrollBy(0, place()[1] - innerHeight / 4);
            return document.elementFromPoint(...place())?.id === id;
        });
    })"""
    with serving(inbox=FrameInbox()) as view:
        shown = long_figures()
        trouble = "the browser's camera is gone: start it again on its page"
        view.show(replace(shown, stats=replace(shown.stats, trouble=trouble)))
        for width, height in ((320, 568), (390, 844), (820, 1180), (667, 375), (1280, 720), (667, 280), (320, 180)):
            size = {"width": width, "height": height}
            with opened(chrome, view.url, viewport=size, color_scheme=scheme) as page:
                page.until("document.getElementById('figures').textContent.includes('1105 / 2139 ms')")
                page.screenshot(path=str(tmp_path / f"{width}.png"))
                assert page.evaluate(STICKS_OUT) == []
                assert page.evaluate(covered) == []
                row = page.evaluate("document.querySelector('.buttons').getBoundingClientRect().height")
                assert row < 80


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
        page.click("[data-do=mirror]")
        eventually(lambda: controls.mirror)
        page.keyboard.press(" ")  # who clicked has no button in mind
        eventually(lambda: not controls.paused)
        assert controls.mirror
        page.evaluate("() => addEventListener('keydown', (event) => { window.ours = event.defaultPrevented; })")
        page.keyboard.press(" ")
        assert page.evaluate("ours")  # and does not scroll
        controls.rotate = 0
        for _ in range(2):  # held down
            page.keyboard.down("R")  # with caps lock
        page.keyboard.up("R")
        eventually(lambda: controls.rotate)
        controls.save.clear()
        for press_those in ("Control+s", "Alt+s", "Meta+s"):  # the browser's own
            page.keyboard.press(press_those)
        page.wait_for_timeout(200)
        assert controls.paused
        assert controls.rotate == 90
        assert not controls.save.is_set()
        assert page.complaints == []


def test_mirroring_turns_the_display_alone(chrome: Any) -> None:
    with serving() as view, opened(chrome, view.url) as page:
        shown = update(0, plain(0, 0, 0))
        view.show(type(shown)(shown.answer, shown.stats, paused=True, mirror=True))
        page.wait_for_selector(".mirrored")
        assert page.is_visible("#paused")
        # As they are read aloud: their keys are no part of their names, and what says Resume is not pressed.
        assert page.page.get_by_role("button", name="Resume", exact=True).get_attribute("aria-pressed") is None
        assert page.page.get_by_role("button", name="Mirror", exact=True).get_attribute("aria-pressed") == "true"
        for button in ("Rotate", "Save", "Precision"):
            assert page.page.get_by_role("button", name=button, exact=True).is_visible()
        assert "matrix(-1" in page.evaluate("getComputedStyle(document.getElementById('picture')).transform")


def test_the_page_comes_back_when_the_server_does(chrome: Any) -> None:
    with serving() as first, opened(chrome, first.url) as page:
        first.show(update(0, plain(0, 0, 0), label="before"))
        page.until(f"{SHOWN} === 'before'")
        page.evaluate("() => { window.loaded = 'once'; }")
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
            assert page.evaluate("window.loaded") == "once"
        page.until("document.getElementById('banner').textContent.includes('trying again')")
        with serving(port=first.port, inbox=FrameInbox()) as third:  # of other options: it takes this device's camera
            page.wait_for_selector("#camera:visible")
            third.show(update(0, plain(0, 0, 0), label="of another run"))
            page.until(f"{SHOWN} === 'of another run'")


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


def test_a_hidden_page_is_no_viewer_yet_and_acknowledges_nothing(chrome: Any) -> None:
    hidden = "Object.defineProperty(document, 'hidden', {value: true, configurable: true})"
    seen = "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))"
    with serving() as view, opened(chrome, "about:blank") as page:
        page.page.add_init_script(hidden)
        page.goto(view.url)
        page.wait_for_timeout(500)
        assert not view.watched.is_set()  # what a clip shows first would be lost
        page.evaluate(seen)
        view.show(update(0, plain(0, 0, 0), label="seen"))
        page.until(f"{SHOWN} === 'seen'")
        page.evaluate(hidden)
        for number in range(1, 75):
            view.show(update(number, plain(0, 0, 0), label="unseen"))
            page.wait_for_timeout(20)
        assert page.evaluate(SHOWN) == "seen"
        page.evaluate(seen)
        page.until(f"{SHOWN} === 'unseen'")
        view.show(update(75, plain(0, 0, 0), label="seen again"))
        page.until(f"{SHOWN} === 'seen again'")
        page.wait_for_timeout(300)
        view.show(update(76, plain(0, 0, 0), label="and again"))  # whose figures count the one before
        page.until(f"{SHOWN} === 'and again'")
        assert int(figures(page)["age p50 / p95"].split()[2]) < 1000  # how long nobody looked is no age


def test_who_came_over_tls_may_come_without(chrome: Any, tmp_path: Path) -> None:
    with (
        serving(host="0.0.0.0", tls=Tls(*own_certificate(tmp_path))) as first,
        opened(chrome, first.url, ignore_https_errors=True) as page,
    ):
        first.show(update(0, plain(0, 0, 0), label="over TLS"))
        page.until(f"{SHOWN} === 'over TLS'")
        first.close()
        with serving(host="0.0.0.0", port=first.port) as second:
            second.show(update(0, plain(0, 0, 0), label="without"))
            page.goto(second.url)
            page.until(f"{SHOWN} === 'without'")


def test_of_a_name_from_right_to_left_the_beginning_is_shown(chrome: Any) -> None:
    name = "".join(chr(0x0627 + place % 20) for place in range(300))
    with serving() as view, opened(chrome, view.url, viewport={"width": 390, "height": 844}) as page:
        view.show(update(0, plain(0, 0, 0), label=name))
        page.until(f"{SHOWN} === {json.dumps(name)}")
        first = """(() => {
            const element = document.querySelector("#labels .name"), range = document.createRange();
            range.setStart(element.firstChild, 0);
            range.setEnd(element.firstChild, 1);
            const [letter, whole] = [range, element].map((one) => one.getBoundingClientRect());
            return letter.left >= whole.left && letter.right <= whole.right + 1;
        })()"""
        assert page.evaluate(first)


def test_where_colours_are_forced_bars_and_pressed_buttons_are_still_told(chrome: Any) -> None:
    with serving() as view, opened(chrome, view.url, forced_colors="active") as page:
        shown = update(0, plain(0, 0, 0))
        view.show(type(shown)(shown.answer, shown.stats, paused=True, mirror=True))
        page.wait_for_selector(".mirrored")
        assert page.evaluate("matchMedia('(forced-colors: active)').matches")
        ground = "(what, part) => getComputedStyle(document.querySelector(what), part).backgroundColor"
        for one, other in (
            (("#labels .bar", None), ("#labels .bar", "::before")),
            (("#labels .bar", None), ("#labels .bar", "::after")),
            ((".key.smoothed", None), (".key.raw", None)),
            (("[data-do=mirror]", None), ("[data-do=rotate]", None)),
            (("[data-do=pause]", None), ("[data-do=rotate]", None)),
        ):
            colours = [
                page.evaluate(f"([what, part]) => ({ground})(what, part)", list(which)) for which in (one, other)
            ]
            assert colours[0] != colours[1]


def test_a_key_that_finds_no_connection_says_so(chrome: Any) -> None:
    with serving() as view, opened(chrome, view.url) as page:
        view.show(update(0, plain(0, 0, 0)))
        page.wait_for_selector("#labels li")
        view.close()
        page.until("document.getElementById('banner').textContent.includes('trying again')")
        page.keyboard.press("m")
        page.until("document.getElementById('toast').matches('.shown')")
        assert page.inner_text("#toast").startswith("Not connected")


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
        self._end(self._plugs[::2])

    def sleep(self) -> None:
        """End what runs on the server's side alone, as while a laptop sleeps; who sends something then is told."""
        self._end(self._plugs[1::2])

    @staticmethod
    def _end(plugs: list[socket.socket]) -> None:
        for plug in plugs:
            with suppress(OSError):
                plug.shutdown(socket.SHUT_RDWR)

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                self.whole.wait()
                if len(data) > 4096:
                    time.sleep(self.slow_s)
                other.sendall(data)
            if not self.roams:
                other.shutdown(socket.SHUT_WR)
        except OSError:
            if one in self._plugs[::2]:
                self._end([one])

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


SLOW_TO_TELL = """
    const ask = window.fetch;
    window.fetch = async (...given) => {
        await new Promise((resolve) => setTimeout(resolve, 1500));
        return ask(...given).finally(() => { window.told = true; });
    };
"""


def test_a_phone_that_changes_its_network_goes_on_sending(chrome: Any) -> None:
    with (
        answering(default_model(), LABELS) as (view, loop),
        far(view, roams=True) as (cable, address),
        opened(chrome, address) as page,
    ):
        page.click("#camera")
        eventually(lambda: loop.answered > 3)
        page.evaluate(f"() => {{ {SLOW_TO_TELL} }}")
        cable.roam()
        page.wait_for_selector("#banner")
        count = loop.answered
        eventually(lambda: loop.answered > count + 20)
        assert page.inner_text("#camera") == "Stop"
        page.until("told")
        page.wait_for_timeout(100)
        assert not page.is_visible("#banner")  # why it was lost is of no interest any more
        assert json.loads(get(f"{view.url}stats.json")[2])["encoded"] < 5  # it still sees its own


def test_a_laptop_that_wakes_up_sees_pictures_again_within_seconds(chrome: Any) -> None:
    with serving() as view, far(view, roams=True) as (cable, address), opened(chrome, address) as page:
        view.show(update(0, plain(0, 0, 0), label="before"))
        page.until(f"{SHOWN} === 'before'")
        cable.sleep()
        view.show(update(1, plain(0, 0, 0), label="after"))
        page.until(f"{SHOWN} === 'after'", 12)


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


def test_a_door_that_does_not_open_is_knocked_at_again(chrome: Any) -> None:
    never = """
        window.asked = 0;
        window.WebSocket = class { constructor() { asked++; this.readyState = 0; } close() {} };
        WebSocket.CONNECTING = 0;
    """
    with serving() as view, opened(chrome, "about:blank") as page:
        page.page.add_init_script(never)
        page.page.clock.install()
        page.goto(view.url)
        page.until("window.asked === 1")
        page.page.clock.run_for(7000)
        page.until("window.asked === 2", 5)
        page.until("document.getElementById('banner').textContent === 'The connection was lost: trying again'", 5)


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
        view.show(replace(same, answer=replace(same.answer, top=(first,))))  # of another model
        page.wait_for_selector("#labels li:nth-child(2)", state="hidden")
        view.show(update(1, plain(0, 0, 0), label="tench"))
        page.until(f"{SHOWN} === 'tench'")
        assert page.evaluate(alone) == ""
        assert page.is_visible("#labels li:nth-child(2)")
