"""What the live camera adds to a model: throughput, the age of what is shown, time of its own, viewers, and memory.

    python benchmarks/camera.py [--model FILE] [--seconds 10] [--minutes 0.5]

The camera is the stamped MJPEG server of the tests at 30 fps and 720p, in a process of its own; ages are read from the
pictures themselves, at the sink. Models that take exactly 5, 20 and 60 ms stand beside a real one, and the naive loop
(read, infer, show) beside the pipeline. --minutes N runs memory and age over time that long, the naive loop beside it
in a process of its own; 10 is the whole of it. With EDGENET_TEST_DATA its photographs must get the top-1 that
`edgenet evaluate` gives. Goals are printed beside what came out; exit code 1 where one is missed. All peers run on the
same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import camera_cli
import numpy as np
from camera_sides import WARM_S, Goals, Meter, Series, Slowed, naive, naive_beside, viewers
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgenet.camera.classifier import Classifier, FileClassifier, default_model
from edgenet.camera.frame import Controls, Frame, Sink, Slot, Source, Stats, Update
from edgenet.camera.pipeline import Pipeline
from edgenet.camera.sinks.overlay import Painter
from edgenet.camera.sources.opening import open_source
from edgenet.camera.web.broadcast import encode
from edgenet.camera.web.server import WebView
from edgenet.image import fit
from tests.edgenet.camera.mjpeg_camera import MjpegCamera
from tests.edgenet.camera.stand_ins import Camera, Model, update

FPS, SIZE = 30.0, (1280, 720)
SLOW_MS = 40.0  # of the model over the minutes: with it the naive loop falls behind
VIEWERS = 4


def run(
    source: Source,
    classifier: Classifier,
    seconds: float,
    *sinks: Sink,
    begin: Callable[[Frame], None] = lambda _: None,
) -> Stats:
    """Run the pipeline for some seconds."""
    controls = Controls()
    threading.Timer(seconds, controls.quit.set).start()
    return Pipeline(source, classifier, sinks, controls, begin=begin).run()


def oldest_ms(inference_ms: float) -> float:
    """How old nineteen of twenty pictures may be at the sink."""
    return 1000 / FPS + 1.5 * inference_ms + 10


def throughput_and_age(camera: MjpegCamera, real: Path, seconds: float, goals: Goals, sides: Table) -> None:
    """Throughput against the model's own bound or the camera's, whichever is lower; ages beside the naive loop's."""
    makers: dict[str, Callable[[], Classifier]] = {f"{ms} ms": lambda ms=ms: Model(ms) for ms in (5, 20, 60)}  # type: ignore[misc]
    makers[real.stem] = lambda: FileClassifier(real, threads=1)
    for name, make in makers.items():
        meter = Meter(seconds + WARM_S)
        stats = run(open_source(camera.url), make(), seconds + WARM_S, meter)
        inference = meter.inference_ms
        bound = min(1000 / inference, stats.camera_fps)
        share, p95 = meter.fps / bound, float(np.percentile(meter.ages, 95))
        limit = oldest_ms(inference)
        which = "1 / inference" if 1000 / inference < stats.camera_fps else "the camera"
        goals.row(f"{name}: throughput", f"{meter.fps:.2f} fps = {share:.1%} of {which}", ">= 97 %", share >= 0.97)
        goals.row(f"{name}: age p95 at the sink", f"{p95:.0f} ms", f"<= {limit:.0f} ms", p95 <= limit)
        ages, fps = naive(camera.url, make(), seconds)
        last = ages[len(ages) // 2 :]
        sides.add_row(
            name, f"{meter.fps:.1f}", f"{np.median(meter.ages):.0f} / {p95:.0f}",
            f"{fps:.1f}", f"{np.median(last):.0f} / {np.percentile(last, 95):.0f}",
        )  # fmt: skip


def own_time(shown: np.ndarray, real: Path, seconds: float, goals: Goals) -> None:
    """What a frame waits for us, from a camera that gives it decoded until it is drawn, less its inference.

    So everything of ours is in it: preprocessing, hand-offs and what threads take to wake up, smoothing, ranking,
    figures and drawing. Beside it the processor time of all threads, which sending to the model's process is part of;
    and preprocessing and drawing in a loop that waits for no camera: what is more than that is a processor that slept.
    """
    draws: list[int] = []
    painter = Painter(draws.append)
    own, spent = Series(seconds + WARM_S), Series(seconds + WARM_S)

    class Shower:
        def show(self, one: Update) -> None:
            painter.paint(one, mirror=False)
            if one.answer:
                own.add((time.monotonic_ns() - one.answer.frame.captured_ns - one.answer.inference_ns) / 1e6)
                spent.add(time.process_time() * 1e3)

        def close(self) -> None:
            pass

    camera, model = Camera(fps=FPS, image=shown), FileClassifier(real, threads=1)
    stats = run(camera, model, seconds + WARM_S, Shower(), begin=painter.begin)
    warm = int(WARM_S * FPS)
    total, processor = float(np.median(own.values[warm:])), float(np.median(np.diff(spent.values[warm:])))
    draw, hand = float(np.median(draws)) / 1e6, hand_offs_ms()
    parts = f"{total:.2f} ms: preprocess {stats.preprocess_ms:.2f}, draw {draw:.2f}, hand-offs {hand:.2f}, the rest"
    beside = f"({processor:.2f} CPU; both in a loop without waits: {loop_ms(shown, real):.2f})"
    goals.row(f"own time a frame, {SIZE[1]}p, without JPEG", f"{parts} {beside}", "<= 1.5 ms", total <= 1.5)
    goals.row("of it drawing", f"{draw:.2f} ms", "<= 0.5 ms", draw <= 0.5)


def loop_ms(shown: np.ndarray, real: Path, rounds: int = 100) -> float:
    """Time of preprocessing and drawing one frame after another, from a processor that never waits: the median."""
    with contextlib.closing(FileClassifier(real, threads=1)) as model:
        prep = model.artifact.manifest.input.preprocessing
    painter, took = Painter(), []
    for number in range(rounds):
        one = update(shown, number)
        began = time.perf_counter_ns()
        fit(shown, prep)
        painter.paint(one, mirror=False)
        took.append(time.perf_counter_ns() - began)
    return float(np.median(took)) / 1e6


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
    return float(np.median(took)) / 1e6


def cost_of_viewers(shown: Frame, own: bytes | None, seconds: float, goals: Goals) -> None:
    """What viewers of the page cost this process: processor time with them, less what it takes without.

    own: the JPEG that the camera sent, which goes on as it is; None: it sent none, each picture is encoded here.
    """
    page = WebView(Controls())
    page.start()
    shares = []
    for count in (0, VIEWERS):
        child = viewers(f"ws://127.0.0.1:{page.port}/ws", count)
        wait_for_viewers(page, count)
        encoded = told(page)["encoded"]
        cpu, wall = time.process_time(), time.monotonic()
        number = 0
        while time.monotonic() - wall < seconds:
            page.show(update(shown.image, number, jpeg=own))
            number += 1
            time.sleep(max(0.0, wall + number / FPS - time.monotonic()))
        shares.append((time.process_time() - cpu) / (time.monotonic() - wall))
        now = told(page)
        assert now["viewers"] == count, f"{now['viewers']} of {count} viewers were there in the end"
        needed = bool(count and own is None)
        assert (now["encoded"] > encoded) == needed, "pictures were encoded for nobody, or that were JPEGs already"
        received = int(child.communicate()[0])
        assert received >= 0.8 * number * count * len(own or b" " * 10_000), "they were not sent what was shown"
    page.close()
    cost = shares[1] - shares[0]
    whose = "encoded here" if own is None else f"the camera's own JPEGs of {len(own) / 1e3:.0f} KB"
    what = f"{VIEWERS} viewers of the page, {SIZE[1]}p at {FPS:.0f} fps, {whose}"
    goals.row(what, f"{cost:.1%} of a core", "<= 10 %", cost <= 0.1)


def large_pictures(goals: Goals, rounds: int = 15) -> None:
    """What a 1080p picture that the page shows smaller takes until it is a JPEG, beside averaging its areas at once."""
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (270, 480, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(rounds):
        began = time.perf_counter_ns()
        encode(image)
        ours = time.perf_counter_ns()
        encode(np.asarray(cv2.resize(image, (1280, 720), interpolation=cv2.INTER_AREA), np.uint8))
        times[0].append(ours - began)
        times[1].append(time.perf_counter_ns() - ours)
    took, beside = (float(np.median(side)) / 1e6 for side in times)
    what = "a 1080p picture for the page, shrunk and encoded"
    goals.row(what, f"{took:.1f} ms; averaging areas {beside:.1f} ms", "less", took < beside)


def told(page: WebView) -> dict[str, Any]:
    """Return what the page tells machines."""
    with urllib.request.urlopen(f"{page.url}stats.json", timeout=10) as answer:
        return dict(json.load(answer))


def wait_for_viewers(page: WebView, count: int) -> None:
    """Wait until so many are connected."""
    until = time.monotonic() + 20
    while told(page)["viewers"] != count:
        if time.monotonic() > until:
            raise RuntimeError(f"{count} viewers do not come")
        time.sleep(0.1)


def first_frame(url: str) -> Frame:
    """Fetch one picture of the camera."""
    source = open_source(url)
    stop = threading.Event()
    for item in source.frames(stop):
        if isinstance(item, Frame):
            source.close()
            return item
    raise RuntimeError("no picture")


def over_time(camera: MjpegCamera, real: Path, minutes: float, goals: Goals, sides: Table) -> None:
    """Memory of this process and the age of what is shown, the naive loop beside it; a real file, slowed to SLOW_MS."""
    meter, sizes = Meter(minutes * 60), Series(minutes * 60, 1)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            sizes.add(resident_mb())

    beside = naive_beside(camera.url, real, SLOW_MS, minutes * 60)
    threading.Thread(target=watch, daemon=True).start()
    run(open_source(camera.url), Slowed(real, SLOW_MS), minutes * 60, meter)
    stop.set()
    warm = sizes.values[min(20, sizes.count // 2) :]
    drift = float(np.ptp(warm))
    goals.row(f"memory over {minutes:g} min", f"{warm.min():.1f} to {warm.max():.1f} MB", "within +-5 MB", drift <= 10)
    parts = np.array_split(meter.ages, max(2, round(minutes)))
    p50, p95 = ([float(np.percentile(part, share)) for part in parts] for share in (50, 95))
    limit = oldest_ms(meter.inference_ms)
    goals.row(
        f"age p50 over {minutes:g} min, stretch by stretch",
        f"{min(p50):.0f} to {max(p50):.0f} ms",
        "flat within 5 ms",
        max(p50[1:]) <= p50[0] + 5,
    )
    goals.row("age p95 of the worst stretch", f"{max(p95):.0f} ms", f"<= {limit:.0f} ms", max(p95) <= limit)
    ages = np.array(json.loads(beside.communicate()[0]))
    early, late = (f"{np.median(part):.0f}" for part in (ages[: len(ages) // 5], ages[-len(ages) // 5 :]))
    sides.add_row(
        f"{SLOW_MS:.0f} ms, over {minutes:g} min", f"{meter.fps:.1f}", f"{np.median(meter.ages):.0f} / {max(p95):.0f}",
        f"{len(ages) / minutes / 60:.1f}", f"p50 from {early} to {late}",
    )  # fmt: skip


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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a shell's background are born deaf to Ctrl-C
    goals = Goals(Table("what", "measured", "goal", "kept"))
    sides = Table("model", "pipeline, fps", "age p50 / p95, ms", "naive loop, fps", "age p50 / p95, ms")
    with MjpegCamera(FPS, SIZE) as camera:
        shown = first_frame(camera.url)
        if arguments.minutes:
            over_time(camera, arguments.model, arguments.minutes, goals, sides)
        throughput_and_age(camera, arguments.model, arguments.seconds, goals, sides)
        camera_cli.ctrl_c(camera.url, goals)
    own_time(shown.image, arguments.model, arguments.seconds, goals)
    for own in (None, shown.jpeg):
        cost_of_viewers(shown, own, arguments.seconds, goals)
    large_pictures(goals)
    camera_cli.same_answers(goals)
    console = Console(width=150)
    console.print(goals.table)
    console.print(sides)
    sys.exit(bool(goals.missed))


if __name__ == "__main__":
    main()
