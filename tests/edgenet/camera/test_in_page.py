"""The model in the page itself: LiteRT.js in a real Chromium, held against LiteRT here."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.runtimes.model_process import ModelProcess
from edgenet import artifact
from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Controls
from edgenet.camera.smoothing import Smoother, ranked
from edgenet.image import Pixels, Preprocessing, decode, fit
from edgenet.symbols.generate import render

from .browser import CORNER_CAMERA, SHOWN, figures, opened, pixel, serving

CANVAS_CAMERA = """
    const paper = document.createElement("canvas");
    [paper.width, paper.height] = [1280, 960];
    const pen = paper.getContext("2d");
    let count = 0;
    window.moving = true;
    setInterval(() => {
        pen.fillStyle = ["red", "blue"][count++ % 2];
        if (moving) pen.fillRect(0, 0, 640, 960);
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
            assert page.evaluate("document.getElementById('picture').width") == 640  # enough for any model
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
            rates = "[...document.querySelectorAll('#figures dd')].slice(0, 3).map((one) => one.textContent).join()"
            page.until(f"/^[1-9].* fps,0.0 fps,–$/.test({rates})")  # of the pause
            page.keyboard.press(" ")
            page.until(f"/^[1-9].* fps,[1-9].* fps,.* ms$/.test({rates})")
            page.click("#camera")
            page.until(f"{rates} === '0.0 fps,0.0 fps,–'", 1)
            assert float(figures(page)["inference"].split()[0]) > 0  # of the picture that is still there
            assert page.complaints == []


def test_a_slow_model_in_the_page_has_a_rate_and_makes_its_camera_no_faster(chrome: Any) -> None:
    slow = """async () => {
        const { Classifier } = await import("/page/classifier.js");
        const run = Classifier.prototype.run;
        Classifier.prototype.run = async function (pixels) {
            await new Promise((resolve) => setTimeout(resolve, 2200));
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
            page.until("parseFloat(document.querySelectorAll('#figures dd')[1].textContent) > 0")
            assert 0.2 < float(figures(page)["inference rate"].split()[0]) < 0.5


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
            rows = "[...document.querySelectorAll('#figures div')]"
            page.until(f"{rows}.some((row) => /^inference[0-9.]+ ms$/.test(row.textContent))")  # up to 250 ms later
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


def test_a_model_that_does_not_open_in_the_page_is_said_there(chrome: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.tflite"
    file.write_bytes(default_model().read_bytes())
    no_memory = "WebAssembly.instantiate = WebAssembly.instantiateStreaming = () => Promise.reject(Error('no memory'));"
    with serving() as view, opened(chrome, "about:blank") as page:
        view.in_page.use(file, artifact.load(default_model()))

        def said(words: str) -> None:
            page.goto(view.url)
            page.until(f"document.getElementById('banner').textContent.includes({json.dumps(words)})")
            assert page.is_visible("#banner")
            assert not page.is_visible("#empty")  # neither is the model being loaded, nor can the camera be started
            assert not page.is_visible("#start")

        file.write_bytes(file.read_bytes()[:50_000])
        said("The model file has changed: start edgenet camera again.")
        view.in_page.use(file, view.in_page.known)
        said("LiteRT.js does not take this model: ")
        file.unlink()
        said("The model file is gone: start edgenet camera again.")
        view.in_page.use(default_model())
        page.page.add_init_script(no_memory)
        said("LiteRT.js does not start in this browser (")


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
        negative = page.evaluate(script, [foreign, [[0.9, -0.4, 0.5]]])
        with pytest.raises(Exception, match="The model answers NaN"):
            page.evaluate(script, [foreign, [[float("nan"), 0.5]]])
    powers = np.exp(frames)
    softmax = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shown, [frames[0], *softmax[1:]], atol=1e-6)  # once logits, always logits
    np.testing.assert_allclose(own, frames[1:2], atol=1e-6)
    assert min(negative[0]) > 0
    assert sum(negative[0]) == pytest.approx(1)


def test_the_page_puts_the_same_label_first_as_the_server(chrome: Any) -> None:
    """Of a thousand classes, of which none reaches the margin."""
    script = """async ([config, frames]) => {
        const { Classifier } = await import("/page/classifier.js");
        const fresh = { config, average: null, answered: 0, leader: -1 };
        const classifier = Object.assign(Object.create(Classifier.prototype), fresh);
        return frames.map((scores, second) => {
            const { top, raw } = classifier.rank(Float32Array.from(scores), 1000 * second);
            return { top, raw: raw.index };
        });
    }"""
    frames = np.random.default_rng(5).random((12, 1000))
    frames *= 0.96 / frames.sum(axis=1, keepdims=True)
    names = [str(index) for index in range(1000)]
    frames[range(12), [7] * 4 + [900] * 2 + [7] * 2 + [900] * 4] += 0.04
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        for smooth_s, listed in ((0, 5), (0.5, 5), (2.0, 1)):
            smoother = Smoother(smooth_s)
            config = {"smooth_s": smooth_s, "labels": [], "top": listed}
            there = page.evaluate(script, [config, frames.tolist()])
            leaders = set()
            for second, (row, shown) in enumerate(zip(frames, there, strict=True)):
                mean, leader = smoother(row, second * 1_000_000_000)
                here = ranked(row, mean, leader, names, listed)
                assert [one["index"] for one in shown["top"]] == [one.index for one in here]
                for of in ("raw", "smoothed"):
                    np.testing.assert_allclose(
                        [one[of] for one in shown["top"]], [getattr(one, of) for one in here], atol=1e-6
                    )
                assert shown["raw"] == row.argmax()
                leaders.add(leader)
            assert leaders == {7, 900}


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_litert_in_the_page_answers_what_litert_here_answers(chrome: Any, precision: str) -> None:
    file = default_model().with_name(f"symbols_{precision}.tflite")
    freed = """async () => {
        const { Tensor } = await import("/page/litert/litert.js");
        const free = Tensor.prototype.delete;
        window.freed = 0;
        Tensor.prototype.delete = function () {
            window.freed++;
            free.call(this);
        };
    }"""
    worst, agreed = 0.0, 0
    with serving() as view, ModelProcess(file) as model:
        view.in_page.use(file)
        prep = Preprocessing(*model.info.inputs[0].shape[1:3])
        with opened(chrome, f"{view.url}healthz") as page:
            page.evaluate(freed)
            for number in range(20):
                pixels = fit(render(number, 77, 96), prep)
                here, there = model.run(pixels[None])[0], scores_in_page(page, pixels)
                worst = max(worst, float(np.abs(here - there).max()))
                agreed += int(here.argmax() == there.argmax())
            assert page.evaluate("window.freed") == 40  # what went in and what came out: WebAssembly has no collector
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
        const levels = resize(rgba, at.width, at.height, outWidth, outHeight);
        return btoa(levels.reduce((text, level) => text + String.fromCharCode(level), ""));
    }"""
    with serving() as view, opened(chrome, f"{view.url}healthz") as page:
        text = base64.b64encode(picture.tobytes()).decode()
        said = page.evaluate(script, [text, *size, *out, crop])  # text: of numbers, each would travel by itself
    there = np.frombuffer(base64.b64decode(said), np.uint8).reshape(*out, 3)
    here = fit(picture, Preprocessing(*out, crop))
    if size[0] == size[1] or crop == "center":
        np.testing.assert_array_equal(there, here)
    else:  # the order of Pillow's passes depends on its version, and shows in the last bit
        assert np.abs(there.astype(int) - here).max() <= 1


def test_the_vendored_runtime_is_licensed_and_light() -> None:
    folder = Path(artifact.__file__).parent / "camera" / "web" / "page" / "litert"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "2.5.3" in (folder / "README.md").read_text()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10 << 20


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
            for state in ("attached", "detached"):
                page.keyboard.press("m")
                page.wait_for_selector(".mirrored", state=state)
            assert page.complaints == []


def test_in_the_page_a_camera_is_started_and_started_again_in_a_pause(chrome: Any) -> None:
    picture = "document.getElementById('picture')"
    with serving() as view:
        view.in_page.use(default_model())
        with opened(chrome, view.url) as page:
            page.until("document.getElementById('model').textContent.includes('LiteRT.js')")
            page.evaluate(f"() => {{ {CORNER_CAMERA} }}")
            page.keyboard.press(" ")
            page.click("#camera")
            page.until(f"{SHOWN} !== undefined", 10)  # the first picture is shown, and answered
            assert not page.is_visible("#empty")
            page.evaluate("() => { window.corner = '#00ff00'; }")  # and held
            page.wait_for_timeout(400)
            assert pixel(page, 0.25, 0.25)[0] > 200
            page.click("#camera")
            page.keyboard.press("r")
            page.click("#camera")
            page.until(f"{picture}.height > {picture}.width", 5)  # what is held is turned, though nobody ran then
            assert pixel(page, 0.75, 0.25)[0] > 200
            assert page.complaints == []
