"""What is shown is calmer than what is answered: probabilities averaged over time, and a label that keeps its place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgenet.camera.frame import Ranked

Probabilities = npt.NDArray[np.float64]

MARGIN, SHARE = 0.05, 0.2
"""How far another label must be ahead before it takes the first place, and the part of its own probability that is
enough: of a thousand classes the best may well be under 0.05."""


class Smoother:
    """An exponential average of probabilities, by time and not by frames: 5 or 50 frames a second look alike.

    seconds: what it forgets to 1/e in; 0 turns it off, hysteresis included.
    """

    def __init__(self, seconds: float, margin: float = MARGIN) -> None:
        self._seconds = seconds
        self._margin = margin
        self._average: Probabilities | None = None
        self._at_ns = 0
        self._leader: int | None = None

    def __call__(self, raw: Probabilities, at_ns: int) -> tuple[Probabilities, int]:
        """Take the probabilities [classes] of a frame at `at_ns`; the average [classes], and which class is on top."""
        if self._seconds <= 0:
            return raw, int(raw.argmax())
        if self._average is None or self._average.shape != raw.shape:
            self._average, self._leader = raw.copy(), None
        else:
            share = -math.expm1(-max(0, at_ns - self._at_ns) / (self._seconds * 1e9))
            self._average = self._average + share * (raw - self._average)
        self._at_ns = at_ns
        best = int(self._average.argmax())
        margin = min(self._margin, SHARE * float(self._average[best]))
        if self._leader is None or self._average[best] >= self._average[self._leader] + margin:
            self._leader = best
        return self._average, self._leader

    def reset(self) -> None:
        """Forget what was: another network answers from now on."""
        self._average = self._leader = None


def ranked(
    raw: Probabilities, smoothed: Probabilities, leader: int, labels: Sequence[str], top: int
) -> tuple[Ranked, ...]:
    """List the `top` most probable classes by smoothed probability, the leader first; of equals the lower index."""
    order = np.argsort(-smoothed, kind="stable")[:top].tolist()
    chosen = [leader, *(index for index in order if index != leader)][:top]
    return tuple(one(raw, smoothed, index, labels) for index in chosen)


def one(raw: Probabilities, smoothed: Probabilities, index: int, labels: Sequence[str]) -> Ranked:
    """Say what is known of one class."""
    return Ranked(index, labels[index], float(raw[index]), float(smoothed[index]))
