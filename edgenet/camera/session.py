"""One run of the camera: what the user asked for, put together, run, and taken apart again."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices import doctor
from devices.machine import at_once
from edgenet.camera.classifier import FileClassifier, default_model
from edgenet.camera.clock import Clock
from edgenet.camera.frame import Controls, Sink, Source, Stats
from edgenet.camera.leaving import leaving
from edgenet.camera.opencv import opencv
from edgenet.camera.pipeline import Pipeline
from edgenet.camera.serving import serve
from edgenet.camera.settings import Settings
from edgenet.camera.sinks.log import Log
from edgenet.camera.sinks.overlay import Painter
from edgenet.camera.sinks.recording import Recording
from edgenet.camera.sinks.stills import Stills
from edgenet.camera.sinks.terminal_view import TerminalView
from edgenet.camera.sinks.window import DisplayProbe, Window
from edgenet.camera.sources.browser import BrowserSource
from edgenet.camera.web.server import WebView
from edgenet.camera.wishes import View, Voice, Wishes
from edgenet.errors import EdgenetError, SourceError
from edgenet.labels import Labels, read_labels

_MOST_THREADS = 4
_PICTURE_S = 1.0  # that a picture is shown
_LOOK_S = 0.02  # until it is seen that the page was opened


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: the last two seconds, frames whose answers were shown, and whether an output broke off."""

    stats: Stats
    frames: int
    seconds: float
    broke_off: bool


def document(outcome: Outcome) -> dict[str, Any]:
    """Write an outcome as what --json prints: the Stats, and what was done in all."""
    whole = {"frames": outcome.frames, "seconds": outcome.seconds, "complete": not outcome.broke_off}
    return {**dataclasses.asdict(outcome.stats), **whole}


def run(wishes: Wishes, voice: Voice) -> Outcome | None:
    """Run the camera until its source ends or somebody quits; None where the model ran in the page.

    Raises UsageError, SourceError, EdgenetError, DeviceError, each in one line.
    """
    wishes.check()
    if not wishes.in_browser:
        _check_opencv(voice)
    with contextlib.ExitStack() as stack:
        controls = Controls(mirror=wishes.mirror, rotate=wishes.rotate)
        opened = stack.enter_context(leaving(controls))
        if wishes.in_browser:
            _in_browser(wishes, controls, voice, stack, opened)
            return None
        return _Session(wishes, controls, voice, stack, opened).run()


class _Session:
    """The parts of one run. What was opened is closed by the stack, whatever happens."""

    def __init__(
        self,
        wishes: Wishes,
        controls: Controls,
        voice: Voice,
        stack: contextlib.ExitStack,
        opened: Callable[[], None],
    ) -> None:
        self.wishes, self.controls, self.voice, self.stack, self.opened = wishes, controls, voice, stack, opened
        self.clock = Clock()
        self.painter = Painter(self.clock.drew)
        self.told: list[Callable[[str], None]] = [self.painter.notice]  # what shows a line for a moment
        self.outputs = 0  # files that still grow
        self.broke_off = False
        self.pump: Callable[[], None] = lambda: None
        self.page: WebView | None = None

    def run(self) -> Outcome:
        wishes = self.wishes
        page = wishes.phone or wishes.browsers_camera or bool(wishes.of_the_page)
        display = DisplayProbe() if wishes.view in ("", "window") and not page else None
        if display:
            self.stack.callback(display.close)
        classifier = self.stack.enter_context(contextlib.closing(_classifier(wishes, self.voice)))
        source = self.stack.enter_context(contextlib.closing(_source(wishes)))
        view = self._view(display)
        sinks = [*self._outputs(source), *self._viewers(view, display, source)]
        stills = self.stack.enter_context(contextlib.closing(Stills(Path(), self._tell)))
        pipeline = Pipeline(
            source,
            classifier,
            sinks,
            self.controls,
            self._paced(view),
            clock=self.clock,
            pump=self.pump,
            tell=self._tell,
            warn=(lambda _: None) if view == "terminal" and source.live else self.voice.warn,
            save=stills.save,
            begin=self.painter.begin if view == "window" or self.wishes.record else lambda _: None,
            ended=self.page.end if self.page else lambda: None,
        )
        self.opened()
        self._await_viewer(source)
        began = time.monotonic()
        stats = pipeline.run()
        return Outcome(stats, self.clock.total, time.monotonic() - began, self.broke_off)

    def _paced(self, view: View) -> Settings:
        """Give people time to see: clips go at their own rate, and pictures stay, where no file is made of them."""
        watched = view in ("window", "web")
        kept = self.wishes.log or self.wishes.record
        return dataclasses.replace(
            self.wishes.settings, pace=watched, picture_s=_PICTURE_S if watched and not kept else 0
        )

    def _view(self, display: DisplayProbe | None) -> View:
        """Choose the window where one opens, else the page."""
        view = self.wishes.view
        if display is None:
            return view or "web"
        why_not = display.why_not()
        if view == "window" and why_not:
            raise EdgenetError(why_not)
        return "web" if why_not else "window"

    def _outputs(self, source: Source) -> list[Sink]:
        made: list[Sink] = []
        if self.wishes.log:
            made.append(self._keep(Log(self.wishes.log, self._break_off, self.controls.quit)))
        if self.wishes.record:
            fps = float(getattr(source, "fps", 0) or 30)
            record = Recording(
                self.wishes.record,
                self.painter,
                fps=min(30.0, fps) if source.live else fps,
                live=source.live,
                failed=self._break_off,
                warn=self.voice.warn,
                quitting=self.controls.quit,
            )
            made.append(self._keep(record))
        self.outputs = len(made)
        return made

    def _viewers(self, view: View, display: DisplayProbe | None, source: Source) -> list[Sink]:
        if view == "window":
            window = Window(self.controls, self.painter, display.screen if display else None)
            self.pump = window.pump
            return [self._keep(window)]
        if view == "terminal":
            return [self._keep(TerminalView(self.controls, live=self.wishes.terminal_lives, warns=source.live))]
        if view == "web":
            inbox = source.inbox if isinstance(source, BrowserSource) else None
            page = serve(self.wishes, self.controls, self.voice, self.stack, self.opened, inbox=inbox)
            self.told.append(page.notice)
            self.page = page
            return [page]
        return []

    def _await_viewer(self, source: Source) -> None:
        """Let a clip that is for the page alone begin when that is opened: nobody is as quick as its first frames."""
        wishes = self.wishes
        if self.page is None or source.live or wishes.log or wishes.record or wishes.json:
            return
        self.voice.say(f"{source.name} begins when the page is opened")
        while not self.page.watched.is_set() and not self.controls.quit.wait(_LOOK_S):
            pass

    def _keep(self, sink: Any) -> Sink:
        return self.stack.enter_context(contextlib.closing(sink))  # type: ignore[no-any-return]

    def _tell(self, line: str) -> None:
        self.voice.say(line)
        for show in self.told:
            show(line)

    def _break_off(self, line: str) -> None:
        """Say that an output broke off; where it was the last and nobody looks on, there is no reason to go on."""
        self.broke_off = True
        self.voice.error(line)
        for show in self.told:
            show(line)
        self.outputs -= 1
        if self.wishes.view == "none" and self.outputs < 1:
            self.controls.quit.set()


def _check_opencv(voice: Voice) -> None:
    wheels = doctor.opencv()
    try:
        opencv()
    except SourceError as exc:
        raise exc if wheels.ok else EdgenetError(f"OpenCV does not load: {wheels.found}; {wheels.fix}") from exc
    if wheels.fix:
        voice.warn(f"{wheels.found}; {wheels.fix}")


def _classifier(wishes: Wishes, voice: Voice) -> FileClassifier:
    return FileClassifier(
        wishes.file or default_model(),
        threads=wishes.threads or max(1, min(_MOST_THREADS, at_once() - 1)),
        labels=wishes.labels,
        input_range=wishes.input_range,
        warn=voice.warn,
        ask=lambda said: _asked(said, wishes, voice),
    )


def _asked(said: str, wishes: Wishes, voice: Voice) -> Labels | None:
    """Ask for a label file until there is one, or an empty answer."""
    while answer := voice.ask(f"{said}. A file of their names (.txt, .csv), or Enter for numbers:"):
        try:
            file = Path(answer).expanduser()
            labels = read_labels(file)
            dataclasses.replace(wishes, labels_file=file).check()  # it may be what --log would write over
        except (EdgenetError, RuntimeError, ValueError) as exc:  # nobody's home, or what can be no path
            voice.error(str(exc))
        else:
            return labels
    return None


def _source(wishes: Wishes) -> Source:
    from edgenet.camera.sources.opening import first_camera, open_source

    if wishes.browsers_camera:
        return BrowserSource()
    if wishes.source:
        return open_source(wishes.source)
    return first_camera()


def _in_browser(
    wishes: Wishes, controls: Controls, voice: Voice, stack: contextlib.ExitStack, opened: Callable[[], None]
) -> None:
    """Serve the page with the model in it until somebody quits."""
    with contextlib.closing(_classifier(wishes, voice)) as model:  # opened once, to know that it can be
        serve(wishes, controls, voice, stack, opened, model=model)
    controls.quit.wait()
