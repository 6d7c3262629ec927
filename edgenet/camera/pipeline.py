"""The way of a frame: grab thread -> newest frame -> inference thread -> newest answer -> sinks, on the main thread.

Frames of a live source are dropped, never queued: what is answered is always the newest. Of a file none is dropped:
each stage waits for the next.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from devices.errors import DeviceError
from edgenet.camera.classifier import Card, Classifier, Tell
from edgenet.camera.clock import Clock, Thermometer
from edgenet.camera.frame import Answer, Controls, Frame, Sink, Slot, Source, Stats, Trouble, Update
from edgenet.camera.opencv import turned
from edgenet.camera.settings import Settings
from edgenet.camera.smoothing import Smoother, one, ranked
from edgenet.errors import EdgenetError, UsageError

_POLL_S = 0.02  # how often keys are looked at while nothing comes
_REFRESH_S = 0.25  # how often the screen hears of a live source that gives nothing
_HELD_S = 1.0  # and of a clip that is paused, whose rates fall to 0
_FIGURES_NS = 100_000_000  # figures that change faster cannot be read, and cost each frame
_SILENT_NS = 2_500_000_000  # without a picture, until the screen says so, where the source itself says nothing
_FAREWELL_S = 0.6  # for the threads to end


class Pipeline:
    """A source, a classifier and sinks, put together. Owns all of them: `run` closes them.

    pump: called on the main thread at least every 20 ms: windows need it. tell: told, in one line, what the person in
    front of it wants to know. warn: told when trouble with a camera begins, and of all trouble with a file. save: takes
    the newest answer when a still is wanted. begin: takes each frame as the model sees it while its answer is awaited,
    on another thread: what can be drawn already. ended: called where all of a source was shown, before sinks close.
    """

    def __init__(
        self,
        source: Source,
        classifier: Classifier,
        sinks: Sequence[Sink],
        controls: Controls,
        settings: Settings | None = None,
        *,
        clock: Clock | None = None,
        pump: Callable[[], None] = lambda: None,
        tell: Tell = lambda _: None,
        warn: Tell = lambda _: None,
        save: Callable[[Answer], None] = lambda _: None,
        begin: Callable[[Frame], None] = lambda _: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._classifier = classifier
        self._sinks = tuple(sinks)
        self._controls = controls
        self._settings = settings or Settings()
        self._began_at = controls.rotate  # how pictures are turned where the region counts their pixels
        self._clock = clock or Clock()
        self._pump, self._tell, self._warn, self._save = pump, tell, warn, save
        self._begin, self._ended = begin, ended
        self._clip_fps = 0.0 if source.live else float(getattr(source, "fps", 0) or 0)
        # A folder of pictures is no film: what one shows says nothing of the next.
        self._smoother = Smoother(self._settings.smooth_s if source.live or self._clip_fps else 0)
        self._thermometer = Thermometer()
        self._frames: Slot[Frame] = Slot()
        self._answers: Slot[Answer] = Slot()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._trouble = ""
        self._outside = ""
        self._last_came_ns = 0
        self._rarely_ns = 0  # between the last two pictures, where all was well
        self._newest: Answer | None = None
        self._held: Answer | None = None  # the one that was shown in the last pause
        self._answered_by: Card | None = None  # the last answer
        self._said: tuple[bool, bool, str] = (False, False, "")
        self._shown_ns = 0
        self._figures: tuple[int, Card, Stats] | None = None  # the last ones: of when, and of whom

    def run(self) -> Stats:
        """Go on until the source ends or somebody quits; how it went in the last two seconds.

        Raises what stopped it: SourceError, DeviceError where the model died, EdgenetError.
        """
        self._said = (self._controls.paused, self._controls.mirror, "")
        self._last_came_ns = time.monotonic_ns()
        threads = [
            threading.Thread(target=self._guarded, args=stage, name=f"edgenet-{name}", daemon=True)
            for name, stage in (("grab", (self._grab, self._frames)), ("infer", (self._infer, self._answers)))
        ]
        try:
            self._thermometer.start(self._stop)
            for thread in threads:
                thread.start()
            self._serve()
            stats = self._stats(anew=True)
        finally:
            self._end(threads)
        if self._failure is not None:
            raise self._failure
        return stats

    # The grab thread.

    def _grab(self) -> None:
        came = False  # a picture, ever
        for item in self._source.frames(self._stop):
            if self._stop.is_set():
                return
            if isinstance(item, Trouble):
                if not self._trouble or not self._source.live:
                    self._warn(item.text)
                self._trouble = item.text
                continue
            now = time.monotonic_ns()
            self._rarely_ns = now - self._last_came_ns if came and not self._trouble else 0
            self._trouble, self._last_came_ns, came = "", now, True
            if self._source.live:
                self._clock.came(dropped=self._frames.put(item))
            else:
                self._clock.came()
                self._frames.put(item, wait=self._stop)

    # The inference thread.

    def _infer(self) -> None:
        newest: Frame | None = None  # as it came
        turn, stays_s = 0, 0.0
        due = time.monotonic()  # when the next frame of a file is, where each stays a while; the last one, too
        while not self._stop.is_set():
            toggled = self._toggle()
            if self._controls.paused:
                if newest is not None and (toggled or turn != self._controls.rotate):  # the same picture, seen anew
                    turn = self._controls.rotate
                    self._smoother.reset()
                    self._see(newest, turn)
                self._stop.wait(_POLL_S)
                due = time.monotonic() + stays_s
                continue
            if (left := due - time.monotonic()) > 0:
                self._stop.wait(min(left, _POLL_S))
                continue
            frame = self._frames.take(_POLL_S)
            if frame is not None:
                stays_s = self._stays_s(frame)
                due = max(due, time.monotonic() - 0.1) + stays_s
                if not self._source.live:  # it does not grow older while it waits, be it in a pause
                    frame = dataclasses.replace(frame, captured_ns=time.monotonic_ns())
                turn = self._controls.rotate
                self._see(frame, turn, first=newest is None)
                newest = frame
            elif self._frames.finished:
                return

    def _stays_s(self, frame: Frame) -> float:
        """How long people are given to see a frame of a file."""
        if self._source.live:
            return 0.0
        if not self._clip_fps:
            return self._settings.picture_s
        lasts_s = 1 / self._clip_fps if frame.at_s is None else frame.lasts_s
        return lasts_s if self._settings.pace else 0.0

    def _see(self, frame: Frame, turn: int, *, first: bool = False) -> None:
        began = time.perf_counter_ns()
        cut = self._cut(frame, turn, first=first)
        if cut is not None:
            self._answer(cut, time.perf_counter_ns() - began)

    def _answer(self, frame: Frame, cutting_ns: int) -> None:
        scores = self._classifier.classify(frame.image, functools.partial(self._begin, frame))
        preprocess_ns = cutting_ns + scores.preprocess_ns
        raw, labels = scores.probabilities, self._classifier.labels
        smoothed, leader = self._smoother(raw, self._at_ns(frame))
        top = ranked(raw, smoothed, leader, labels, self._settings.top)
        self._clock.answered(preprocess_ns, scores.inference_ns)
        self._answered_by = self._classifier.card
        first = one(raw, smoothed, int(raw.argmax()), labels)
        answer = Answer(frame, top, first, preprocess_ns, scores.inference_ns)
        self._answers.put(answer, wait=None if self._source.live else self._stop)

    def _at_ns(self, frame: Frame) -> int:
        """On the clock that answers are averaged by: a clip's own, else the time of arrival."""
        if not self._clip_fps:
            return frame.captured_ns
        return round(1e9 * (frame.id / self._clip_fps if frame.at_s is None else frame.at_s))

    def _cut(self, frame: Frame, turn: int, *, first: bool) -> Frame | None:
        """Rotate a frame and cut it to the region of interest; None, and trouble, where that no longer lies in it."""
        image, region = frame.image, self._settings.region
        if region is not None:
            image = turned(image, self._began_at)
            height, width = image.shape[:2]
            image = image[region.y : region.y + region.height, region.x : region.x + region.width]
            whole = image.shape[:2] == (region.height, region.width)
            outside = "" if whole else f"--roi {region} does not lie within the picture of {width}x{height}"
            if not whole and first:
                raise UsageError(f"{outside} (after rotation): choose another")
            film = self._source.live or self._clip_fps
            if outside and not (film and outside == self._outside):
                self._warn(outside if film else f"frame {frame.id} is left out: {outside}")
            self._outside = outside
            if not whole:
                return None
            turn -= self._began_at
        image = turned(image, turn)
        return frame if image is frame.image else dataclasses.replace(frame, image=image, jpeg=None)

    def _toggle(self) -> bool:
        if not self._controls.toggle_precision.is_set():
            return False
        self._controls.toggle_precision.clear()
        try:
            card = self._classifier.toggle()
        except (EdgenetError, DeviceError) as exc:
            if not self._controls.quit.is_set():  # Ctrl-C reaches a process that is just starting
                self._tell(str(exc))
            return False
        self._smoother.reset()
        self._clock.forget_times()
        self._tell(f"{card.model} answers in {card.precision}")
        return True

    # The main thread.

    def _serve(self) -> None:
        while not self._controls.quit.is_set() and self._failure is None:
            answer, before = self._answers.take(_POLL_S), self._newest
            if answer is not None:
                self._newest = answer
                self._show()
            elif self._answers.finished:
                if self._failure is None:
                    self._ended()
                return
            else:
                self._refresh()
            if self._newest is not None and self._controls.save.is_set():
                self._controls.save.clear()
                self._save(self._newest)
            self._pump()
            if answer is not None:
                anew = before is not None and before.frame.id == answer.frame.id
                self._clock.shown(answer.frame.captured_ns, paused=self._controls.paused, anew=anew)

    def _refresh(self) -> None:
        """Tell the sinks what has changed since the last answer; live and in a pause also that time goes by."""
        state = (self._controls.paused, self._controls.mirror, self._trouble_now())
        every_s = _REFRESH_S if self._source.live else _HELD_S if self._controls.paused else math.inf
        if state != self._said or time.monotonic_ns() - self._shown_ns > every_s * 1e9:
            self._show()

    def _show(self) -> None:
        if self._controls.paused:
            self._held = self._newest
        stats = self._stats()
        update = Update(self._newest, stats, self._controls.paused, self._controls.mirror)
        for sink in self._sinks:
            sink.show(update)
        self._said = (update.paused, update.mirror, stats.trouble)
        self._shown_ns = time.monotonic_ns()

    def _stats(self, *, anew: bool = False) -> Stats:
        """How it goes: rates and times may be those of a moment ago, the rest is as of now; anew: all of it."""
        now, card, trouble = time.monotonic_ns(), self._classifier.card, self._trouble_now()
        dropped = self._clock.dropped + self._source.dropped
        if not anew and self._figures is not None:
            since, of, stats = self._figures
            if now - since < _FIGURES_NS and (of, stats.trouble, stats.dropped) == (card, trouble, dropped):
                return stats
        stats = self._clock.stats(card, self._source.name, trouble, self._thermometer.temperature_c)
        stats = self._without_gaps(dataclasses.replace(stats, dropped=dropped), card, now)
        self._figures = (now, card, stats)
        return stats

    def _without_gaps(self, stats: Stats, card: Card, now: int) -> Stats:
        """Say of the answer on the screen what the last two seconds do not; one that was held in a pause has no age."""
        newest = self._newest
        if newest is not None and not stats.age_p95_ms and newest is not self._held:
            age = (now - newest.frame.captured_ns) / 1e6
            stats = dataclasses.replace(stats, age_p50_ms=age, age_p95_ms=age)
        if newest is not None and not stats.inference_ms and card is self._answered_by:
            took = newest.preprocess_ns / 1e6, newest.inference_ns / 1e6
            stats = dataclasses.replace(stats, preprocess_ms=took[0], inference_ms=took[1])
        return stats

    def _trouble_now(self) -> str:
        """What the source says is wrong, or that it is silent."""
        silent_ns = time.monotonic_ns() - self._last_came_ns
        known = self._trouble or self._outside
        if known or not self._source.live or silent_ns < max(_SILENT_NS, 1.5 * self._rarely_ns):
            return known
        return f"{self._source.name}: no picture comes any more"

    # The end.

    def _guarded(self, part: Callable[[], None], fed: Slot[Any]) -> None:
        try:
            part()
        except BaseException as exc:  # noqa: BLE001 - raised on the main thread
            if not self._stop.is_set() and self._failure is None:
                self._failure = exc
        finally:
            fed.close()

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Stop everything, however far it got; what one part raises keeps no other from ending."""
        self._stop.set()
        self._frames.close()
        self._answers.close()
        until = time.monotonic() + _FAREWELL_S

        def join() -> None:
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, until - time.monotonic()))

        for part in (self._classifier.close, join, *(sink.close for sink in self._sinks), self._source.close):
            try:
                part()
            except Exception as exc:  # noqa: BLE001 - raised when all have ended
                self._failure = self._failure or exc
