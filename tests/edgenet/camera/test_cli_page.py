"""edgenet camera and its page, from the command line to a real Chromium with a camera of its own."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.camera.classifier import default_model
from edgenet.image import Pixels, decode
from tests.devices.tiny_models import tiny_tflite, write

from .browser import SHOWN, browser, clip, eventually, get, opened, own_certificate
from .started import Started, lines

CAMERA = ("--source", "browser", "--port", "0")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str, Path]:
    """Options that name a certificate, as people make one, and its key."""
    certificate, key = own_certificate(tmp_path_factory.mktemp("tls"))
    return "--tls-cert", certificate, "--tls-key", key


def address(it: Started) -> str:
    return str(it.wait(lambda: re.search(r"^open (https?://\S+)$", it.err, re.MULTILINE))[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_what_a_browsers_camera_sees_is_on_its_page_and_in_the_log(
    chrome: Any, symbol: tuple[Path, str, Pixels], tls: tuple[object, ...], tmp_path: Path, host: str
) -> None:
    """On this machine without TLS, from the network with it: both are what browsers give a camera to."""
    log = tmp_path / "seen.jsonl"
    far = host == "0.0.0.0"
    options = ("--host", host, *(tls if far else ()), "--log", log)
    with Started(tmp_path, *CAMERA, *options) as it:
        url = address(it)
        assert url.startswith("https://" if far else "http://127.0.0.1:")
        assert ("?token=" in url) == far
        with opened(chrome, url, ignore_https_errors=True) as page:
            page.click("#camera")
            page.until(f"{SHOWN} === {json.dumps(symbol[1])}")
            eventually(lambda: [one["label"] for one in lines(log)][5:6] == [symbol[1]])
            assert page.complaints == []
        it.interrupt()
        assert it.ends() == 0
        assert "TLS" not in it.err
    assert {one["raw_label"] for one in lines(log)} == {symbol[1]}


@pytest.mark.slow
def test_photographs_before_a_browsers_camera_get_their_own_names(play: Any, data: Path, tmp_path: Path) -> None:
    file, names = (data / "foreign" / name for name in ("mobilenet_v2_1.0_224_quant.tflite", "imagenet_labels.txt"))
    for photo, words in (("hot_dog.jpg", "hotdog"), ("sunflower.bmp", "daisy"), ("parrot.jpg", "macaw")):
        log = tmp_path / f"{photo}.jsonl"
        clip(tmp_path / "photo.mjpeg", decode(data / "photos" / photo))
        with (
            browser(play, tmp_path / "photo.mjpeg") as running,
            Started(tmp_path, file, "--labels", names, *CAMERA, "--log", log) as it,
            opened(running, address(it)) as page,
        ):
            page.click("#camera")
            page.until(f"{SHOWN}?.includes({json.dumps(words)})")
            assert words in eventually(lambda kept=log: lines(kept)[10:11])[0]["label"]


def test_a_page_that_browsers_give_no_camera_is_warned_of(chrome: Any, tmp_path: Path) -> None:
    with Started(tmp_path, *CAMERA, "--host", "0.0.0.0") as it:
        url = address(it)
        it.wait(lambda: "warning: browsers on other devices give a page without TLS no camera: give --tls" in it.err)
        if "127.0.0.1" in url or "localhost" in url:
            pytest.skip("this machine is in no network")
        with opened(chrome, url) as page:  # so it is
            page.click("#camera")
            page.until("document.getElementById('banner').textContent.includes('--tls-cert')")


def film(path: Path, seconds: int = 2) -> Path:
    """Write a clip of 20 frames a second that grows brighter."""
    import cv2

    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (320, 240))
    for number in range(20 * seconds):
        video.write(np.full((240, 320, 3), 2 * number, np.uint8))
    video.release()
    return path


def test_a_clip_for_the_page_alone_waits_for_its_first_viewer_who_is_told_of_its_end(
    chrome: Any, tmp_path: Path
) -> None:
    source = ("--source", film(tmp_path / "clip.mp4"), "--view", "web", "--port", "0")
    banner = "document.getElementById('banner').textContent"
    with Started(tmp_path, *source) as it:
        url = address(it)
        it.wait(lambda: it.err.endswith("clip.mp4, 320x240 begins when the page is opened\n"))
        time.sleep(2.3)  # longer than it takes
        assert it.process.poll() is None
        assert json.loads(get(f"{url}stats.json")[2]) == {"viewers": 0, "encoded": 0}  # who asks for that is no viewer
        with opened(chrome, url) as page:
            page.until(f"{SHOWN} !== undefined", 5)
            assert json.loads(get(f"{url}stats.json")[2])["frame"] < 20
            assert it.ends(5) == 0
            page.until(f"{banner} === 'That was all. edgenet camera has ended.'", 5)


def test_who_waits_for_a_viewer_is_ended_at_once(tmp_path: Path) -> None:
    with Started(tmp_path, "--source", film(tmp_path / "clip.mp4"), "--view", "web", "--port", "0") as it:
        it.wait(lambda: "begins when the page is opened" in it.err)
        time.sleep(0.3)
        it.interrupt()
        assert it.ends() == 0


def test_what_buttons_do_is_told_on_the_page(chrome: Any, tmp_path: Path) -> None:
    model = write(tmp_path, "tiny.tflite", tiny_tflite())
    toast = "document.getElementById('toast').textContent"
    with Started(tmp_path, model, *CAMERA, "--roi", "0,0,200,100") as it, opened(chrome, address(it)) as page:
        page.click("#camera")
        page.until(f"{SHOWN}?.startsWith('class ')")
        picture = "document.getElementById('picture')"
        page.until(f"{picture}.width === 200 && {picture}.height === 100", 5)  # it shows what the model is shown
        page.keyboard.press(" ")
        page.wait_for_selector("#paused:visible")
        page.keyboard.press("r")
        page.until(f"{picture}.width === 100 && {picture}.height === 200", 5)  # turned once, by the server
        page.keyboard.press(" ")
        page.keyboard.press("p")
        page.until(f"{toast}.includes('tiny.tflite has no sibling of another precision')")
        page.keyboard.press("s")
        page.until(f"{toast}.startsWith('saved 2')")
        assert (tmp_path / page.evaluate(toast).removeprefix("saved ")).exists()


def test_in_the_browser_options_reach_the_page(chrome: Any, symbol: tuple[Path, str, Pixels], tmp_path: Path) -> None:
    options = ("--port", "0", "--top", "2", "--mirror", "--rotate", "90", "--smooth", "0")
    with Started(tmp_path, default_model(), "--in-browser", *options) as it, opened(chrome, address(it)) as page:
        page.wait_for_selector(".mirrored")
        assert not page.is_visible("[data-do=precision]")  # there is one file
        page.evaluate("() => { delete HTMLVideoElement.prototype.requestVideoFrameCallback; }")  # as older Firefox
        page.click("#camera")
        page.until("document.querySelectorAll('#labels li').length === 2")
        page.until("document.getElementById('picture').height > document.getElementById('picture').width", 5)
        config = page.evaluate("fetch('config.json').then((answer) => answer.json())")["model"]
        known = {"rotate": 90, "mirror": True, "top": 2, "smooth_s": 0, "probabilities": True}
        assert config.items() >= known.items()
        assert page.complaints == []
