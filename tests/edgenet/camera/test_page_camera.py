"""The camera of whoever looks at the page, in a real Chromium, answered by the server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.runtimes.model_process import ModelProcess
from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Update
from edgenet.camera.web.server import WebView
from edgenet.image import Pixels, Preprocessing, decode, fit
from edgenet.labels import read_labels
from edgenet.symbols.glyphs import LABELS

from .browser import (
    CORNER_CAMERA,
    SHOWN,
    answering,
    browser,
    clip,
    eventually,
    figures,
    opened,
    pixel,
    plain,
    serving,
    update,
)

HOT_DOG = "hotdog, hot dog, red hot"


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
        assert not page.is_visible("#flip")  # there is one
        page.keyboard.press("r")
        page.until("document.getElementById('picture').height > document.getElementById('picture').width", 5)
        answered = loop.answered
        eventually(lambda: loop.answered > answered + 3)
        assert page.inner_text("#source") == "browser camera, 640x480"  # the server turns what it is sent
        for _ in range(3):
            page.keyboard.press("r")
        page.until("document.getElementById('picture').height < document.getElementById('picture').width", 5)
        page.click("#camera")
        assert page.inner_text("#camera").startswith("Start")
        page.until("document.getElementById('banner').textContent.includes('is gone')")
        view.show(update(10_000, plain(0, 0, 255, (480, 640))))  # of somebody else's camera, as large as ours was
        for corner in (0.1, 0.9):
            eventually(lambda at=corner: np.abs(np.subtract(pixel(page, at, at), (255, 0, 0))).max() < 10)
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


def test_a_camera_that_was_lost_is_opened_again_and_no_trouble_any_more_once_it_was_stopped(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as page:
        page.evaluate(f"() => {{ {SLOW_TO_OPEN} }}")
        page.click("#camera")
        eventually(lambda: loop.answered > 3)
        page.evaluate("() => { window.opensAfter = 600; streams.at(-1).getTracks().forEach((track) => track.stop()); }")
        page.until("document.getElementById('banner').textContent === 'The camera is gone. Trying again.'")
        page.until("streams.length === 2")
        answered = loop.answered
        eventually(lambda: loop.answered > answered + 3)
        page.wait_for_selector("#banner", state="hidden")
        page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no'); }; }")
        page.evaluate("() => streams.at(-1).getTracks().forEach((track) => track.stop())")
        page.until("document.getElementById('banner').textContent.includes('Trying again')")
        page.click("#camera")
        page.until("!document.getElementById('banner').textContent.includes('Trying again')")


def test_without_a_camera_the_page_says_what_to_do(chrome: Any) -> None:
    refused = {"NotAllowedError": "allow it", "NotFoundError": "no camera", "NotReadableError": "Another program"}
    with answering(default_model(), LABELS) as (view, _), opened(chrome, view.url) as page:
        for name, words in refused.items():
            denied = f"Promise.reject(new DOMException('no', '{name}'))"
            page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = () => {denied}; }}")
            page.click("#camera")
            page.until(f"document.getElementById('banner').textContent.includes('{words}')")
            assert page.inner_text("#camera").startswith("Start")
        page.evaluate("() => { Object.defineProperty(navigator, 'mediaDevices', {value: undefined}); }")
        page.click("#camera")
        page.until("document.getElementById('banner').textContent.includes('localhost')")
        assert page.inner_text("#camera").startswith("Start")


SLOW_TO_OPEN = """
    window.streams = [];
    window.asked = [];
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((resolve) => setTimeout(resolve, window.opensAfter ?? 0));
        window.asked.push(wanted.video.facingMode);
        window.streams.push(await open(wanted));
        return window.streams.at(-1);
    };
"""
UNPLUGGED = """
    const plugged = navigator.mediaDevices.getUserMedia;
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        if (wanted.video.deviceId) throw new DOMException("no", "OverconstrainedError");
        return plugged(wanted);
    };
    streams.at(-1).getTracks().forEach((track) => track.stop());
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
        page.evaluate("() => { locks[0].released = true; document.dispatchEvent(new Event('visibilitychange')); }")
        page.until("locks.length === 2", 5)  # and again, after somebody was elsewhere
        page.click("#camera")
        assert page.evaluate(LIVE) == 0
        page.until("locks.every(({ released }) => released)", 5)


def test_the_other_camera_is_the_next_one_or_on_a_phone_the_one_that_looks_the_other_way(play: Any) -> None:
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
        page.evaluate(f"() => {{ {UNPLUGGED} }}")
        page.until("streams.length === 4")  # any, where the chosen one is gone
        page.evaluate(
            "() => { MediaStreamTrack.prototype.getSettings = () => ({ facingMode: asked.at(-1) ?? 'environment' }); }"
        )
        for count in (5, 6):
            page.click("#flip")
            page.until(f"streams.length === {count}")
        assert page.evaluate("asked") == ["environment", None, None, "environment", "user", "environment"]
        assert page.evaluate(LIVE) == 1
        page.wait_for_selector("#flip:visible")
        page.click("#camera")
        assert not page.is_visible("#flip")


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


def test_a_camera_that_is_started_in_a_pause_shows_its_first_picture(chrome: Any) -> None:
    with answering(default_model(), LABELS) as (view, loop), opened(chrome, view.url) as page:
        loop.stop.set()
        loop.join(10)
        page.evaluate(f"() => {{ {CORNER_CAMERA} }}")
        view.show(replace(update(0), paused=True))
        page.wait_for_selector("#paused:visible")
        page.click("#camera")
        page.wait_for_selector("#empty", state="hidden")
        assert page.evaluate("document.getElementById('picture').width") == 320
        assert pixel(page, 0.25, 0.25)[0] > 200
        page.evaluate("() => { window.corner = '#00ff00'; }")  # and holds it
        page.wait_for_timeout(400)
        assert pixel(page, 0.25, 0.25)[0] > 200


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
