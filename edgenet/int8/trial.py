"""Ways to quantize one network, judged on images that no correction has seen; the better is kept.

Their activation ranges come from all calibration images, these included: the same for each.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from devices.errors import DeviceError
from devices.latency import measure
from devices.machine import at_once
from devices.runtimes.pool import ModelPool
from devices.runtimes.timing import Schedule
from edgenet.artifact import Attempt, Format
from edgenet.proof.agreement import agree

BATCH = 8

EQUAL_DB = 200.0
"""Stands for an infinite SQNR, which JSON cannot say; float32 itself reaches 150."""

LITTLE_DB, MUCH_DB = 0.5, 1.0

QUICK = Schedule(warmup_s=0.1, duration_s=0.2, min_runs=30, cap_s=2.0, repetitions=3)
"""Of a latency that is told and decides nothing: an int16x8 file may take seconds an image."""

Tell = Callable[[int, int], None]  # (done, of how many)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to quantize a network, as a file.

    Attributes:
        what: was done: "calibration alone", or the search's steps.
        content: the file's bytes.
        kept_float: operators that compute in float.
        fallback: which layer made tf2onnx write the graph; "" otherwise.
    """

    what: str
    content: bytes
    kept_float: tuple[str, ...]
    fallback: str


@dataclass(frozen=True, slots=True)
class Images:
    """What ways to quantize are judged on.

    Attributes:
        images: kept apart from corrections, uint8 [n, height, width, 3].
        answers: the float network's to them, float32 [n, classes], probabilities.
        validation: reads labelled images, batches uint8 [n, height, width, 3]: anew each time, as memory may not hold
            them all.
        targets: their classes, [m]; m may be 0.
        named: the classes that the float network gives them, [m].
    """

    images: np.ndarray
    answers: np.ndarray
    validation: Callable[[], Iterable[np.ndarray]]
    targets: np.ndarray
    named: np.ndarray

    @property
    def float_top1(self) -> float | None:
        """Share of the labelled images that the float network names rightly; None without such images."""
        return _top1(self.named, self.targets)


def judged(
    what: str,
    subject: Literal["simulator", "tflite", "onnx"],
    on: Images,
    scores: Callable[[np.ndarray], np.ndarray],
) -> Attempt:
    """Compare what answers uint8 images with probabilities with the float network."""
    agreement = agree(on.answers, scores(on.images), name=f"{what} ({subject})")
    sqnr = agreement.sqnr_db if math.isfinite(agreement.sqnr_db) else EQUAL_DB
    top1 = _top1(classes(map(scores, on.validation())), on.targets) if len(on.targets) else None
    return Attempt(what, subject, sqnr, agreement.top1_agreement, top1, None, None, kept=False, why="")


def choose(
    candidates: tuple[Candidate, ...], format_: Format, on: Images, tell: Tell
) -> tuple[Candidate, tuple[Attempt, ...]]:
    """Try every candidate on the images kept apart, and keep the better one.

    Returns:
        The candidate kept, and every attempt in order, with size and latency.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.{format_}" for i in range(len(candidates))]
        attempts = []
        try:
            for candidate, file in zip(candidates, files, strict=True):
                attempts.append(_tried(candidate, file, format_, on, tell))
            latencies = measure(files, (1,), QUICK)
        except DeviceError as exc:
            raise type(exc)(str(exc).replace(folder, f"the {format_} file (just made)")) from exc
    best = better(attempts, len(on.images))
    measured = [
        dataclasses.replace(
            attempt,
            kept=i == best,
            file_bytes=latency.file_bytes,
            latency_ms=latency.median_ms,
            why=_why(attempts, i, best),
        )
        for i, (attempt, latency) in enumerate(zip(attempts, latencies, strict=True))
    ]
    return candidates[best], tuple(measured)


def _tried(candidate: Candidate, file: Path, format_: Format, on: Images, tell: Tell) -> Attempt:
    file.write_bytes(candidate.content)
    with ModelPool(file, at_once()) as pool:

        def scores(images: np.ndarray) -> np.ndarray:
            answers = []
            for batch in pool.map(images[start : start + BATCH] for start in range(0, len(images), BATCH)):
                answers.append(batch)
                if images is on.images:  # the labelled ones are counted where they are read
                    tell(sum(map(len, answers)), len(images))
            return np.concatenate(answers)

        return judged(candidate.what, format_, on, scores)


def better(attempts: Sequence[Attempt], images: int) -> int:
    """Find the attempt to keep: the first, unless another has the better SQNR and agrees as often, but for noise.

    The SQNR is of all classes' logits, and far better known than the agreement: where it gains much, noise is twice as
    much. One that agrees more often, by more than twice the noise, may have a little less SQNR: of a dozen attempts one
    or two agree more often by one noise, by chance alone. Noise is that of the lower agreement: the higher one may owe
    its height to it.
    """
    best = 0
    for i, other in enumerate(attempts):
        share = attempts[best].top1_agreement
        little = noise(min(share, other.top1_agreement), images)
        gain = other.sqnr_db - attempts[best].sqnr_db
        nearer = gain > 0 and other.top1_agreement >= share - little * (2 if gain >= MUCH_DB else 1)
        agrees = other.top1_agreement > share + 2 * little and other.sqnr_db >= attempts[best].sqnr_db - LITTLE_DB
        if nearer or agrees:
            best = i
    return best


def noise(agreement: float, images: int) -> float:
    """Return one standard error of an agreement, 0..1, and at least one image: on 67 images at 90 %, 0.037."""
    return max(math.sqrt(agreement * (1 - agreement) / images), 1 / images)


def drop_points(before: float | None, after: float | None) -> float | None:
    """Return how many points of top-1 were lost, 149 of 200 against 150 exactly 0.5; None where one is unknown."""
    return None if before is None or after is None else round(100 * (before - after), 9)


def _why(attempts: Sequence[Attempt], i: int, best: int) -> str:
    if len(attempts) == 1:
        return "the only way tried"
    gain = attempts[best].sqnr_db - max(a.sqnr_db for j, a in enumerate(attempts) if j != best)
    return f"{gain:+.1f} dB" if i == best else "less like the float network"


def classes(answers: Iterable[np.ndarray]) -> np.ndarray:
    """Name the class of each image, int64 [n]; answers: batches [_, classes], of which no more is kept."""
    return np.concatenate([np.empty(0, np.int64), *(batch.argmax(axis=1) for batch in answers)])


def _top1(named: np.ndarray, targets: np.ndarray) -> float | None:
    return float((named == targets).mean()) if len(targets) else None
