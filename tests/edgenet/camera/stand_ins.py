"""Stand-ins for hardware: sources that give what a test wants, and models that take exactly as long as it wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgenet.camera.classifier import Card, Scores
from edgenet.camera.frame import Answer, Frame, Ranked, Stats, Trouble, Update
from edgenet.image import Pixels

LABELS = ("ant", "bee", "cat")


def picture(value: int = 0, width: int = 64, height: int = 48) -> Pixels:
    """Return a picture whose every byte is `value`."""
    return np.full((height, width, 3), value % 256, np.uint8)


@dataclass
class Clip:
    """A file: gives these pictures and ends; a text among them is trouble, an exception is raised."""

    pictures: Iterable[Pixels | str | BaseException]
    live = False
    dropped = 0
    name = "a clip"
    fps: float = 0.0
    jpeg: bytes | None = None
    closed: int = 0

    def frames(self, stop: threading.Event) -> Iterator[Frame | Trouble]:
        number = 0
        for image in self.pictures:
            if isinstance(image, BaseException):
                raise image
            if stop.is_set():
                return
            if isinstance(image, str):
                yield Trouble(image)
                continue
            yield Frame(number, time.monotonic_ns(), image, self.jpeg)
            number += 1

    def close(self) -> None:
        self.closed += 1


@dataclass
class Camera:
    """A live source: a picture every 1 / fps s for ever; `script` may say trouble, or stall, from any thread.

    Attributes:
        trouble: while it is set, that is said and no picture comes. stalled: while it is set, nothing comes at all.
        deaf_s: how long it does not look at `stop`.
    """

    fps: float = 100.0
    image: Pixels = field(default_factory=picture)
    trouble: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    deaf_s: float = 0.0
    closed: int = 0
    given: int = 0
    dropped: int = 0
    live = True
    name = "a camera"

    def frames(self, stop: threading.Event) -> Iterator[Frame | Trouble]:
        due, said = time.monotonic(), ""
        while not stop.is_set():
            if self.deaf_s:
                time.sleep(self.deaf_s)
            due = max(due + 1 / self.fps, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            if self.stalled.is_set():
                continue
            if self.trouble:
                if said != self.trouble:
                    said = self.trouble
                    yield Trouble(said)
                continue
            said = ""
            yield Frame(self.given, time.monotonic_ns(), self.image)
            self.given += 1

    def close(self) -> None:
        self.closed += 1


class Model:
    """A classifier that takes `ms` and answers what `answer` says of the picture: probabilities of LABELS."""

    def __init__(
        self,
        ms: float = 0.0,
        answer: Callable[[Pixels], Iterable[float]] = lambda image: (0.1, 0.2, 0.7),
        *,
        sibling: Exception | None = None,
    ) -> None:
        self.ms, self.answer, self.sibling = ms, answer, sibling
        self.seen: list[Pixels] = []
        self.closed = threading.Event()
        self.card = Card("model", "int8", "stand-in", 1)
        self.labels = LABELS

    def classify(self, image: Pixels, meanwhile: Callable[[], None] = lambda: None) -> Scores:
        began = time.perf_counter_ns()
        meanwhile()
        self.seen.append(image)
        if len(self.seen) > 100:
            self.seen.pop(0)
        self.closed.wait(max(0.0, self.ms / 1e3 - (time.perf_counter_ns() - began) / 1e9))
        row = np.array(list(self.answer(image)), np.float64)
        return Scores(row, 0, time.perf_counter_ns() - began)

    def toggle(self) -> Card:
        if self.sibling:
            raise self.sibling
        other = "float32" if self.card.precision == "int8" else "int8"
        self.card = Card("model", other, "stand-in", 1)
        return self.card

    def close(self) -> None:
        self.closed.set()


@dataclass
class Watcher:
    """A sink that keeps what it is shown, with the time; delay_s: how long it holds everybody up."""

    delay_s: float = 0.0
    updates: list[Update] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    closed: int = 0
    on_show: Callable[[Update], None] = lambda _: None

    def show(self, update: Update) -> None:
        self.updates.append(update)
        self.at.append(time.monotonic())
        time.sleep(self.delay_s)
        self.on_show(update)

    def close(self) -> None:
        self.closed += 1

    @property
    def ages_ns(self) -> list[float]:
        """How old each frame was as it was shown, repetitions included."""
        shown = zip(self.at, self.updates, strict=True)
        return [at * 1e9 - update.answer.frame.captured_ns for at, update in shown if update.answer]

    @property
    def ids(self) -> list[int]:
        """Ids of the frames that were shown, in order, repetitions included."""
        return [update.answer.frame.id for update in self.updates if update.answer]


def stats(trouble: str = "", **more: object) -> Stats:
    """Return figures as a camera that does well has them."""
    known: dict[str, object] = {
        "camera_fps": 30.0, "inference_fps": 29.9, "age_p50_ms": 21.0, "age_p95_ms": 38.0, "preprocess_ms": 0.9,
        "inference_ms": 12.0, "draw_ms": 0.3, "dropped": 7, "temperature_c": 54.0, "model": "symbols",
        "precision": "int8", "runtime": "LiteRT 2.3.0 XNNPACK", "threads": 2, "source": "camera 0, 1280x720",
    }  # fmt: skip
    return Stats(**{**known, "trouble": trouble, **more})  # type: ignore[arg-type]


def update(
    image: Pixels, number: int = 0, *, labels: tuple[str, ...] = LABELS, paused: bool = False, mirror: bool = False,
    trouble: str = "", jpeg: bytes | None = None,
) -> Update:  # fmt: skip
    """Return an update with an answer: the labels with falling probabilities."""
    shares = [2.0**-index / 2 for index in range(len(labels))]
    top = tuple(Ranked(i, label, shares[-1 - i], shares[i]) for i, label in enumerate(labels))
    answer = Answer(Frame(number, time.monotonic_ns(), image, jpeg), top, top[-1], 900_000, 12_000_000)
    return Update(answer, stats(trouble), paused, mirror)
