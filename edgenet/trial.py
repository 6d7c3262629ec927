"""Several quantized files of one network, tried on images that no correction has seen; the best is kept.

Their activation ranges come from all calibration images, these included: the same for each file.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.errors import DeviceError
from devices.machine import cores
from devices.pool import ModelPool
from edgenet.artifact import Attempt, Format
from edgenet.verify import agree

BATCH = 8

EQUAL_DB = 200.0
"""Stands for an infinite SQNR, which JSON cannot say; float32 itself reaches 150."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to quantize a network.

    Attributes:
        correction: what was done to the float network before: "none" or "bias correction".
        content: the file's bytes.
        kept_float: operators that compute in float.
        fallback: which layer made tf2onnx write the graph; "" otherwise.
    """

    correction: str
    content: bytes
    kept_float: tuple[str, ...]
    fallback: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images kept apart, and the float network's answers to them.

    Attributes:
        images: uint8 [n, height, width, 3].
        answers: float32 [n, classes], probabilities.
    """

    images: np.ndarray
    answers: np.ndarray


def attempt(candidate: Candidate, format_: Format, held_out: HeldOut) -> Attempt:
    """Run a candidate on the images kept apart, and compare it with the float network."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"candidate.{format_}"
        file.write_bytes(candidate.content)
        starts = range(0, len(held_out.images), BATCH)
        try:
            with ModelPool(file, cores()) as pool:
                rows = list(pool.map(held_out.images[start : start + BATCH] for start in starts))
        except DeviceError as exc:
            raise type(exc)(str(exc).replace(str(file), f"the {format_} file, just made,")) from exc
    agreement = agree(held_out.answers, np.concatenate(rows), name=f"the {format_} file with {candidate.correction}")
    sqnr = agreement.sqnr_db if math.isfinite(agreement.sqnr_db) else EQUAL_DB
    return Attempt(candidate.correction, sqnr, agreement.top1_agreement, kept=False)


def choose(
    candidates: tuple[Candidate, ...], format_: Format, held_out: HeldOut
) -> tuple[Candidate, tuple[Attempt, ...]]:
    """Try every candidate on the images kept apart, and keep the better one.

    Returns:
        The candidate kept, and every attempt in order. A single candidate is not tried.
    """
    if len(candidates) == 1:
        return candidates[0], ()
    attempts = [attempt(candidate, format_, held_out) for candidate in candidates]
    best = better(attempts, len(held_out.images))
    attempts[best] = dataclasses.replace(attempts[best], kept=True)
    return candidates[best], tuple(attempts)


def better(attempts: Sequence[Attempt], images: int) -> int:
    """Find the attempt to keep: the first, unless another raises the SQNR and agrees as often, but for noise.

    Noise is one standard error of the agreement, and at least one image: on 130 images at 90 %, 2.6 points.
    """
    best = 0
    for i, other in enumerate(attempts):
        share = attempts[best].top1_agreement
        noise = max(math.sqrt(share * (1 - share) / images), 1 / images)
        if other.sqnr_db > attempts[best].sqnr_db and other.top1_agreement >= share - noise:
            best = i
    return best
