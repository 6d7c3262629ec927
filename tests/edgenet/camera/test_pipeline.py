"""The way of a frame, with sources and models that do exactly what a test wants, on real threads and a real clock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from devices.errors import DeviceError, ModelCrashed
from edgenet.camera import pipeline
from edgenet.camera.classifier import Card
from edgenet.camera.clock import Clock, Thermometer
from edgenet.camera.frame import Controls, Frame, Sink, Source, Stats, Update
from edgenet.camera.pipeline import Pipeline
from edgenet.camera.settings import Region, Settings
from edgenet.camera.sources.opening import open_source
from edgenet.errors import EdgenetError, SourceError, UsageError
from edgenet.image import Pixels

from .sources.test_file import UNEVEN, uneven
from .stand_ins import Camera, Clip, Model, Watcher, picture

MS = 1_000_000


def run(source: Source, model: Model, *sinks: Sink, controls: Controls | None = None, **more: object) -> Stats:
    return Pipeline(source, model, sinks, controls or Controls(), **more).run()  # type: ignore[arg-type]


class Running:
    """A pipeline in a thread, for what a person does while it runs; it must end within a second of quitting."""

    def __init__(self, source: Source, model: Model, *sinks: Sink, rotate: int = 0, **more: object) -> None:
        self.controls = Controls(rotate=rotate)
        self.error: BaseException | None = None
        pipeline = Pipeline(source, model, sinks, self.controls, **more)  # type: ignore[arg-type]

        def work() -> None:
            try:
                pipeline.run()
            except BaseException as exc:  # noqa: BLE001 - what it was, the test asks
                self.error = exc

        self.thread = threading.Thread(target=work)

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.controls.quit.set()
        began = time.monotonic()
        self.thread.join(5)
        assert time.monotonic() - began < 1

    def wait(self, until: Callable[[], bool], seconds: float = 5) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "it did not happen"
            assert self.thread.is_alive() or until()
            time.sleep(0.005)


# A file.


@pytest.mark.parametrize(("ms", "delay_s"), [(0, 0), (3, 0), (0, 0.004)], ids=["fast", "slow model", "slow sink"])
def test_of_a_file_every_frame_reaches_every_sink_once_and_in_order(ms: float, delay_s: float) -> None:
    clip = Clip([picture(value) for value in range(120)])
    quick, slow = Watcher(), Watcher(delay_s)
    final = run(clip, Model(ms), quick, slow)
    assert quick.ids == slow.ids == list(range(120))
    frames = [update.answer.frame for update in quick.updates if update.answer]
    assert all(int(frame.image[0, 0, 0]) == frame.id for frame in frames)
    assert final.dropped == 0
    assert clip.closed
    assert (quick.closed, slow.closed) == (1, 1)


def test_that_all_was_shown_is_told_before_sinks_close_and_of_no_other_end() -> None:
    told: list[tuple[int, int]] = []
    watcher = Watcher()
    ended = lambda: told.append((len(watcher.ids), watcher.closed))  # noqa: E731
    run(Clip([picture()] * 3), Model(), watcher, ended=ended)
    assert told == [(3, 0)]

    def damaged() -> Iterator[Pixels | Exception]:
        yield picture()
        time.sleep(0.1)  # everybody waits for the next
        yield SourceError("clip.mp4 is damaged at 0.1 s")

    with pytest.raises(SourceError):
        run(Clip(damaged()), Model(), watcher, ended=ended)
    with Running(Camera(), Model(), watcher, ended=ended) as it:
        it.wait(lambda: len(watcher.ids) > 10)
    assert len(told) == 1


def test_a_clip_of_no_frames_ends_well() -> None:
    watcher = Watcher()
    assert run(Clip([]), Model(), watcher).inference_fps == 0
    assert watcher.ids == []


def test_a_clip_that_breaks_ends_in_its_error_after_closing_everything() -> None:
    clip = Clip([picture(), SourceError("clip.mp4 is damaged at 0.1 s: fetch it again")])
    watcher, model = Watcher(), Model()
    with pytest.raises(SourceError, match=r"damaged at 0\.1 s"):
        run(clip, model, watcher)
    assert watcher.closed
    assert model.closed.is_set()
    assert clip.closed


def test_a_clip_is_smoothed_by_its_own_time_whatever_the_model_takes() -> None:
    def answer(image: Pixels) -> tuple[float, float, float]:
        return (1.0, 0.0, 0.0) if image[0, 0, 0] < 10 else (0.0, 0.0, 1.0)

    shown = []
    for ms in (0.0, 4.0):
        watcher = Watcher()
        clip = Clip([picture(value) for value in range(30)], fps=10)
        run(clip, Model(ms, answer), watcher, settings=Settings(smooth_s=0.5))
        shown.append([update.answer.top for update in watcher.updates if update.answer])
    assert shown[0] == shown[1]
    folder = Watcher()
    run(Clip([picture(5), picture(20)]), Model(0, answer), folder, settings=Settings(smooth_s=0.5))
    assert [update.answer.top[0].smoothed for update in folder.updates if update.answer] == [1, 1]
    # 1 s after the change 1 / e^2 of the old is left: 10 frames at 10 a second.
    old = next(one.smoothed for one in shown[0][19] if one.index == 0)
    assert old == pytest.approx(np.exp(-2), abs=1e-6)


@pytest.mark.parametrize("pace", [True, False])
def test_a_clip_shown_to_people_keeps_its_own_time(pace: bool) -> None:
    watcher = Watcher()
    began = time.monotonic()
    run(Clip([picture()] * 21, fps=50), Model(), watcher, settings=Settings(pace=pace))
    assert len(watcher.ids) == 21
    assert (time.monotonic() - began > 0.38) is pace


def test_an_uneven_clip_shown_to_people_keeps_the_time_of_each_frame(tmp_path: Path) -> None:
    watcher = Watcher()
    began = time.monotonic()
    run(open_source(str(uneven(tmp_path / "clip.mkv"))), Model(), watcher, settings=Settings(pace=True))
    assert np.array(watcher.at) - watcher.at[0] == pytest.approx(UNEVEN, abs=0.15)
    assert watcher.at[-1] - began > 2.3


def test_an_uneven_clip_is_smoothed_by_its_own_time(tmp_path: Path) -> None:
    seen: list[int] = []

    def answer(_: Pixels) -> tuple[float, float, float]:
        seen.append(len(seen))
        return (1.0, 0.0, 0.0) if len(seen) <= 10 else (0.0, 0.0, 1.0)

    watcher = Watcher()
    clip = open_source(str(uneven(tmp_path / "clip.mkv")))
    run(clip, Model(0, answer), watcher, settings=Settings(smooth_s=0.5))
    tops = [update.answer.top for update in watcher.updates if update.answer]
    old = [next(one.smoothed for one in top if one.index == 0) for top in tops]
    wanted = np.exp([-0.2, -1.2, -2.2, -3.2])  # the frames after the change: at 1.0, 1.5, 2.0 and 2.5 s, from 0.9 s on
    assert old[10:] == pytest.approx(list(wanted), abs=0.01)


def test_pictures_shown_to_people_stay_a_while_the_last_one_too() -> None:
    watcher = Watcher()
    began = time.monotonic()
    run(Clip([picture()] * 3), Model(), watcher, settings=Settings(picture_s=0.15, pace=True))
    assert len(watcher.ids) == 3
    assert np.diff(watcher.at).min() > 0.1
    assert time.monotonic() - began > 0.42


def test_pictures_stay_as_long_after_a_pause_the_last_one_too() -> None:
    watcher = Watcher()
    began = time.monotonic()
    with Running(Clip([picture()] * 3), Model(), watcher, settings=Settings(picture_s=0.3, pace=True)) as it:
        it.wait(lambda: watcher.ids == [0])
        it.controls.paused = True
        time.sleep(0.8)
        it.controls.paused = False
        resumed = time.monotonic()
        it.wait(lambda: not it.thread.is_alive())
    first = {number: watcher.at[index] for index, number in reversed(list(enumerate(watcher.ids)))}
    assert resumed - began > 0.7
    assert first[1] - resumed > 0.2
    assert first[2] - first[1] > 0.25
    assert time.monotonic() - first[2] > 0.25


def test_a_frame_of_a_clip_does_not_age_while_it_waits_for_its_time() -> None:
    watcher = Watcher()
    final = run(Clip([picture()] * 12, fps=10), Model(), watcher, settings=Settings(pace=True))
    assert 0 < final.age_p95_ms < 50
    assert np.median(watcher.ages_ns) < 50 * MS


# A live source.


def test_a_live_source_is_answered_with_its_newest_frame_and_the_rest_is_dropped() -> None:
    camera, watcher = Camera(fps=200), Watcher()
    with Running(camera, Model(ms=40), watcher) as it:
        it.wait(lambda: len(watcher.ids) >= 20)
    answered = list(dict.fromkeys(watcher.ids))
    assert answered == sorted(answered)
    ages = watcher.ages_ns
    # 40 ms of inference and at most one interval of 5 ms; queued frames would be older with each.
    assert np.median(ages) < 65 * MS
    stats = watcher.updates[-1].stats
    assert stats.dropped + len(answered) <= camera.given <= stats.dropped + len(answered) + 12
    assert stats.dropped > 4 * len(answered)
    assert stats.camera_fps > 4 * stats.inference_fps


def test_figures_are_made_a_few_times_a_second() -> None:
    watcher = Watcher()
    with Running(Camera(fps=60), Model(), watcher) as it:
        it.wait(lambda: len(watcher.updates) >= 60)
    made = len({id(update.stats) for update in watcher.updates})
    seconds = watcher.at[-1] - watcher.at[0]
    assert 5 * seconds < made <= 10 * seconds + watcher.updates[-1].stats.dropped + 2
    assert watcher.updates[-1].stats.inference_fps > 30


def test_what_a_frame_needs_to_be_drawn_begins_while_its_answer_is_awaited() -> None:
    begun: list[Frame] = []
    known: list[int] = []

    def answer(image: Pixels) -> tuple[float, float, float]:  # the stand-in asks for that last
        known.append(len(begun))
        return 0.1, 0.2, 0.7

    shown, pictures = Watcher(), [picture(number, 8, 4) for number in range(5)]
    run(Clip(pictures), Model(answer=answer), shown, controls=Controls(rotate=90), begin=begun.append)
    assert known == [1, 2, 3, 4, 5]
    frames = [one.answer.frame for one in shown.updates if one.answer]
    assert [id(frame.image) for frame in begun] == [id(frame.image) for frame in frames]
    assert begun[0].image.shape == (8, 4, 3)  # as it is turned


def test_frames_are_counted_whose_answers_were_shown() -> None:
    clock, watcher = Clock(), Watcher(delay_s=0.02)  # slower than the model: some answers give way to the next
    with Running(Camera(fps=300), Model(), watcher, clock=clock) as it:
        it.wait(lambda: len(set(watcher.ids)) > 20)
    assert clock.total == len(set(watcher.ids))
    assert len(set(watcher.ids)) < watcher.ids[-1] / 2


def test_what_is_no_figure_is_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_FIGURES_NS", 10**18)
    camera, watcher = Camera(), Watcher()
    with Running(camera, Model(), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        for change, shown in (
            (it.controls.toggle_precision.set, lambda stats: stats.precision == "float32"),
            (partial(setattr, camera, "dropped", 7000), lambda stats: stats.dropped >= 7000),
            (partial(setattr, camera, "trouble", "it is gone"), lambda stats: stats.trouble == "it is gone"),
        ):
            change()
            it.wait(lambda shown=shown: shown(watcher.updates[-1].stats))  # type: ignore[misc]


def test_a_slow_sink_gets_the_newest_answer_too() -> None:
    watcher = Watcher(delay_s=0.05)
    with Running(Camera(fps=200), Model(ms=1), watcher) as it:
        it.wait(lambda: len(watcher.ids) >= 10)
    ages = watcher.ages_ns
    assert np.median(ages) < 30 * MS
    assert np.diff(watcher.ids).mean() > 5


def test_trouble_is_shown_at_once_with_the_last_picture_and_goes_away() -> None:
    camera, watcher = Camera(), Watcher()
    with Running(camera, Model(), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        camera.trouble, said = "camera 0 is gone: trying again in 2 s", time.monotonic()
        it.wait(lambda: watcher.updates[-1].stats.trouble == camera.trouble)
        assert time.monotonic() - said < 0.3
        shown = watcher.updates[-1].answer
        assert shown is not None
        assert shown.frame.id == camera.given - 1
        count = len(watcher.updates)
        time.sleep(0.6)
        assert 1 <= len(watcher.updates) - count <= 4  # the screen goes on living, calmly
        assert watcher.updates[-1].stats.camera_fps < 60
        camera.trouble = ""
        it.wait(lambda: not watcher.updates[-1].stats.trouble)
        it.wait(lambda: watcher.ids[-1] > shown.frame.id)


def test_trouble_before_the_first_picture_is_shown_without_one() -> None:
    watcher = Watcher()
    with Running(Camera(trouble="no browser sends pictures"), Model(), watcher) as it:
        it.wait(lambda: bool(watcher.updates) and watcher.updates[-1].stats.trouble != "", 0.5)
        assert watcher.updates[-1].answer is None


def test_a_source_that_falls_silent_is_noticed_within_three_seconds() -> None:
    camera, watcher = Camera(), Watcher()
    camera.stalled.set()
    with Running(camera, Model(), watcher) as it:
        it.wait(lambda: bool(watcher.updates))
        assert not watcher.updates[-1].stats.trouble  # it has only just begun
        camera.stalled.clear()
        it.wait(lambda: len(watcher.ids) > 3)
        camera.stalled.set()
        began = time.monotonic()
        it.wait(lambda: watcher.updates[-1].stats.trouble.startswith("a camera: no picture comes"))
        assert 2 < time.monotonic() - began < 3
        camera.stalled.clear()
        it.wait(lambda: not watcher.updates[-1].stats.trouble, 1)


def test_a_source_that_gives_its_pictures_rarely_is_not_called_silent_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgenet.camera.pipeline._SILENT_NS", 300 * MS)
    camera, watcher = Camera(fps=2), Watcher()
    with Running(camera, Model(), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 1 and watcher.ids[-1] > 1)
        count = len(watcher.updates)
        it.wait(lambda: watcher.ids[-1] > 3)
        assert {update.stats.trouble for update in watcher.updates[count:]} == {""}
        camera.stalled.set()
        it.wait(lambda: watcher.updates[-1].stats.trouble.startswith("a camera: no picture comes"), 2)


# What a person does.


def test_pause_holds_the_picture_and_going_on_shows_the_present() -> None:
    camera, watcher = Camera(), Watcher()
    with Running(camera, Model(), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].paused, 0.3)
        time.sleep(0.1)
        held = watcher.ids[-1]
        time.sleep(0.5)
        assert watcher.ids[-1] == held
        it.controls.paused = False
        it.wait(lambda: watcher.ids[-1] > held + 20)
        newest = watcher.updates[-1].answer
        assert newest is not None
        assert time.monotonic_ns() - newest.frame.captured_ns < 200 * MS


def test_pause_of_a_file_loses_nothing() -> None:
    watcher = Watcher()
    with Running(Clip([picture(value) for value in range(60)]), Model(ms=2), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 5)
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].paused, 0.3)
        time.sleep(0.3)
        assert [update.paused for update in watcher.updates].count(True) <= 2  # one is said, one may be under way
        it.controls.mirror = True
        it.wait(lambda: watcher.updates[-1].mirror, 0.3)
        it.controls.paused = False
        it.wait(lambda: not it.thread.is_alive())
    assert list(dict.fromkeys(watcher.ids)) == list(range(60))


def test_frames_of_a_clip_do_not_age_in_a_pause() -> None:
    watcher = Watcher()
    clip = Clip([picture()] * 40, fps=40)
    with Running(clip, Model(), watcher, settings=Settings(pace=True)) as it:
        it.wait(lambda: len(watcher.ids) > 5)
        it.controls.paused = True
        time.sleep(1)
        count = len(watcher.ids)
        it.controls.paused = False
        it.wait(lambda: len(watcher.ids) > count + 10)
        assert watcher.updates[-1].stats.age_p95_ms < 200


def test_figures_of_a_paused_clip_come_to_rest() -> None:
    watcher = Watcher()
    with Running(Clip([picture()] * 400, fps=40), Model(), watcher, settings=Settings(pace=True)) as it:
        it.wait(lambda: watcher.updates[-1:] and watcher.updates[-1].stats.inference_fps > 20)
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].stats.inference_fps == 0, 4)
        last = watcher.updates[-1]
        assert last.paused
        assert (last.stats.camera_fps, last.stats.age_p95_ms) == (0, 0)
        assert last.stats.inference_ms > 0  # of the answer that is there


def test_mirroring_changes_what_is_displayed_alone() -> None:
    model, watcher = Model(), Watcher()
    image = picture()
    image[:, :32] = 255
    with Running(Camera(image=image), model, watcher) as it:
        it.controls.mirror = True
        it.wait(lambda: bool(watcher.updates) and watcher.updates[-1].mirror and len(watcher.ids) > 5)
    assert all((seen == image).all() for seen in model.seen)
    answer = watcher.updates[-1].answer
    assert answer is not None
    assert (answer.frame.image == image).all()


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_rotation_and_region_come_before_the_model(degrees: int, turns: int) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (48, 64, 3), np.uint8)
    model, watcher = Model(), Watcher()
    region = Region(5, 7, 20, 30)
    run(Clip([image]), model, watcher, controls=Controls(rotate=degrees), settings=Settings(region=region))
    wanted = np.rot90(image, turns)[7:37, 5:25]
    assert (model.seen[0] == wanted).all()
    answer = watcher.updates[-1].answer
    assert answer is not None
    assert (answer.frame.image == wanted).all()


@pytest.mark.parametrize(("region", "degrees"), [(None, 0), (Region(0, 0, 20, 30), 0), (None, 90)])
def test_a_cameras_jpeg_goes_on_with_the_picture_it_is_of_alone(region: Region | None, degrees: int) -> None:
    watcher = Watcher()
    camera = Clip([picture()], jpeg=b"the camera's own")
    run(camera, Model(), watcher, controls=Controls(rotate=degrees), settings=Settings(region=region))
    answer = watcher.updates[-1].answer
    assert answer is not None
    assert answer.frame.jpeg == (None if degrees or region else camera.jpeg)


def test_a_region_outside_of_the_picture_is_one_clear_error() -> None:
    with pytest.raises(UsageError, match=r"--roi 50,0,20,20 does not lie within the picture of 64x48"):
        run(Clip([picture()]), Model(), settings=Settings(region=Region(50, 0, 20, 20)))


def test_a_picture_that_no_longer_holds_the_region_is_trouble_and_no_end() -> None:
    camera, watcher = Camera(), Watcher()
    with Running(camera, Model(), watcher, settings=Settings(region=Region(44, 0, 20, 20))) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        camera.image = picture(0, 48, 64)
        it.wait(lambda: "does not lie within the picture of 48x64" in watcher.updates[-1].stats.trouble, 1)
        camera.image = picture()
        it.wait(lambda: not watcher.updates[-1].stats.trouble, 1)


@pytest.mark.parametrize("start", [0, 90])
@pytest.mark.parametrize("paused", [False, True])
def test_a_region_turns_with_the_picture(start: int, paused: bool) -> None:
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    model, watcher = Model(), Watcher()
    with Running(
        Camera(image=image), model, watcher, rotate=start, settings=Settings(region=Region(28, 0, 20, 10))
    ) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        it.controls.paused = paused
        for turns in (1, 2, 3):
            wanted = np.rot90(np.rot90(image, -start // 90)[:10, 28:48], -turns)
            it.controls.rotate = (start + 90 * turns) % 360
            it.wait(lambda wanted=wanted: np.array_equal(watcher.updates[-1].answer.frame.image, wanted), 1)
            assert np.array_equal(model.seen[-1], wanted)


def test_what_lies_outside_of_the_region_is_told_as_it_begins_and_of_pictures_each_time() -> None:
    told: list[str] = []
    region = Settings(region=Region(44, 0, 20, 20))
    camera, watcher = Camera(), Watcher()
    with Running(camera, Model(), watcher, settings=region, warn=told.append) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        camera.image = picture(0, 48, 64)
        it.wait(lambda: watcher.updates[-1].stats.trouble != "", 1)
        time.sleep(0.2)
    assert told == ["--roi 44,0,20,20 does not lie within the picture of 48x64"]
    told.clear()
    folder = Clip([picture(), picture(0, 20, 10), picture(0, 20, 10), picture()])
    run(folder, Model(), settings=region, warn=told.append)
    why = "is left out: --roi 44,0,20,20 does not lie within the picture of 20x10"
    assert told == [f"frame 1 {why}", f"frame 2 {why}"]


@pytest.mark.parametrize("quitting", [False, True])
def test_why_the_other_precision_does_not_answer_is_said_to_who_stays(quitting: bool) -> None:
    told: list[str] = []

    class Dying(Model):
        def toggle(self) -> Card:
            if quitting:  # Ctrl-C, which reaches its process, too
                it.controls.quit.set()
            raise DeviceError("its runtime ended")

    watcher = Watcher()
    with Running(Camera(), Dying(), watcher, tell=told.append) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        it.controls.toggle_precision.set()
        it.wait(lambda: not it.controls.toggle_precision.is_set())
        time.sleep(0.2)
    assert told == ([] if quitting else ["its runtime ended"])


def test_the_other_precision_answers_the_picture_that_is_paused() -> None:
    told: list[str] = []
    camera, watcher, clock = Camera(), Watcher(), Clock()
    with Running(camera, Model(), watcher, tell=told.append, clock=clock) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].paused)
        time.sleep(0.1)
        held, before, answered = watcher.ids[-1], watcher.updates[-1].answer, clock.total
        it.controls.toggle_precision.set()
        it.wait(lambda: watcher.updates[-1].stats.precision == "float32")
        it.wait(lambda: watcher.updates[-1].answer is not before)
        assert watcher.ids[-1] == held
        assert clock.total == answered  # frames, and this is the same one
    assert told == ["model answers in float32"]


def test_a_picture_that_is_paused_is_turned_at_once_and_seen_anew() -> None:
    camera, watcher = Camera(image=picture(9, 64, 48)), Watcher()
    tall = lambda image: (0.9, 0.1, 0.0) if image.shape[0] > image.shape[1] else (0.0, 0.1, 0.9)  # noqa: E731
    with Running(camera, Model(0, tall), watcher, settings=Settings(smooth_s=5)) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].paused)
        time.sleep(0.1)
        held = watcher.ids[-1]
        assert watcher.updates[-1].answer.top[0].label == "cat"
        it.controls.rotate = 90
        it.wait(lambda: watcher.updates[-1].answer.frame.image.shape == (64, 48, 3), 1)
        assert watcher.ids[-1] == held
        assert watcher.updates[-1].answer.top[0].label == "ant"  # not averaged with what it was before
        time.sleep(0.6)
        it.controls.rotate = 0
        it.wait(lambda: watcher.updates[-1].answer.frame.image.shape == (48, 64, 3), 1)
        it.wait(lambda: watcher.updates[-1].stats.age_p95_ms < 300)  # a pause ages nothing


def test_the_age_is_that_of_what_has_been_shown() -> None:
    slow = Watcher(delay_s=0.08)
    with Running(Camera(fps=100), Model(), slow) as it:
        it.wait(lambda: len(slow.ids) > 8)
        assert slow.updates[-1].stats.age_p50_ms > 80


def test_the_age_of_a_picture_that_stays_is_its_own_and_a_pause_has_none() -> None:
    camera, watcher = Camera(), Watcher()
    with Running(camera, Model(ms=8), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].paused)
        time.sleep(2.3)
        held = watcher.updates[-1].stats
        assert (held.inference_fps, held.age_p50_ms, held.age_p95_ms) == (0, 0, 0)
        assert 8 <= held.inference_ms < 50
        count = len(watcher.updates)
        it.controls.paused = False
        it.wait(lambda: len(watcher.updates) > count + 20)
        assert max(update.stats.age_p95_ms for update in watcher.updates[count:]) < 300
        camera.stalled.set()
        it.wait(lambda: watcher.updates[-1].stats.inference_fps == 0)
        time.sleep(0.5)
        newest = watcher.updates[-1]
        assert newest.answer is not None
        age = watcher.at[-1] * 1e3 - newest.answer.frame.captured_ns / 1e6
        assert age > 2400
        assert newest.stats.age_p50_ms == newest.stats.age_p95_ms == pytest.approx(age, abs=150)
        assert 8 <= newest.stats.inference_ms < 50


@pytest.mark.parametrize("source", [Camera(), Clip([picture()] * 900, fps=30)], ids=["camera", "clip"])
def test_in_a_pause_the_time_of_the_other_precision_stays_and_is_its_own(source: Source) -> None:
    model, watcher = Model(ms=2), Watcher()
    with Running(source, model, watcher, settings=Settings(pace=True)) as it:
        it.wait(lambda: len(watcher.ids) > 10)
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].paused)
        model.ms = 60
        it.controls.toggle_precision.set()
        it.wait(lambda: watcher.updates[-1].stats.precision == "float32")
        it.wait(lambda: watcher.updates[-1].stats.inference_ms >= 60)  # not of both precisions
        time.sleep(2.3)
        assert 60 <= watcher.updates[-1].stats.inference_ms < 120


def test_no_answer_is_said_to_have_taken_the_time_of_another_precision() -> None:
    camera, watcher = Camera(), Watcher()
    with Running(camera, Model(ms=2), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 10)
        camera.stalled.set()
        time.sleep(0.2)
        it.controls.toggle_precision.set()
        it.wait(lambda: watcher.updates[-1].stats.precision == "float32")
        assert watcher.updates[-1].stats.inference_ms == 0


def test_pictures_that_the_source_itself_dropped_are_counted() -> None:
    watcher = Watcher()
    with Running(Camera(fps=20, dropped=1000), Model(), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 3)
    assert 1000 <= watcher.updates[-1].stats.dropped < 1010


@pytest.mark.parametrize("why", [EdgenetError("x_float32.tflite is not beside it"), DeviceError("x: corrupt")])
def test_without_a_sibling_the_model_goes_on(why: Exception) -> None:
    told: list[str] = []
    watcher = Watcher()
    with Running(Camera(), Model(sibling=why), watcher, tell=told.append) as it:
        it.controls.toggle_precision.set()
        it.wait(lambda: bool(told))
        count = len(watcher.ids)
        it.wait(lambda: len(watcher.ids) > count + 3)
    assert told == [str(why)]


def test_a_still_is_the_newest_answer_or_the_first() -> None:
    saved = []
    watcher = Watcher()
    running = Running(Camera(fps=10), Model(), watcher, save=saved.append)
    running.controls.save.set()  # before there is any
    with running as it:
        it.wait(lambda: bool(saved))
        assert saved[0].frame.id in watcher.ids
        assert not it.controls.save.is_set()


# How it ends.


def test_quitting_is_quick_whatever_hangs() -> None:
    camera, watcher = Camera(deaf_s=3), Watcher()
    with Running(camera, Model(ms=60_000), watcher) as it:
        time.sleep(0.5)
    assert it.error is None
    assert camera.closed
    assert watcher.closed


def test_a_model_that_dies_ends_it_in_its_own_words() -> None:
    def die(image: Pixels) -> tuple[float, float, float]:
        if image[0, 0, 0] == 5:
            raise ModelCrashed("model.tflite: its runtime died of SIGSEGV")
        return (1, 0, 0)

    camera_like = Clip([picture(value) for value in range(10)])
    watcher = Watcher()
    with pytest.raises(ModelCrashed, match="died of SIGSEGV"):
        run(camera_like, Model(answer=die), watcher)
    assert watcher.closed
    assert camera_like.closed


def test_a_sink_that_breaks_ends_it_and_the_others_are_closed() -> None:
    def full(_: Update) -> None:
        raise EdgenetError("no room")

    broken, other, clip = Watcher(on_show=full), Watcher(), Clip([picture()] * 5)
    with pytest.raises(EdgenetError, match="no room"):
        run(clip, Model(), broken, other)
    assert other.closed
    assert clip.closed


def test_a_sink_that_breaks_as_it_closes_is_told_once_all_have_ended() -> None:
    class Broken(Watcher):
        def close(self) -> None:
            raise EdgenetError("no room for the index")

    other, clip = Watcher(), Clip([picture()])
    with pytest.raises(EdgenetError, match="no room for the index"):
        run(clip, Model(), Broken(), other)
    assert other.closed
    assert clip.closed


def test_ctrl_c_closes_everything() -> None:
    def interrupt(_: Update) -> None:
        raise KeyboardInterrupt

    clip, model, watcher = Clip([picture()] * 5), Model(), Watcher(on_show=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(clip, model, watcher)
    assert watcher.closed
    assert clip.closed
    assert model.closed.is_set()


# Figures.


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns


CARD = Card("symbols", "int8", "LiteRT", 2)


def test_rates_ages_and_medians_are_those_of_the_last_two_seconds() -> None:
    now = Time()
    clock = Clock(now)
    for frame in range(300):  # 10 s at 30 fps; the last 2 s are slower to answer
        now.ns += 1_000_000_000 // 30
        clock.came(dropped=frame % 2 == 1)
        if frame % 2:
            clock.answered(2 * MS, (50 if frame > 238 else 10) * MS)
            clock.drew(MS // 2)
            clock.shown(now.ns - (frame if frame > 294 else 80) * MS)
    stats = clock.stats(CARD, "camera 0", "", 51.5)
    assert stats.camera_fps == pytest.approx(30, abs=0.01)
    assert stats.inference_fps == pytest.approx(15, abs=0.01)
    assert (stats.preprocess_ms, stats.inference_ms, stats.draw_ms) == (2, 50, 0.5)
    assert stats.age_p50_ms == 80
    assert stats.age_p95_ms == 297  # of 30 ages the second highest
    assert stats.dropped == 150
    assert (stats.model, stats.precision, stats.runtime, stats.threads) == ("symbols", "int8", "LiteRT", 2)
    assert (stats.source, stats.trouble, stats.temperature_c) == ("camera 0", "", 51.5)
    now.ns += 3_000_000_000
    later = clock.stats(CARD, "camera 0", "gone", None)
    assert (later.camera_fps, later.inference_fps, later.age_p95_ms, later.inference_ms) == (0, 0, 0, 0)
    assert later.dropped == 150


def test_a_rate_falls_as_soon_as_a_frame_is_overdue() -> None:
    now = Time()
    clock = Clock(now)
    for _ in range(60):
        now.ns += 33 * MS
        clock.came()
    rates = []
    for _ in range(10):
        now.ns += 100 * MS
        rates.append(clock.stats(CARD, "", "", None).camera_fps)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 30.2
    assert rates[-1] < 20


def test_figures_of_a_thousand_frames_a_second_take_no_more_memory() -> None:
    now = Time()
    clock = Clock(now)
    for _ in range(20_000):
        now.ns += MS // 10
        clock.came()
        clock.answered(1, 2)
        clock.shown(now.ns)
    assert clock.stats(CARD, "", "", None).camera_fps == pytest.approx(10_000, rel=0.01)
    assert len(clock._came._entries) <= 600
    assert clock.total == 20_000


def test_a_machine_without_a_sensor_is_asked_once_and_another_now_and_then() -> None:
    asked: list[float] = []

    def read() -> float:
        asked.append(time.monotonic())
        return 40.0 + len(asked)

    stop = threading.Event()
    warm, none = Thermometer(read, 1), Thermometer(lambda: asked.append(0.0))  # type: ignore[arg-type,return-value,func-returns-value]
    none._every_s = 0.1
    none.start(stop)
    time.sleep(1.2)
    assert asked == [0.0]
    assert none.temperature_c is None
    asked.clear()
    warm.start(stop)
    time.sleep(1.3)
    stop.set()
    assert len(asked) == 2
    assert warm.temperature_c == 42


def test_what_is_wrong_with_a_file_is_told_once_each_and_what_begins_with_a_camera() -> None:
    told: list[str] = []
    clip = Clip([picture(), "b.png is damaged", picture(), "c.png is damaged", "d.png is damaged"])
    watcher = Watcher()
    run(clip, Model(), watcher, warn=told.append)
    assert told == ["b.png is damaged", "c.png is damaged", "d.png is damaged"]
    assert len(watcher.ids) == 2
    told.clear()
    camera = Camera()
    with Running(camera, Model(), watcher, warn=told.append) as it:
        for seconds in (1, 2, 4):
            camera.trouble = f"gone: trying again in {seconds} s"
            it.wait(lambda: watcher.updates[-1].stats.trouble == camera.trouble)
    assert told == ["gone: trying again in 1 s"]


def test_the_package_is_light() -> None:
    """Nothing of TensorFlow, and no OpenCV before it is needed."""
    code = (
        "import sys; import edgenet.camera.session; "
        "print({'tensorflow', 'keras', 'cv2', 'h5py', 'uvicorn', 'starlette', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# What is told of a frame, and when.


def test_turning_a_picture_is_part_of_what_preprocessing_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    rotate = cv2.rotate

    def slow(image: Pixels, code: int) -> object:
        time.sleep(0.03)
        return rotate(image, code)

    monkeypatch.setattr(cv2, "rotate", slow)
    watcher = Watcher()
    final = run(Clip([picture()]), Model(), watcher, controls=Controls(rotate=90))
    answer = watcher.updates[-1].answer
    assert answer is not None
    assert answer.preprocess_ns >= 30 * MS
    assert final.preprocess_ms >= 30


def test_the_other_precision_is_not_averaged_with_the_one_before() -> None:
    model = Model(answer=lambda _: (0.0, 0.1, 0.9) if model.card.precision == "int8" else (0.8, 0.1, 0.1))
    watcher = Watcher()
    with Running(Camera(), model, watcher, settings=Settings(smooth_s=5)) as it:
        it.wait(lambda: len(watcher.ids) > 3)
        it.controls.toggle_precision.set()
        it.wait(lambda: watcher.updates[-1].answer.raw.label == "ant")
    answers = [update.answer for update in watcher.updates if update.answer]
    first = next(answer for answer in answers if answer.raw.label == "ant")
    assert (first.top[0].label, first.top[0].smoothed) == ("ant", 0.8)


def test_the_class_of_this_frame_alone_is_told_while_another_is_on_top() -> None:
    watcher = Watcher()
    clip = Clip([*[picture(0)] * 5, picture(1)], fps=10)
    run(clip, Model(0, lambda image: (0.0, 0.2, 0.8) if image[0, 0, 0] else (0.9, 0.1, 0.0)), watcher)
    answer = watcher.updates[-1].answer
    assert answer is not None
    assert answer.top[0].label == "ant"
    assert (answer.raw.index, answer.raw.label, answer.raw.raw) == (2, "cat", 0.8)
    assert answer.raw.smoothed < 0.5


def test_frames_of_a_clip_that_come_late_do_not_delay_all_that_follow() -> None:
    def pictures() -> Iterator[Pixels]:
        for number in range(31):
            if number % 3 == 2:  # made while the two before it are shown, 100 ms: it comes 40 ms late
                time.sleep(0.14)
            yield picture(number)

    watcher = Watcher()
    run(Clip(pictures(), fps=20), Model(), watcher, settings=Settings(pace=True))
    assert watcher.ids == list(range(31))
    assert watcher.at[-1] - watcher.at[0] < 1.75  # it is 1.5 s, and ten times 40 ms more were each to delay the rest


def test_the_age_ends_when_the_window_has_been_drawn() -> None:
    watcher = Watcher()
    with Running(Camera(fps=100), Model(), watcher, pump=lambda: time.sleep(0.06)) as it:
        it.wait(lambda: len(watcher.ids) > 8)
        assert watcher.updates[-1].stats.age_p50_ms >= 60


def test_a_picture_that_is_turned_in_a_long_pause_makes_nothing_older() -> None:
    watcher = Watcher()
    with Running(Camera(fps=20), Model(), watcher) as it:
        it.wait(lambda: len(watcher.ids) > 2)  # so few that one old one would be the 95th percentile
        it.controls.paused = True
        it.wait(lambda: watcher.updates[-1].paused)
        time.sleep(1)
        it.controls.rotate = 90
        it.wait(lambda: watcher.updates[-1].answer.frame.image.shape == (64, 48, 3))
        count = len(watcher.updates)
        it.wait(lambda: len(watcher.updates) > count + 2)
        assert max(update.stats.age_p95_ms for update in watcher.updates) < 700


def test_the_final_figures_are_of_the_last_frame_too() -> None:
    final = run(Clip([picture()] * 3), Model(ms=5), Watcher())
    assert final.age_p50_ms > 0
    assert final.inference_fps > 1
