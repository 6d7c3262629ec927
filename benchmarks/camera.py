"""What the live camera adds to a model: throughput, the age of what is shown, time of its own, viewers, and memory.

    python benchmarks/camera.py [--model FILE] [--seconds 10] [--minutes 0]

The camera is the stamped MJPEG server of the tests at 30 fps and 720p, in a process of its own; ages are read from the
pictures themselves, at the sink. Models that take exactly 5, 20 and 60 ms stand beside a real one, and the naive loop
(read, infer, show) beside the pipeline. --minutes N runs the last part, memory and age over time, that long. Goals are
printed beside what came out; exit code 1 where one is missed. The sockets' peers run on the same machine.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgenet.camera.classifier import Classifier, FileClassifier, default_model
from edgenet.camera.frame import Controls, Sink, Slot, Stats, Update
from edgenet.camera.overlay import Painter
from edgenet.camera.pipeline import Pipeline
from edgenet.camera.sources import open_source
from edgenet.camera.web.server import WebView
from tests.edgenet.camera.mjpeg_camera import MjpegCamera, age_ms
from tests.edgenet.camera.stand_ins import Model, update

FPS, SIZE = 30.0, (1280, 720)
WARM_S = 1.5  # of each run, left out
VIEWERS = 4

_VIEWERS = """
import sys, threading
from websockets.sync.client import connect
def watch():
    with connect(sys.argv[1], compression=None, max_size=None) as socket:
        while socket.recv():
            socket.send('{"do": "ack"}')
threads = [threading.Thread(target=watch, daemon=True) for _ in range(int(sys.argv[2]))]
[thread.start() for thread in threads]
sys.stdin.read()
"""


@dataclass
class Meter:
    """A sink that reads the age of each picture, and draws it as a window would."""

    painter: Painter = field(default_factory=Painter)
    began: float = field(default_factory=time.monotonic)
    at: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    inference_ms: list[float] = field(default_factory=list)
    preprocess_ms: list[float] = field(default_factory=list)
    last: int = -1

    def show(self, shown: Update) -> None:
        """Note one answer."""
        answer = shown.answer
        if answer is None or answer.frame.id == self.last or time.monotonic() - self.began < WARM_S:
            return
        self.last = answer.frame.id
        self.at.append(time.monotonic())
        self.ages.append(age_ms(answer.frame.image))
        self.inference_ms.append(answer.inference_ns / 1e6)
        self.preprocess_ms.append(answer.preprocess_ns / 1e6)
        self.painter.paint(shown, mirror=False)

    def close(self) -> None:
        """Nothing is open."""

    @property
    def fps(self) -> float:
        """Answers a second."""
        return (len(self.at) - 1) / (self.at[-1] - self.at[0])


@dataclass
class Goals:
    """What was promised, and whether it was kept."""

    table: Table
    missed: int = 0

    def row(self, what: str, measured: str, goal: str, kept: bool) -> None:
        """Add one."""
        self.missed += not kept
        self.table.add_row(what, measured, goal, "yes" if kept else "NO")


def run(url: str, classifier: Classifier, seconds: float, *sinks: Sink) -> Stats:
    """Run the pipeline for some seconds."""
    controls = Controls()
    threading.Timer(seconds, controls.quit.set).start()
    return Pipeline(open_source(url), classifier, sinks, controls).run()


def naive(url: str, model: Classifier, seconds: float) -> tuple[list[float], float]:
    """Read, infer, show, in one loop: ages at the sink, and frames a second."""
    import cv2

    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    began, ages = time.monotonic(), []
    while time.monotonic() - began < seconds:
        done, image = capture.read()
        if not done:
            break
        model.classify(image)
        ages.append(age_ms(image))
    capture.release()
    model.close()
    return ages, len(ages) / (time.monotonic() - began)


def throughput_and_age(camera: MjpegCamera, real: Path, seconds: float, goals: Goals, sides: Table) -> None:
    """Throughput against the model's own bound or the camera's, whichever is lower; ages beside the naive loop's."""
    makers: dict[str, Callable[[], Classifier]] = {f"{ms} ms": lambda ms=ms: Model(ms) for ms in (5, 20, 60)}  # type: ignore[misc]
    makers[real.stem] = lambda: FileClassifier(real, threads=1)
    for name, make in makers.items():
        meter = Meter()
        stats = run(camera.url, make(), seconds + WARM_S, meter)
        inference = statistics.median(meter.inference_ms)
        bound = min(1000 / inference, stats.camera_fps)
        share, p95 = meter.fps / bound, float(np.percentile(meter.ages, 95))
        limit = 1000 / FPS + 1.5 * inference + 10
        which = "1 / inference" if 1000 / inference < stats.camera_fps else "the camera"
        goals.row(f"{name}: throughput", f"{meter.fps:.2f} fps = {share:.1%} of {which}", ">= 97 %", share >= 0.97)
        goals.row(f"{name}: age p95 at the sink", f"{p95:.0f} ms", f"<= {limit:.0f} ms", p95 <= limit)
        ages, fps = naive(camera.url, make(), seconds)
        last = ages[len(ages) // 2 :]
        sides.add_row(
            name, f"{meter.fps:.1f}", f"{np.median(meter.ages):.0f} / {p95:.0f}",
            f"{fps:.1f}", f"{np.median(last):.0f} / {np.percentile(last, 95):.0f}",
        )  # fmt: skip


def own_time(camera: MjpegCamera, real: Path, seconds: float, goals: Goals) -> None:
    """Preprocessing, hand-offs and drawing, a frame."""
    draws: list[int] = []
    meter = Meter(Painter(draws.append))
    run(camera.url, FileClassifier(real, threads=1), seconds + WARM_S, meter)
    preprocess, draw = statistics.median(meter.preprocess_ms), statistics.median(draws) / 1e6
    hand = hand_offs_ms()
    total = preprocess + hand + draw
    parts = f"{preprocess:.2f} + {hand:.2f} + {draw:.2f} = {total:.2f} ms"
    goals.row(f"own time a frame, {SIZE[1]}p: preprocess + hand-offs + draw", parts, "<= 1.5 ms", total <= 1.5)
    goals.row("of it drawing", f"{draw:.2f} ms", "<= 0.5 ms", draw <= 0.5)


def hand_offs_ms(rounds: int = 2000) -> float:
    """Time of both hand-offs of a frame, grab to inference and inference to sinks: the median."""
    frames: Slot[int] = Slot()
    answers: Slot[int] = Slot()

    def infer() -> None:
        while not frames.finished:
            thing = frames.take(1)
            if thing is not None:
                answers.put(thing)

    thread = threading.Thread(target=infer)
    thread.start()
    took = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        frames.put(1)
        answers.take(1)
        took.append(time.perf_counter_ns() - began)
    frames.close()
    thread.join()
    return statistics.median(took) / 1e6


def viewers(seconds: float, goals: Goals) -> None:
    """What viewers of the page cost this process: processor time with them, less what it takes without."""
    camera = MjpegCamera(FPS, SIZE)
    shown = np.ascontiguousarray(first_picture(camera.url))
    camera.kill()
    page = WebView(Controls())
    page.start()
    shares = []
    for count in (0, VIEWERS):
        command = [sys.executable, "-c", _VIEWERS, f"ws://127.0.0.1:{page.port}/ws", str(count)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE)
        time.sleep(1.5)
        cpu, wall = time.process_time(), time.monotonic()
        number = 0
        while time.monotonic() - wall < seconds:
            page.show(update(shown, number))
            number += 1
            time.sleep(max(0.0, wall + number / FPS - time.monotonic()))
        shares.append((time.process_time() - cpu) / (time.monotonic() - wall))
        child.kill()
        child.wait()
    page.close()
    cost = shares[1] - shares[0]
    goals.row(
        f"{VIEWERS} viewers of the page, {SIZE[1]}p at {FPS:.0f} fps", f"{cost:.1%} of a core", "<= 10 %", cost <= 0.1
    )


def first_picture(url: str) -> np.ndarray:
    """Fetch one picture of the camera."""
    source = open_source(url)
    stop = threading.Event()
    for item in source.frames(stop):
        image = getattr(item, "image", None)
        if image is not None:
            source.close()
            return np.asarray(image)
    raise RuntimeError("no picture")


def over_time(camera: MjpegCamera, real: Path, minutes: float, goals: Goals) -> None:
    """Memory of this process, and the age of what is shown, minute by minute."""
    meter, sizes = Meter(), []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            sizes.append(resident_mb())

    threading.Thread(target=watch, daemon=True).start()
    run(camera.url, FileClassifier(real, threads=1), minutes * 60, meter)
    stop.set()
    warm = sizes[min(20, len(sizes) // 2) :]
    drift = max(warm) - min(warm)
    goals.row(f"memory over {minutes:g} min", f"{min(warm):.1f} to {max(warm):.1f} MB", "within 10 MB", drift <= 10)
    since = [at - meter.at[0] for at in meter.at]
    stretches = np.array_split(np.arange(len(since)), max(2, round(minutes)))
    parts = [np.array(meter.ages)[part] for part in stretches]
    p50, p95 = ([float(np.percentile(part, share)) for part in parts] for share in (50, 95))
    flat = max(p50[1:]) <= p50[0] + 5
    said = f"p50 {min(p50):.0f} to {max(p50):.0f} ms, p95 {min(p95):.0f} to {max(p95):.0f} ms"
    goals.row(f"age over {minutes:g} min, stretch by stretch", said, "p50 flat", flat)


def resident_mb() -> float:
    """Memory of this process that is in use."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=0.5)
    arguments = parser.parse_args()
    goals = Goals(Table("what", "measured", "goal", "kept"))
    sides = Table("model", "pipeline, fps", "age p50 / p95, ms", "naive loop, fps", "age p50 / p95, ms")
    with MjpegCamera(FPS, SIZE) as camera:
        throughput_and_age(camera, arguments.model, arguments.seconds, goals, sides)
        own_time(camera, arguments.model, arguments.seconds, goals)
        if arguments.minutes:
            over_time(camera, arguments.model, arguments.minutes, goals)
    viewers(arguments.seconds, goals)
    console = Console(width=150)
    console.print(goals.table)
    console.print(sides)
    sys.exit(bool(goals.missed))


if __name__ == "__main__":
    main()
