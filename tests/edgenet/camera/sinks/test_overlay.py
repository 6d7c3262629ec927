"""What is written over pictures of any kind and size: that it is there, right, readable, and costs no crash."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenet.camera.frame import Answer, Frame, Ranked, Update
from edgenet.camera.sinks import lettering, overlay
from edgenet.camera.sinks.lettering import Lettering
from edgenet.camera.sinks.overlay import RAW, RED, SMOOTHED, Painter, figures
from edgenet.image import Pixels
from tests.edgenet.camera.stand_ins import picture, stats, update


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image.flags.writeable = False  # a source's picture is nobody's to write to
    return image


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Relative luminance of blue, green, red (WCAG 2.2)."""
    shares = pixels / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.0722, 0.7152, 0.2126]))


SIZES = [
    (1, 1),
    (2, 3),
    (64, 48),
    (320, 240),
    (641, 481),
    (1280, 720),
    (720, 1280),
    (8000, 10),
    (10, 8000),
    (7680, 4320),
]


@pytest.mark.parametrize("size", SIZES, ids=[f"{width}x{height}" for width, height in SIZES])
def test_pictures_of_any_size_are_shown_with_text_and_left_alone(size: tuple[int, int]) -> None:
    image = noise(*size)
    before = image.copy() if image.size < 10**7 else None
    labels = tuple(f"label {index}" for index in range(60))
    for mirror in (False, True):
        view = Painter().paint(update(image, labels=labels, paused=True, trouble="camera 0 is gone"), mirror=mirror)
        assert view.dtype == np.uint8
        assert max(view.shape[:2]) <= overlay.LONGEST
        assert view.shape[0] >= 240
        assert view.shape[1] >= 320
        assert (view == RED).all(axis=2).any()
        assert (view == SMOOTHED).all(axis=2).any()
    if before is not None:
        assert (image == before).all()
    if 1000 > max(size) >= 640 or size == (1280, 720):
        assert view.shape[:2] == (size[1], size[0])


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.booleans())
def test_text_is_readable_on_any_colour(colour: tuple[int, int, int], rough: bool) -> None:
    image = np.full((480, 640, 3), colour, np.uint8)
    if rough:
        image[::2, ::2] = 255 - image[::2, ::2]
    view = Painter().paint(update(image), mirror=False)
    for ground in (view[4:20, 4:205], view[-16:, 8:300]):  # the first label, the last line of figures
        light = luminance(ground)
        bright, dark = light.max(), np.quantile(light, 0.5)
        assert (bright + 0.05) / (dark + 0.05) > 7


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_bars_are_as_long_as_the_probabilities(share: float) -> None:
    top = (Ranked(0, "a", 1 - share, share), Ranked(1, "b", share, 0.5))
    answer = Answer(Frame(0, 0, picture(0, 640, 480)), top, top[1], 0, 0)
    view = Painter().paint(Update(answer, stats(), False, False), mirror=False)
    lengths = {
        colour: sorted({int(row.sum()) for row in (view == colour).all(axis=2)[:70] if row.sum() > 5})
        for colour in (SMOOTHED, RAW)
    }
    panel = 12 * 18 - 12  # at 640 pixels the text is 12 high
    expected = {SMOOTHED: {round(panel * share), panel // 2}, RAW: {round(panel * (1 - share)), round(panel * share)}}
    for colour, wanted in expected.items():
        assert {length for length in lengths[colour] if length > 40} == {length for length in wanted if length > 40}


def test_the_picture_is_mirrored_and_the_text_is_not() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[200:400, :320] = (9, 99, 199)
    shown = update(image)
    plain, mirrored = (Painter().paint(shown, mirror=mirror) for mirror in (False, True))
    assert (plain[250:400] == mirrored[250:400, ::-1]).all()
    assert plain[250:400].any()
    assert (plain[:140] == mirrored[:140]).all()
    assert (plain[-30:] == mirrored[-30:]).all()


def test_every_figure_is_written() -> None:
    text = " ".join(figures(stats()))
    for wanted in (
        "camera 30.0 fps", "inference 29.9 fps", "age 21 / 38 ms (p50 / p95)", "preprocess 0.9", "inference 12.0",
        "draw 0.3 ms", "dropped 7", "54 °C", "symbols int8", "LiteRT 2.3.0 XNNPACK", "2 threads", "camera 0, 1280x720",
    ):  # fmt: skip
        assert wanted in text
    assert "°C" not in " ".join(figures(stats(temperature_c=None)))
    assert "1 thread," not in " ".join(figures(stats(threads=2)))
    nothing = stats(age_p50_ms=0.0, age_p95_ms=0.0, preprocess_ms=0.0, inference_ms=0.0, draw_ms=0.0)
    assert figures(nothing)[2:4] == ["age -", "preprocess -, inference -, draw - ms"]  # it did not happen


def test_another_precision_is_written_at_once() -> None:
    painter = Painter()
    shown = update(picture(0, 640, 480))
    before = painter.paint(shown, mirror=False)
    after = painter.paint(dataclasses.replace(shown, stats=stats(precision="float32")), mirror=False)
    assert (before[-30:] != after[-30:]).any()


def test_trouble_pause_and_notices_are_written_over_it() -> None:
    image = picture(100, 640, 480)
    plain = Painter().paint(update(image), mirror=False)
    views = [
        Painter().paint(update(image, trouble=text), mirror=False) for text in ("camera 0 is gone", "camera 1 is gone")
    ]
    views.append(Painter().paint(update(image, paused=True), mirror=False))
    painter = Painter()
    painter.notice("saved x.png")
    views.append(painter.paint(update(image), mirror=False))
    for index, view in enumerate(views):
        assert not (view[:-40] == plain[:-40]).all()
        assert all(not (view[:-40] == other[:-40]).all() for other in views[:index])


def test_a_notice_comes_and_goes_though_nothing_else_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_NOTICE_S", 0.2)
    painter, shown = Painter(), update(picture(100, 640, 480), paused=True)
    before = painter.paint(shown, mirror=False)
    assert painter.paint(shown, mirror=False) is before
    painter.notice("saved x.png")
    assert painter.noticed == "saved x.png"
    assert (painter.paint(shown, mirror=False) != before).any()
    time.sleep(0.25)
    assert painter.noticed == ""
    assert (painter.paint(shown, mirror=False) == before).all()


def test_before_the_first_picture_there_is_a_screen_with_what_is_awaited() -> None:
    view = Painter().paint(Update(None, stats("no browser sends pictures"), False, True), mirror=True)
    assert (view == RED).all(axis=2).any()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (1280, 720), (1920, 1080)])
def test_what_is_drawn_is_no_part_of_the_frame(size: tuple[int, int], mirror: bool) -> None:
    image = noise(*size)
    assert not np.shares_memory(Painter().paint(update(image), mirror=mirror), image)


def test_one_update_is_drawn_once_for_all_who_show_it() -> None:
    drawn: list[int] = []
    painter = Painter(drawn.append)
    first, second = update(noise(1280, 720), 0), update(noise(1280, 720), 1)
    assert painter.paint(first, mirror=False) is painter.paint(first, mirror=False)
    assert len(drawn) == 1
    kept = painter.paint(first, mirror=False)
    before = kept.copy()
    painter.paint(second, mirror=False)
    painter.paint(second, mirror=True)
    assert len(drawn) == 3
    assert (kept == before).all()  # a recording still holds it
    assert (painter.paint(second, mirror=False) == Painter().paint(second, mirror=False)).all()  # not the mirrored one


# What is drawn while the answer is awaited.


def slow(image: Pixels, number: int = 0, **figures: object) -> tuple[Frame, Update]:
    """A frame, and an update with an answer that took long enough for anything."""
    shown = update(image, number)
    assert shown.answer
    answer = dataclasses.replace(shown.answer, inference_ns=10**10)
    return answer.frame, dataclasses.replace(shown, answer=answer, stats=stats(**figures))  # type: ignore[arg-type]


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How large pictures were copied to be drawn on."""
    made: list[tuple[int, int]] = []
    view = overlay._view

    def counted(image: Pixels, size: tuple[int, int], mirror: bool) -> Pixels:
        made.append(size)
        time.sleep(0.003)
        return view(image, size, mirror)

    monkeypatch.setattr(overlay, "_view", counted)
    return made


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("size", "within"), [((1280, 720), None), ((1920, 1080), None), ((64, 48), (200, 200))])
def test_what_was_begun_is_gone_on_with_and_shows_the_same(
    size: tuple[int, int], within: tuple[int, int] | None, mirror: bool, copies: list[tuple[int, int]]
) -> None:
    drawn: list[int] = []
    painter = Painter(drawn.append)
    (_, before), (frame, shown) = slow(noise(*size, 1)), slow(noise(*size, 2), 1)
    image = frame.image.copy()
    painter.paint(before, mirror=mirror, within=within)
    painter.begin(frame)
    picture = painter.paint(shown, mirror=mirror, within=within)
    assert len(copies) == 2  # one a picture
    assert (picture == Painter().paint(shown, mirror=mirror, within=within)).all()
    assert (frame.image == image).all()
    assert drawn[1] > 3_000_000  # copying is part of it, whenever that was
    _, other = slow(noise(*size, 3), 2)
    assert (painter.paint(other, mirror=mirror) == Painter().paint(other, mirror=mirror)).all()  # of which none began


def test_what_was_begun_otherwise_is_not_gone_on_with(copies: list[tuple[int, int]]) -> None:
    painter = Painter()
    painter.paint(slow(noise(640, 480))[1], mirror=False)
    figures: list[tuple[bool, dict[str, str]]] = [(True, {}), (True, {"precision": "float32"}), (False, {})]
    for number, (mirror, more) in enumerate(figures, 1):
        frame, shown = slow(noise(640, 480, number), number, **more)
        painter.begin(frame)
        assert (painter.paint(shown, mirror=mirror) == Painter().paint(shown, mirror=mirror)).all()
    assert len(copies) == 1 + 3 * 3


def test_a_quick_answer_does_not_wait_for_what_is_begun(copies: list[tuple[int, int]]) -> None:
    painter, (frame, shown) = Painter(), slow(noise(640, 480))
    assert shown.answer
    quick = dataclasses.replace(shown, answer=dataclasses.replace(shown.answer, inference_ns=5_000_000))
    painter.paint(quick, mirror=False)
    painter.begin(frame)
    assert len(copies) == 1
    painter.paint(shown, mirror=False)
    painter.begin(frame)
    assert len(copies) == 3


def test_figures_are_written_anew_though_pictures_are_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(overlay.time, "monotonic", lambda: now[0])
    painter, strips = Painter(), []
    for number in range(20):
        frame, shown = slow(picture(0, 640, 480), number, camera_fps=10.0 + number)
        painter.begin(frame)
        strips.append(painter.paint(shown, mirror=False)[-40:].tobytes())
        now[0] += 1 / 30
    assert 2 <= len(set(strips)) <= 3  # in two thirds of a second


# Letters.


def test_text_is_drawn_once_and_kept_within_bounds() -> None:
    letters = Lettering()
    assert letters.picture("tench", 20, (255, 255, 255), 300) is letters.picture("tench", 20, (255, 255, 255), 300)
    for number in range(300):
        letters.picture(f"camera {number} fps" * 20, 16, (255, 255, 255), 1200)
        letters.picture("tench", 20, (255, 255, 255), 300)
        assert sum(picture.nbytes for picture in letters._pictures.values()) == letters._bytes <= 3 << 20
    kept = len(letters._pictures)
    assert 10 < kept < 200
    letters.picture("tench", 20, (255, 255, 255), 300)
    assert len(letters._pictures) == kept  # what is written again and again stays


@given(st.text(max_size=60), st.integers(8, 30), st.integers(1, 400))
@settings(max_examples=80, deadline=None)
def test_any_text_fits_its_width(text: str, size: int, width: int) -> None:
    drawn = Lettering().picture(text, size, (255, 255, 255), width)
    assert drawn.shape[0] == lettering.line_height(size)
    assert 1 <= drawn.shape[1] <= width


def test_labels_of_other_scripts_are_not_question_marks() -> None:
    letters = Lettering()

    def drawn(text: str) -> bytes:
        return letters.picture(text, 20, (255, 255, 255), 400).tobytes()

    words = ["собака", "кошка", "Łódź", "très élégante", "σκύλος", "狗", "犬", "🐶"]
    assert len({drawn(word) for word in words}) == len(words)
    assert all(any(drawn(word)) for word in words)


def test_without_any_font_for_it_a_letter_is_what_it_is_made_of_or_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_FALLBACKS", ())
    lettering._fonts.cache_clear()
    lettering._writable.cache_clear()
    try:
        assert lettering._writable("très élégante", 20)[0] == "tres elegante"
        assert lettering._writable("狗 dog", 20)[0] == "<72D7> dog"
    finally:
        lettering._fonts.cache_clear()
        lettering._writable.cache_clear()


def test_lines_are_filled_and_none_is_longer_than_it_may() -> None:
    letters = Lettering()
    items = [f"figure number {index}" for index in range(9)]
    lines = letters.wrap(items, 14, 400)
    assert " · ".join(lines) == " · ".join(items)
    assert 2 <= len(lines) < 9
    assert all(letters.picture(line, 14, (255, 255, 255), 10_000).shape[1] <= 400 for line in lines)
    assert letters.wrap(items, 14, 1) == items


@pytest.mark.parametrize("width", [320, 200, 160])
def test_figures_that_fit_in_no_line_go_on_in_the_next(width: int) -> None:
    letters = Lettering()
    known = stats(
        model="mobilenet_v2_1.0_224_quant", runtime="LiteRT 2.3.0 XNNPACK", age_p50_ms=1105.0, age_p95_ms=2139.0
    )
    lines = letters.wrap(figures(known), 11, width)
    assert all(letters.picture(line, 11, (255, 255, 255), 10_000).shape[1] <= width for line in lines)
    assert " ".join(lines).replace(" · ", " ") == " ".join(figures(known))


def test_figures_are_not_written_anew_with_every_frame() -> None:
    painter = Painter()
    views = []
    for number in range(3):
        shown = update(picture(0, 640, 480), number)
        views.append(painter.paint(dataclasses.replace(shown, stats=stats(camera_fps=30.0 + number)), mirror=False))
    assert (views[0][-30:] == views[2][-30:]).all()  # nobody reads faster


def test_a_window_on_a_small_screen_and_a_recording_are_drawn_each_in_its_own_size() -> None:
    painter = Painter()
    alone = Painter().paint(update(picture(0, 1280, 720)), mirror=False)
    for number in range(2):
        shown = update(picture(0, 1280, 720), number)
        small = painter.paint(shown, mirror=False, within=(720, 432))
        assert small.shape == (405, 720, 3)
        whole = painter.paint(shown, mirror=False)
        assert (whole == alone).all()  # its lines of figures, too
        assert painter.paint(shown, mirror=False, within=(1440, 810)) is whole  # one drawing where there is room
    waiting = dataclasses.replace(shown, answer=None)
    assert painter.paint(waiting, mirror=False, within=(720, 432)).shape == (432, 576, 3)


def test_the_line_of_this_frame_alone_names_its_own_label(monkeypatch: pytest.MonkeyPatch) -> None:
    painter, written = Painter(), list[str]()
    draw = painter._lettering.picture

    def noted(text: str, *how: Any) -> Pixels:
        written.append(text)
        return draw(text, *how)

    monkeypatch.setattr(painter._lettering, "picture", noted)
    painter.paint(update(picture(0, 640, 480)), mirror=False)
    assert written.index("ant") < written.index("bee") < written.index("this frame alone: cat 50%")
    assert [written[written.index(label) + 1] for label in ("ant", "bee", "cat")] == ["50%", "25%", "12%"]  # smoothed
