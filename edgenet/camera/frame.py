"""What flows through the camera: frames from a source, answers to them, and what is shown of both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from edgenet.image import Pixels

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source.

    Attributes:
        id: from 0, in the order of arrival; never reused, also after the camera was reopened.
        captured_ns: time.monotonic_ns() as it arrived here; of a file, as it was its turn to be answered.
        image: uint8 [h, w, 3] in OpenCV's order (blue, green, red), as the source gives it; nobody writes to it.
        jpeg: what a camera sent the same picture as; None where it sent none.
        at_s: when a clip shows it, after its first one; None of what is no clip. lasts_s: for how long.
    """

    id: int
    captured_ns: int
    image: Pixels
    jpeg: bytes | None = None
    at_s: float | None = None
    lasts_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """A source gives no pictures: what the screen says, such as "camera 0 is gone: trying again in 2 s"."""

    text: str


class Source(Protocol):
    """Where pictures come from."""

    @property
    def name(self) -> str:
        """What it is, for people: "camera 0, 1280x720"."""

    @property
    def live(self) -> bool:
        """Pictures do not wait: those that come too fast are dropped. Of a file, none is."""

    @property
    def dropped(self) -> int:
        """How many pictures came and gave way to the next before they were frames."""

    def frames(self, stop: threading.Event) -> Iterator[Frame | Trouble]:
        """Yield pictures as they come, until `stop` is set or a file ends; looks at `stop` at least every 0.2 s.

        A source that loses its camera yields Trouble once when that happens (and when its words change), opens it again
        with exponential backoff, and goes on. Raises SourceError where it can never give a picture.
        """

    def close(self) -> None:
        """Let the camera go; harmless twice."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One class and its probability: raw of this frame, smoothed over time; 0..1."""

    index: int
    label: str
    raw: float
    smoothed: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of a frame.

    Attributes:
        frame: as the model saw it: rotated and cut to the region of interest, not mirrored.
        top: the most probable classes by smoothed probability, the best first; one that was the best stays first until
            another is clearly ahead.
        raw: the most probable class of this frame alone.
        preprocess_ns, inference_ns: what that took.
    """

    frame: Frame
    top: tuple[Ranked, ...]
    raw: Ranked
    preprocess_ns: int
    inference_ns: int


@dataclass(frozen=True, slots=True)
class Stats:
    """How the camera is doing, over the last two seconds; 0 where nothing happened yet.

    Attributes:
        camera_fps, inference_fps: frames that came, and frames that were answered, a second.
        age_p50_ms, age_p95_ms: from a frame's arrival to the sinks having shown its answer; where none was shown,
            how old the one before is, and 0 in a pause, which ages nothing.
        preprocess_ms, inference_ms, draw_ms: medians; where nothing was answered, what that took of the answer shown.
        dropped: pictures that came and were never answered, since the start.
        temperature_c: of the processor; None where it does not tell.
        model, precision, runtime: of the file that answers; threads: of one inference.
        source: its name. trouble: why there are no pictures; "" while there are.
    """

    camera_fps: float
    inference_fps: float
    age_p50_ms: float
    age_p95_ms: float
    preprocess_ms: float
    inference_ms: float
    draw_ms: float
    dropped: int
    temperature_c: float | None
    model: str
    precision: str
    runtime: str
    threads: int
    source: str
    trouble: str


@dataclass(frozen=True, slots=True)
class Update:
    """What sinks show: the newest answer (None until there is one) and how the camera is doing."""

    answer: Answer | None
    stats: Stats
    paused: bool
    mirror: bool


class Sink(Protocol):
    """Something that shows, keeps or sends updates."""

    def show(self, update: Update) -> None:
        """Take one update; returns at once, whoever watches. Of a file, every frame's update comes exactly once."""

    def close(self) -> None:
        """End; what was recorded is playable then. Harmless twice."""


@dataclass
class Controls:
    """What the person in front of it wants; set by sinks (keys, buttons), read by the pipeline; from any thread."""

    mirror: bool = False
    rotate: int = 0  # degrees clockwise: 0, 90, 180, 270
    paused: bool = False
    quit: threading.Event = field(default_factory=threading.Event)
    save: threading.Event = field(default_factory=threading.Event)  # one still, of the newest answer or the first
    toggle_precision: threading.Event = field(default_factory=threading.Event)  # to the sibling file and back


class Slot(Generic[T]):
    """A place for the newest thing: putting never waits, and what nobody took is replaced."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thing: T | None = None
        self._closed = False
        self._came: SimpleQueue[None] = SimpleQueue()  # holds something while there is a thing, and once it is closed
        self._taken = threading.Condition(self._lock)

    def put(self, thing: T, *, wait: threading.Event | None = None) -> bool:
        """Put the newest thing; True if it replaced one that nobody took.

        wait: of a file, whose frames are never dropped: wait until the last one was taken, or this is set.
        """
        with self._lock:
            while wait is not None and self._thing is not None and not self._closed and not wait.is_set():
                self._taken.wait(0.1)
            replaced, self._thing = self._thing is not None, thing
            if not replaced:
                self._came.put(None)  # who waits for that wakes up sooner than for a condition
            return replaced

    def take(self, timeout_s: float) -> T | None:
        """Take the newest thing as soon as there is one; None after the timeout, or where no more will come."""
        try:
            self._came.get(timeout=timeout_s)
        except Empty:
            return None
        with self._lock:
            thing, self._thing = self._thing, None
            if self._closed:
                self._came.put(None)
            self._taken.notify_all()
            return thing

    def close(self) -> None:
        """Say that no more will come."""
        with self._lock:
            self._closed = True
            self._came.put(None)
            self._taken.notify_all()

    @property
    def finished(self) -> bool:
        """No more will come, and everything was taken."""
        with self._lock:
            return self._closed and self._thing is None
