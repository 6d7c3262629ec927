"""What stands beside the camera in its benchmark: a sink that measures, the naive loop, a slowed model, viewers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgenet.camera.classifier import Classifier, FileClassifier, Scores
from edgenet.camera.frame import Update
from edgenet.camera.sinks.overlay import Painter
from edgenet.image import Pixels
from tests.edgenet.camera.mjpeg_camera import age_ms

WARM_S = 1.5  # of each run, left out
_MOST_FPS = 60  # what is made room for

_VIEWERS = """
import sys, threading
from websockets.sync.client import connect
received = []
def watch():
    with connect(sys.argv[1], compression=None, max_size=None) as socket:
        while message := socket.recv():
            received.append(len(message))
            socket.send('{"do": "ack"}')
threads = [threading.Thread(target=watch, daemon=True) for _ in range(int(sys.argv[2]))]
[thread.start() for thread in threads]
sys.stdin.read()
print(sum(received))
"""


def viewers(address: str, count: int) -> subprocess.Popen[bytes]:
    """Start a process of so many viewers, who acknowledge at once; in the end it prints how many bytes they got."""
    command = [sys.executable, "-c", _VIEWERS, address, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


class Series:
    """Numbers in memory that is all there from the start, so that keeping them costs none while memory is watched."""

    def __init__(self, seconds: float, rate: float = _MOST_FPS) -> None:
        self._room = np.full(int(seconds * rate) + 100, np.nan)
        self.count = 0

    def add(self, value: float) -> None:
        """Keep one more, as long as there is room."""
        if self.count < len(self._room):
            self._room[self.count] = value
            self.count += 1

    @property
    def values(self) -> np.ndarray:
        """What was kept, in order."""
        return self._room[: self.count]


@dataclass
class Meter:
    """A sink that reads the age of each picture, and draws it as a window would; seconds: how long it may run."""

    seconds: float
    painter: Painter = field(default_factory=Painter)
    began: float = field(default_factory=time.monotonic)
    last: int = -1

    def __post_init__(self) -> None:
        """Make room."""
        self._at, self._ages, self._inference = (Series(self.seconds) for _ in range(3))

    def show(self, shown: Update) -> None:
        """Draw one answer, and note how old its picture is then."""
        answer = shown.answer
        self.painter.paint(shown, mirror=False)
        if answer is None or answer.frame.id == self.last or time.monotonic() - self.began < WARM_S:
            return
        self.last = answer.frame.id
        self._at.add(time.monotonic())
        self._ages.add(age_ms(answer.frame.image))
        self._inference.add(answer.inference_ns / 1e6)

    def close(self) -> None:
        """Nothing is open."""

    @property
    def ages(self) -> np.ndarray:
        """Of each picture as it was shown, ms."""
        return self._ages.values

    @property
    def at(self) -> np.ndarray:
        """When each was shown, seconds."""
        return self._at.values

    @property
    def inference_ms(self) -> float:
        """The median."""
        return float(np.median(self._inference.values))

    @property
    def fps(self) -> float:
        """Answers a second."""
        return float((len(self.at) - 1) / (self.at[-1] - self.at[0]))


class Slowed:
    """A model file that takes `ms` at least: a larger one's time, a real one's memory."""

    def __init__(self, file: Path, ms: float) -> None:
        self._real = FileClassifier(file, threads=1)
        self._s = ms / 1e3
        self.card, self.labels, self.toggle, self.close = (
            self._real.card, self._real.labels, self._real.toggle, self._real.close,
        )  # fmt: skip

    def classify(self, image: Pixels, meanwhile: Callable[[], None] = lambda: None) -> Scores:
        """Answer, and wait until the time is over."""
        began = time.perf_counter_ns()
        scores = self._real.classify(image, meanwhile)
        time.sleep(max(0.0, self._s - (time.perf_counter_ns() - began) / 1e9))
        return Scores(scores.probabilities, scores.preprocess_ns, time.perf_counter_ns() - began - scores.preprocess_ns)


def naive(url: str, model: Classifier, seconds: float) -> tuple[np.ndarray, float]:
    """Read, infer, show, in one loop: ages at the sink, and frames a second."""
    import cv2

    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    began, ages = time.monotonic(), Series(seconds)
    while time.monotonic() - began < seconds:
        done, image = capture.read()
        if not done:
            break
        model.classify(image)
        ages.add(age_ms(image))
    capture.release()
    model.close()
    return ages.values, ages.count / (time.monotonic() - began)


def naive_beside(url: str, file: Path, ms: float, seconds: float) -> subprocess.Popen[str]:
    """Start the naive loop in a process of its own; it prints its ages as JSON in the end."""
    command = [sys.executable, __file__, url, str(file), str(ms), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@dataclass
class Goals:
    """What was promised, and whether it was kept."""

    table: Table
    missed: int = 0

    def row(self, what: str, measured: str, goal: str, kept: bool) -> None:
        """Add one, and say it: all of them take minutes."""
        print(f"{what}: {measured} ({goal})", file=sys.stderr)
        self.missed += not kept
        self.table.add_row(what, measured, goal, "yes" if kept else "NO")


if __name__ == "__main__":  # the naive loop
    seen, _ = naive(sys.argv[1], Slowed(Path(sys.argv[2]), float(sys.argv[3])), float(sys.argv[4]))
    json.dump(seen.tolist(), sys.stdout)
